"""Models in memory: loaded from a registry, checked, and ready to predict."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest
from models.reference import ModelReference
from models.signature import Batch, Signature


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
        """One probability or number per row, shape [n]."""
        ...
