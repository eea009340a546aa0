"""From a skops file to a model version, by the way of `models.publish`."""

import warnings
from pathlib import Path
from typing import Any

from models.errors import IncompatibleLibrary, InvalidSample, UnreadableModel, UntrustedType
from models.estimator import output_of
from models.importing.given import Given
from models.libraries import installed_version
from models.positional import order_of_use
from models.publishing import publish
from models.reference import ModelReference
from models.signature import Signature
from models.trust import TRUSTED, restore


def import_estimator(path: Path, given: Given) -> ModelReference:
    """Publish the estimator of a skops file; its types must be reviewed, and it needs a sample."""
    if given.sample is None:
        raise InvalidSample(
            f"{given.origin} needs a sample: rows like those it was fitted on, as CSV, Parquet or JSON (--sample)"
        )
    estimator = _restored(path.read_bytes(), given)
    texts = [feature.name for feature in given.features or () if feature.kind == "category"]
    frame = given.sample.frame(texts)
    fitted = list(getattr(estimator, "feature_names_in_", ()))
    if fitted and set(fitted) <= set(frame.columns):
        frame = frame[fitted]
    return publish(
        estimator,
        frame,
        name=given.name,
        registry=given.registry,
        signature=_signature(estimator, list(frame.columns), given),
        output=given.output,
        notes=given.notes,
    )


def _signature(estimator: Any, columns: list[str], given: Given) -> Signature | None:
    if given.features is None:
        return None
    named = {feature.name: feature for feature in given.features}
    order = order_of_use(estimator, columns) if named.keys() == set(columns) else list(named)
    return Signature(tuple(named[name] for name in order), given.output or output_of(estimator))


def _restored(content: bytes, given: Given) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = restore(content, tuple(TRUSTED))
        except UntrustedType:
            raise
        except Exception as error:  # skops raises whatever the file makes it meet
            raise UnreadableModel(f"{given.origin} is no skops file that can be read here: {error}") from error
    for warning in caught:
        _check_version(getattr(warning.message, "original_sklearn_version", None), given)
    return estimator


def _check_version(made_with: str | None, given: Given) -> None:
    installed = installed_version("scikit-learn") or "none"
    if made_with is not None and made_with.split(".")[:2] != installed.split(".")[:2]:
        raise IncompatibleLibrary(
            f"{given.origin} was made with scikit-learn {made_with}, but {installed} is installed: fit it again with "
            f"scikit-learn {'.'.join(installed.split('.')[:2])}.*, or convert it to ONNX where it was made"
        )
