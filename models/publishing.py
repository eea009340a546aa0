"""From a fitted estimator to a served model version, in one call."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidSample, ParityExceeded, UnsupportedModel
from models.estimator import output_of, predictions
from models.export import Export, to_onnx
from models.frame import decode_rows, encode_frame, from_frame
from models.libraries import installed_libraries, installed_version
from models.manifest import DatasetVersion, Draft, Metric, Sample
from models.onnx_graph import OnnxGraph
from models.positional import order_of_use, positional
from models.reference import ModelReference, checked_name
from models.registry import Registry
from models.runtime import ONNX_FILE, SKOPS_FILE
from models.signature import Batch, Output, Signature
from models.trust import dump, restore

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_ROWS = 8
UNSEEN = "turnout: never seen"
POSITIONAL_TOLERANCE = 1e-9


class Rows(NamedTuple):
    """Input rows as the estimator takes them, and what it predicts for them; shape [n]."""

    frame: "pd.DataFrame"
    expected: NDArray[np.float64]


class Artefacts(NamedTuple):
    """The files of a model version, its graph if it has one, and why it has none."""

    files: dict[str, bytes]
    trusted_types: tuple[str, ...]
    export: Export | None
    notes: tuple[str, ...]


def publish(
    estimator: Any,
    sample: "pd.DataFrame | NDArray[Any]",
    *,
    name: str,
    registry: Registry | Path | str | None = None,
    validation: "pd.DataFrame | NDArray[Any] | None" = None,
    feature_names: Sequence[str] | None = None,
    output: Output | None = None,
    datasets: Mapping[str, DatasetVersion] | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Metric | float] | None = None,
    code_version: str | None = None,
) -> ModelReference:
    """Put a fitted binary classifier or regressor of scikit-learn into a registry as the next version of `name`.

    `sample` are input rows like those it was fitted on: their columns become the signature, nullable where a value
    is missing and the estimator takes that. ONNX must predict what the estimator predicts on every row of
    `validation` (default: the sample), else scikit-learn itself serves the model; `Manifest.notes` says why.
    The registry is a folder, by default $TURNOUT_REGISTRY or var/registry.
    Raises InvalidReference, InvalidSample, UnsupportedModel, UntrustedType or RegistryUnavailable.
    """
    checked_name(name)
    inferred = output_of(estimator)
    rows, notes = _rows(estimator, _frame(estimator, sample, feature_names))
    checked = rows if validation is None else _rows(estimator, _frame(estimator, validation, feature_names))[0]
    columns = list(rows.frame.columns)
    signature = from_frame(rows.frame[order_of_use(estimator, columns)], output or inferred)
    _check_output(signature, checked)
    artefacts = _artefacts(positional(estimator, columns, signature), signature, checked)
    draft = Draft(
        name=name,
        signature=signature,
        runtime="onnx" if artefacts.export else "sklearn",
        float_width=artefacts.export.float_width if artefacts.export else None,
        libraries=installed_libraries(),
        trusted_types=artefacts.trusted_types,
        parity=artefacts.export.parity if artefacts.export else None,
        sample=_sample(artefacts, encode_frame(rows.frame, signature), signature),
        datasets=dict(datasets or {}),
        code_version=code_version,
        params=_plain(params or {}),
        metrics={
            key: metric if isinstance(metric, Metric) else Metric(float(metric))
            for key, metric in (metrics or {}).items()
        },
        notes=notes + artefacts.notes,
    )
    return _registry(registry).publish(draft, artefacts.files)


def _registry(registry: Registry | Path | str | None) -> Registry:
    if isinstance(registry, Registry):
        return registry
    return Registry(Path(registry or os.environ.get("TURNOUT_REGISTRY") or "var/registry"))


def _frame(estimator: Any, rows: "pd.DataFrame | NDArray[Any]", feature_names: Sequence[str] | None) -> "pd.DataFrame":
    """The rows with exactly the columns that the estimator was fitted on, in that order."""
    import pandas as pd

    fitted = getattr(estimator, "feature_names_in_", None)
    if not isinstance(rows, pd.DataFrame):
        array = np.asarray(rows)
        if array.ndim != 2:
            raise InvalidSample(f"sample rows need two dimensions, not {array.ndim}: rows and features")
        default = fitted if fitted is not None else [f"f{column}" for column in range(array.shape[1])]
        names = list(default if feature_names is None else feature_names)
        if len(names) != array.shape[1]:
            raise InvalidSample(f"{len(names)} feature names do not fit {array.shape[1]} columns")
        rows = pd.DataFrame(array, columns=names)
    expected = list(fitted) if fitted is not None else list(rows.columns)
    if set(expected) != set(rows.columns):
        raise InvalidSample(
            f"the estimator was fitted on columns {expected}, the sample has {list(rows.columns)}: "
            "give it the same columns, without the label"
        )
    return rows[expected]


def _rows(estimator: Any, frame: "pd.DataFrame") -> tuple[Rows, tuple[str, ...]]:
    """The rows that the estimator predicts, which are the complete ones when it refuses missing values."""
    if frame.empty:
        raise InvalidSample("the sample has no rows")
    try:
        return Rows(frame, _ask(estimator, frame)), ()
    except (ValueError, TypeError, KeyError) as error:
        complete = frame.dropna()
        if len(complete) in (0, len(frame)):
            raise InvalidSample(f"{type(estimator).__name__} does not predict the sample: {error}") from error
    note = f"{len(frame) - len(complete)} sample rows with missing values were left out: the estimator refuses them"
    return Rows(complete, _rows(estimator, complete)[0].expected), (note,)


def _ask(estimator: Any, frame: "pd.DataFrame") -> NDArray[np.float64]:
    expected = predictions(estimator, frame if hasattr(estimator, "feature_names_in_") else frame.to_numpy())
    if not np.isfinite(expected).all():
        row = int(np.argmin(np.isfinite(expected)))
        raise InvalidSample(f"{type(estimator).__name__} predicts {expected[row]} for row {row} of the sample")
    return expected


def _check_output(signature: Signature, rows: Rows) -> None:
    low, high = float(rows.expected.min()), float(rows.expected.max())
    if signature.output == "probability" and not 0 <= low <= high <= 1:
        raise InvalidSample(f"predictions reach from {low:g} to {high:g}, which are no probabilities: output='number'")


def _artefacts(served: Any, signature: Signature, rows: Rows) -> Artefacts:
    batch = encode_frame(rows.frame, signature)
    content, trusted_types = dump(served)
    restored = restore(content, trusted_types)
    _check_positional(restored, batch, rows.expected)
    unseen = _unseen(batch)
    everything = Batch(
        np.concatenate([batch.numbers, unseen.numbers]), np.concatenate([batch.categories, unseen.categories])
    )
    expected = np.concatenate([rows.expected, _predictions_of_unseen(restored, unseen)])
    files = {SKOPS_FILE: content}
    try:
        if installed_version("skl2onnx") is None:
            raise UnsupportedModel("skl2onnx is not installed: pip install 'turnout[orchestration]'")
        export = to_onnx(served, everything, expected)
    except (ParityExceeded, UnsupportedModel) as error:
        return Artefacts(files, trusted_types, None, (f"served by scikit-learn, not ONNX: {error}",))
    return Artefacts(files | {ONNX_FILE: export.content}, trusted_types, export, ())


def _check_positional(served: Any, batch: Batch, expected: NDArray[np.float64]) -> None:
    """The server has no data frames, so the estimator must not need one."""
    advice = "select columns by name in a ColumnTransformer that is the first step, and fit again"
    try:
        found = predictions(served, batch.joined())
    except (ValueError, TypeError) as error:
        raise UnsupportedModel(f"the estimator takes no plain arrays ({error}): {advice}") from error
    if not np.allclose(found, expected, rtol=POSITIONAL_TOLERANCE, atol=POSITIONAL_TOLERANCE):
        raise UnsupportedModel(
            f"the estimator predicts up to {np.abs(found - expected).max():.1e} differently from plain arrays: {advice}"
        )


def _unseen(batch: Batch) -> Batch:
    """Some of the rows with categories that nobody was trained on."""
    some = batch.take(_spread(batch))
    return some._replace(categories=np.full_like(some.categories, UNSEEN))


def _predictions_of_unseen(served: Any, unseen: Batch) -> NDArray[np.float64]:
    try:
        return predictions(served, unseen.joined())
    except ValueError as error:
        raise UnsupportedModel(
            f"the estimator refuses categories that it was not fitted on ({error}): give its encoder "
            "handle_unknown='ignore' or 'use_encoded_value', and fit again"
        ) from error


def _spread(batch: Batch) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, len(batch.numbers) - 1, SAMPLE_ROWS).astype(np.intp))


def _sample(artefacts: Artefacts, batch: Batch, signature: Signature) -> Sample:
    """A few rows, evenly spread, with what the artefact that serves the model predicts for them."""
    some = batch.take(_spread(batch))
    if artefacts.export:
        predicted = OnnxGraph(artefacts.export.content, artefacts.export.float_width).predict(some)
    else:
        predicted = predictions(restore(artefacts.files[SKOPS_FILE], artefacts.trusted_types), some.joined())
    return Sample(tuple(decode_rows(some, signature)), tuple(predicted.tolist()))


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON takes them: numpy's numbers as Python's, everything else that is unknown as text."""
    plain: dict[str, Any] = msgspec.to_builtins(
        dict(params), enc_hook=lambda value: value.item() if isinstance(value, np.generic) else repr(value)
    )
    return plain
