"""Models that misbehave in one way each, for whole routers.

A model's name begins with its kind, as in `level-3`; the distance of a row is the number of its request.
"""

import os
import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.manifest import Manifest
from models.reference import ModelReference
from models.registry import Registry
from models.signature import Batch
from tests.router.small_models import SumModel

FIRST_FAILURE = int(os.environ.get("FAIL_AT", "1000"))
"""The number of the request from which on `raising` and `hanging` fail."""

LOADING_S = 0.3


def level(reference: str) -> float:
    """Return what the model `level-N` or `steep-N` predicts for every row."""
    return int(reference.partition("@")[0].partition("-")[2]) / 100


class Level(SumModel):
    """Takes a while to load, and predicts its own number."""

    def __init__(self, reference: ModelReference, manifest: Manifest) -> None:
        super().__init__(reference, manifest)
        time.sleep(LOADING_S)

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """The same for every row."""
        return np.full(len(batch.numbers), level(str(self.reference)))


class Steep(Level):
    """The same, and takes four milliseconds for one row as for many."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """The same for every row."""
        time.sleep(0.004)
        return super().predict(batch)


class Unloadable(SumModel):
    """Takes a while to find out that it cannot be loaded."""

    def __init__(self, reference: ModelReference, manifest: Manifest) -> None:
        time.sleep(LOADING_S)
        raise RuntimeError("a file is damaged")


class Raising(SumModel):
    """Raises from the first failure on."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row."""
        if batch.numbers[:, 0].max() >= FIRST_FAILURE:
            raise RuntimeError("out of order")
        return super().predict(batch)


class Hanging(SumModel):
    """Takes two milliseconds, and a minute from the first failure on."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row."""
        time.sleep(60 if batch.numbers[:, 0].max() >= FIRST_FAILURE else 0.002)
        return super().predict(batch)


KINDS: Mapping[str, type[SumModel]] = {
    "hanging": Hanging,
    "level": Level,
    "raising": Raising,
    "steep": Steep,
    "sum": SumModel,
    "unloadable": Unloadable,
}


def load_strange(registry: Registry, reference: ModelReference) -> SumModel:
    """Load one of the classes above."""
    return KINDS[reference.name.partition("-")[0]](reference, registry.verify(reference))
