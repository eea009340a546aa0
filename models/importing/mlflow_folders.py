"""MLflow model folders, read without MLflow: MLmodel says which file holds the model, and what it takes."""

import json
from pathlib import Path
from typing import Any

import msgspec

from models.errors import InvalidSample, UnreadableModel, UnsupportedModel
from models.importing.given import Given
from models.importing.sample_files import SampleFile
from models.signature import Feature, Kind

MLMODEL = "MLmodel"
KINDS: dict[str, Kind] = {
    "boolean": "boolean",
    "integer": "number",
    "long": "number",
    "float": "number",
    "double": "number",
    "string": "category",
}


class _Flavors(msgspec.Struct, frozen=True):
    onnx: dict[str, Any] | None = None
    sklearn: dict[str, Any] | None = None


class _Signature(msgspec.Struct, frozen=True):
    inputs: str | None = None


class _Example(msgspec.Struct, frozen=True):
    artifact_path: str


class _Column(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    required: bool = True


class MlflowModel(msgspec.Struct, frozen=True):
    """What an MLmodel file says of a model, as far as it matters here."""

    flavors: _Flavors
    signature: _Signature | None = None
    saved_input_example_info: _Example | None = None
    run_id: str | None = None
    model_uuid: str | None = None


def read_folder(folder: Path, given: Given) -> tuple[Path, Given]:
    """The file that holds a folder's model, and what the folder says of it where nobody said otherwise."""
    try:
        described = msgspec.yaml.decode((folder / MLMODEL).read_bytes(), type=MlflowModel)
    except OSError as error:
        raise UnreadableModel(
            f"{given.origin} has no file {MLMODEL}: a folder is imported when mlflow.onnx or mlflow.sklearn saved it"
        ) from error
    except msgspec.DecodeError as error:
        raise UnreadableModel(f"{given.origin}: {MLMODEL} is not what MLflow writes: {error}") from error
    file = _model_file(described, folder, given)
    return file, _completed(described, folder, given)


def _model_file(described: MlflowModel, folder: Path, given: Given) -> Path:
    onnx, sklearn = described.flavors.onnx, described.flavors.sklearn
    if onnx is not None:
        return _within(folder, onnx.get("data", "model.onnx"), given)
    if sklearn is not None:
        return _within(folder, sklearn.get("pickled_model", "model.pkl"), given)
    raise UnsupportedModel(
        f"{given.origin} has neither the flavor onnx nor sklearn: save it with mlflow.onnx, or serve it behind the "
        "Open Inference Protocol and publish it with `turnout model remote`"
    )


def _completed(described: MlflowModel, folder: Path, given: Given) -> Given:
    run = described.run_id or described.model_uuid
    example = described.saved_input_example_info
    sample = given.sample
    if sample is None and example is not None:
        sample = SampleFile(_within(folder, example.artifact_path, given))
    features = given.features or _features(described.signature, given)
    origin = f"{given.origin}, MLflow {'run' if described.run_id else 'model'} {run}" if run else given.origin
    return given._replace(origin=origin, sample=sample, features=features)


def _features(signature: _Signature | None, given: Given) -> tuple[Feature, ...] | None:
    """The columns of an MLflow signature; None where it has tensors, which name no features."""
    try:
        entries = json.loads((signature and signature.inputs) or "[]")
        columns = msgspec.convert(entries, list[_Column])
    except (ValueError, TypeError) as error:
        raise UnreadableModel(
            f"{given.origin}: {MLMODEL} has a signature that MLflow does not write: {error}"
        ) from error
    if any(column.type == "tensor" or column.name is None for column in columns):
        return None
    return tuple(_feature(column, given) for column in columns) or None


def _feature(column: _Column, given: Given) -> Feature:
    if column.type not in KINDS:
        raise InvalidSample(
            f"{given.origin}: column {column.name!r} of its signature is a {column.type}; features are "
            f"{', '.join(KINDS)}: derive such columns before the model, or give --signature"
        )
    return Feature(column.name or "", KINDS[column.type], nullable=not column.required)


def _within(folder: Path, name: object, given: Given) -> Path:
    path = folder / str(name)
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise UnreadableModel(f"{given.origin}: {MLMODEL} names the file {name!r}, which the folder does not have")
    return path
