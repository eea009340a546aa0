"""One way in for every model that was trained elsewhere; what it is, its name says."""

from collections.abc import Callable
from pathlib import Path

from models.errors import InvalidSample, UnreadableModel
from models.importing.estimators import import_estimator
from models.importing.given import Given
from models.importing.graphs import import_graph
from models.importing.mlflow_folders import read_folder
from models.importing.mlflow_registries import URI, fetched
from models.importing.pickles import SUFFIXES, refuse_pickle
from models.importing.sample_files import SampleFile
from models.reference import ModelReference, checked_name
from models.registry import Registry
from models.signature import Output, Signature

IMPORTERS: dict[str, Callable[[Path, Given], ModelReference]] = {".onnx": import_graph, ".skops": import_estimator}


def import_model(
    source: Path | str,
    *,
    name: str,
    registry: Registry | Path | str | None = None,
    sample: Path | str | None = None,
    signature: Signature | None = None,
    output: Output | None = None,
) -> ModelReference:
    """Put a model that was trained elsewhere into a registry as the next version of `name`.

    `source` is an ONNX graph (.onnx), an estimator of scikit-learn (.skops), a folder that MLflow wrote, or an address
    in an MLflow registry, such as `models:/name/3`. `sample` is a CSV, Parquet or JSON file of rows; what the model
    predicts for some of them is stored, and every load repeats it.
    Raises UnreadableModel, UnsupportedModel, UntrustedType, IncompatibleLibrary, MissingLibrary, InvalidReference,
    InvalidSample or RegistryUnavailable.
    """
    checked_name(name)
    if signature is not None and output not in (None, signature.output):
        raise InvalidSample(f"the signature says {signature.output!r}, but output is {output!r}: leave one of them out")
    given = Given(
        name=name,
        registry=registry,
        origin=str(source),
        sample=None if sample is None else SampleFile(Path(sample)),
        features=None if signature is None else signature.features,
        output=output if signature is None else signature.output,
    )
    if isinstance(source, str) and URI.match(source):
        with fetched(source) as folder:
            return _imported(folder, given)
    if "://" in str(source):
        raise UnreadableModel(
            f"{source} is no file of this machine: download it first, or give its address in an MLflow registry, such "
            "as models:/name/3"
        )
    return _imported(Path(source), given)


def _imported(path: Path, given: Given) -> ModelReference:
    told = given
    if path.is_dir():
        path, given = read_folder(path, given)
    if path.suffix in SUFFIXES:
        refuse_pickle(told)
    if path.suffix not in IMPORTERS:
        raise UnreadableModel(
            f"{given.origin} is none of .onnx, .skops and a folder of MLflow's: convert the model to ONNX, or serve it "
            "behind the Open Inference Protocol and publish it with `turnout model remote`"
        )
    try:
        return IMPORTERS[path.suffix](path, given)
    except OSError as error:
        raise UnreadableModel(f"{given.origin} cannot be read: {error.strerror or error}") from error
