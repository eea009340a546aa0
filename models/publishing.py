"""From a fitted estimator to a served model version, in one call."""

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
from models.registry import Registry, registry_at
from models.rows import Rows, few, rows_of, with_probes
from models.runtime import ONNX_FILE, SKOPS_FILE
from models.signature import Batch, Output, Signature
from models.trust import dump, restore

if TYPE_CHECKING:
    import pandas as pd

# A data frame of float32 columns is computed in float32, plain arrays in float64.
POSITIONAL_TOLERANCE = 1e-6
BY_POSITION = "select columns by name in a ColumnTransformer that is the first step, and fit again"


def publish(
    estimator: Any,
    sample: "pd.DataFrame | NDArray[Any]",
    *,
    name: str,
    registry: Registry | Path | str | None = None,
    validation: "pd.DataFrame | NDArray[Any] | None" = None,
    feature_names: Sequence[str] | None = None,
    signature: Signature | None = None,
    output: Output | None = None,
    datasets: Mapping[str, DatasetVersion] | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Metric | float] | None = None,
    code_version: str | None = None,
    notes: Sequence[str] = (),
) -> ModelReference:
    """Put a fitted binary classifier or regressor of scikit-learn into a registry as the next version of `name`.

    `sample` are input rows like those it was fitted on. Unless a signature is given, their columns become it, nullable
    where a value is missing and the estimator takes that. ONNX must predict what the estimator predicts on every row
    of `validation` (default: the sample) that a request could carry, and on unknown categories and nulls; else
    scikit-learn itself serves the model, and `Manifest.notes` says why.
    The registry is a folder, by default $TURNOUT_REGISTRY or var/registry.
    Raises InvalidReference, InvalidSample, UnsupportedModel, UntrustedType or RegistryUnavailable.
    """
    checked_name(name)
    inferred = output_of(estimator)
    rows, left_out = rows_of(estimator, sample, feature_names)
    checked = rows if validation is None else rows_of(estimator, validation, feature_names)[0]
    columns = list(rows.frame.columns)
    if signature is None:
        signature = from_frame(rows.frame[order_of_use(estimator, columns)], output or inferred)
    _check_fit(signature, columns, checked)
    served = positional(estimator, columns, signature)
    artefacts = _artefacts(served, signature, checked.servable(signature))
    draft = Draft(
        name=name,
        signature=signature,
        runtime="onnx" if artefacts.export else "sklearn",
        float_width=artefacts.export.float_width if artefacts.export else None,
        libraries=installed_libraries(),
        trusted_types=artefacts.trusted_types,
        parity=artefacts.export.parity if artefacts.export else None,
        sample=_sample(artefacts, encode_frame(rows.servable(signature).frame, signature), signature),
        datasets=dict(datasets or {}),
        code_version=code_version,
        params=_plain(params or {}),
        metrics={key: _metric(value) for key, value in (metrics or {}).items()},
        notes=(*notes, *left_out, *artefacts.notes),
    )
    return registry_at(registry).publish(draft, artefacts.files)


class _Artefacts(NamedTuple):
    """The files of a model version, its graph if it has one, and why it has none."""

    files: dict[str, bytes]
    trusted_types: tuple[str, ...]
    export: Export | None
    notes: tuple[str, ...]


def _check_fit(signature: Signature, columns: list[str], rows: Rows) -> None:
    declared = [feature.name for feature in signature.features]
    if set(declared) != set(columns):
        raise InvalidSample(f"the signature has the features {declared}, but the estimator was fitted on {columns}")
    low, high = float(rows.expected.min()), float(rows.expected.max())
    if signature.output == "probability" and not 0 <= low <= high <= 1:
        raise InvalidSample(f"predictions from {low:g} to {high:g} are no probabilities: publish with output='number'")


def _artefacts(served: Any, signature: Signature, rows: Rows) -> _Artefacts:
    content, trusted_types = dump(served)
    restored = restore(content, trusted_types)
    batch = encode_frame(rows.frame, signature)
    _check_positional(restored, batch, rows.expected)
    batch, expected = with_probes(
        lambda probe: predictions(restored, probe.joined()), batch, rows.expected, signature, "the estimator"
    )
    files = {SKOPS_FILE: content}
    try:
        if installed_version("skl2onnx") is None:
            raise UnsupportedModel("skl2onnx is not installed: pip install 'turnout[orchestration]'")
        export = to_onnx(served, batch, expected)
    except (ParityExceeded, UnsupportedModel) as error:
        return _Artefacts(files, trusted_types, None, (f"served by scikit-learn, not ONNX: {error}",))
    return _Artefacts(files | {ONNX_FILE: export.content}, trusted_types, export, ())


def _check_positional(served: Any, batch: Batch, expected: NDArray[np.float64]) -> None:
    """The server has no data frames, so the estimator must not need one."""
    try:
        found = predictions(served, batch.joined())
    except (ValueError, TypeError) as error:
        raise UnsupportedModel(f"the estimator takes no plain arrays ({error}): {BY_POSITION}") from error
    if not np.allclose(found, expected, rtol=POSITIONAL_TOLERANCE, atol=POSITIONAL_TOLERANCE):
        difference = np.abs(found - expected).max()
        raise UnsupportedModel(f"the estimator strays by {difference:.1e} when given plain arrays: {BY_POSITION}")


def _sample(artefacts: _Artefacts, batch: Batch, signature: Signature) -> Sample:
    """A few rows with what the artefact that serves the model predicts for them."""
    some = few(batch)
    if artefacts.export:
        predicted = OnnxGraph(artefacts.export.content, artefacts.export.float_width).predict(some)
    else:
        predicted = predictions(restore(artefacts.files[SKOPS_FILE], artefacts.trusted_types), some.joined())
    return Sample(tuple(decode_rows(some, signature)), tuple(predicted.tolist()))


def _metric(value: Metric | float) -> Metric:
    return value if isinstance(value, Metric) else Metric(float(value))


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON takes them: numpy's numbers as Python's, all that JSON does not know as text."""
    plain: dict[str, Any] = msgspec.to_builtins(
        dict(params), enc_hook=lambda value: value.item() if isinstance(value, np.generic) else repr(value)
    )
    return plain
