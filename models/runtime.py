"""Models in memory: loaded from a registry, checked, warmed up and ready to predict."""

import math
from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import IncompatibleLibrary, SelfCheckFailed, UnsupportedModel
from models.estimator import predictions
from models.foreign_graph import ForeignGraph
from models.libraries import check_scikit_learn, installed_version
from models.manifest import Manifest
from models.onnx_graph import OnnxGraph
from models.reference import ModelReference
from models.registry import Registry
from models.signature import Batch, BatchEncoder, Signature, input_struct
from models.trust import restore

ONNX_FILE = "model.onnx"
SKOPS_FILE = "model.skops"

# Other processors and library builds round differently; anything wrong differs by more than this.
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-5, 1e-6

Predict = Callable[[Batch], NDArray[np.float64]]


class Model(Protocol):
    """A loaded model version; safe to call from several threads."""

    @property
    def reference(self) -> ModelReference:
        """Which version this is."""
        ...

    @property
    def manifest(self) -> Manifest:
        """What its registry says of it."""
        ...

    @property
    def signature(self) -> Signature:
        """The features that its batches are encoded from."""
        ...

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability or number per row of a batch that has at least one; shape [n]."""
        ...


class LoadedModel:
    """A manifest with the function that it describes."""

    def __init__(self, manifest: Manifest, predict: Predict) -> None:
        self.manifest = manifest
        self.reference = manifest.reference
        self.signature = manifest.signature
        # An attribute, so that a prediction costs no further call.
        self.predict = predict


def load(registry: Registry, reference: ModelReference) -> Model:
    """A published version, after checks of its files, libraries, types and sample predictions.

    Raises ModelNotFound, TamperedModel, IncompatibleLibrary, UntrustedType, SelfCheckFailed or, for a model on another
    server, RemoteError.
    """
    manifest = registry.verify(reference)
    model: Model
    if manifest.runtime == "remote":
        # Only those who have such a model pay for loading an HTTP client.
        from models.remote import remote_model

        model = remote_model(manifest)
    elif manifest.runtime == "onnx":
        model = LoadedModel(manifest, _onnx(manifest, registry.read(reference, ONNX_FILE)))
    else:
        model = LoadedModel(manifest, _scikit_learn(manifest, registry.read(reference, SKOPS_FILE)))
    _check_sample(model)
    return model


def _onnx(manifest: Manifest, content: bytes) -> Predict:
    try:
        if manifest.graph is not None:
            return ForeignGraph(content, manifest.graph, manifest.signature).predict
        return OnnxGraph(content, manifest.float_width or 32).predict
    except UnsupportedModel as error:
        recorded = manifest.libraries.get("onnxruntime", "unknown")
        raise IncompatibleLibrary(
            f"{manifest.reference} was checked with onnxruntime {recorded}, but {installed_version('onnxruntime')} is "
            f"installed and cannot run it: install onnxruntime {recorded} or newer, or publish again ({error})"
        ) from error


def _scikit_learn(manifest: Manifest, content: bytes) -> Predict:
    check_scikit_learn(manifest)
    estimator = restore(content, manifest.trusted_types)
    return lambda batch: predictions(estimator, batch.joined())


def _check_sample(model: Model) -> None:
    """Predict the manifest's rows one at a time, as they will be served; this is the warm-up as well."""
    sample, encoder = model.manifest.sample, BatchEncoder(model.signature)
    rows = msgspec.convert(list(sample.inputs), list[input_struct(model.signature)])  # type: ignore[misc]
    for number, (row, expected) in enumerate(zip(rows, sample.predictions, strict=True)):
        found = model.predict(encoder.encode([row])).item()
        if not math.isclose(found, expected, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE):
            raise SelfCheckFailed(
                f"{model.reference} predicts {found!r} for row {number} of its sample, but {expected!r} was published: "
                "publish it again with the libraries that serve it"
            )
