"""Everything that can go wrong with a model, as one tree.

ModelError
├── InvalidReference        a text that is not `name@version`
├── InvalidSample           sample rows from which no signature or prediction can be made
├── UnreadableModel         a file, folder or address from which no model can be read
├── UnsupportedModel        an estimator that can be neither described nor served
├── UntrustedType           a serialised type that is not on the reviewed list
├── ParityExceeded          an ONNX graph that does not predict what its estimator predicts
├── MissingLibrary          a library that is needed for this, and is not installed
├── IncompatibleLibrary     an artefact made with a library version that cannot be served here
├── SelfCheckFailed         a loaded model that does not reproduce its manifest's sample
├── InvalidTensor           a tensor that contradicts its own shape, datatype or size
│   └── InvalidValue            a value of a request that the model's own tensor cannot hold
├── RemoteError             a model in another process that gave no prediction
│   ├── RemoteUnavailable       it cannot be reached, is not ready or does not answer in time
│   └── RemoteRefused           it answered with an error, or with something else than predictions
└── RegistryError
    ├── RegistryUnavailable     the registry's folder is missing, unreadable or unwritable
    ├── ModelNotFound           no such name or version
    └── TamperedModel           a file was changed, added or removed after publication
"""


class ModelError(Exception):
    """Base of all errors of this package."""


class InvalidReference(ModelError):
    """A text that is not `name@version`."""


class InvalidSample(ModelError):
    """Sample rows from which no signature or prediction can be made."""


class UnreadableModel(ModelError):
    """A file, folder or address from which no model can be read."""


class UnsupportedModel(ModelError):
    """An estimator that can be neither described by a signature nor served."""


class UntrustedType(ModelError):
    """A serialised type that is not on the reviewed list; loading it could run foreign code."""


class ParityExceeded(ModelError):
    """An ONNX graph whose predictions differ from its estimator's by more than the limit."""


class MissingLibrary(ModelError):
    """A library that is needed for this, and is not installed."""


class IncompatibleLibrary(ModelError):
    """An artefact made with a library version that cannot be served by the installed one."""


class SelfCheckFailed(ModelError):
    """A loaded model that does not reproduce the predictions stored in its manifest."""


class InvalidTensor(ModelError):
    """A tensor that contradicts its own shape, datatype or size."""


class InvalidValue(InvalidTensor):
    """A value of a request that the model's own tensor cannot hold; no fault of the model's."""

    def __init__(self, feature: str, message: str) -> None:
        super().__init__(message)
        self.feature = feature


class RemoteError(ModelError):
    """A model in another process that gave no prediction."""


class RemoteUnavailable(RemoteError):
    """The other process cannot be reached, is not ready or does not answer in time."""


class RemoteRefused(RemoteError):
    """The other process answered with an error, or with something else than predictions."""


class RegistryError(ModelError):
    """Base of what can go wrong between a reference and its files."""


class RegistryUnavailable(RegistryError):
    """The registry's folder is missing, unreadable or unwritable."""


class ModelNotFound(RegistryError):
    """No model of that name, or no such version of it."""


class TamperedModel(RegistryError):
    """A file of a version was changed, added or removed after publication."""
