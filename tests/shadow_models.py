"""Small models that misbehave in ways that only a process of its own can bear, and their loader."""

import os
import signal
import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.reference import ModelReference
from models.registry import Registry
from models.signature import Batch
from tests.router.small_models import KINDS, SumModel

GIGABYTE = 2**30
KEPT_BYTES = 64 * 2**20


class SleepingModel(SumModel):
    """Takes five seconds."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row, long after anybody waits for it."""
        time.sleep(5)
        return super().predict(batch)


class ComputingModel(SumModel):
    """Takes a fifth of a second of a processor, however long that is."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row, after computing for nothing."""
        ends_s = time.process_time() + 0.2
        while time.process_time() < ends_s:
            pass
        return super().predict(batch)


class RaisingModel(SumModel):
    """Always fails."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Raise RuntimeError with what no database stores."""
        raise RuntimeError("out of order\0 \ud800" + "!" * 1000)


class ExitingModel(SumModel):
    """Wants to end the process in good order."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Raise SystemExit."""
        raise SystemExit(3)


class GreedyModel(SumModel):
    """Needs a gigabyte, and touches all of it."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row, if there is so much memory."""
        return super().predict(batch) + np.ones(GIGABYTE // 8)[:1] * 0


class LeakingModel(SumModel):
    """Keeps 64 MiB more with every call."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._kept: list[NDArray[np.float64]] = []

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row, as long as there is memory."""
        self._kept.append(np.ones(KEPT_BYTES // 8))
        return super().predict(batch)


class DyingModel(SumModel):
    """Takes its process with it."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Kill the process."""
        os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(batch)


class ShortModel(SumModel):
    """Forgets a row."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability for each row but the first."""
        return super().predict(batch)[1:]


SHADOWS: Mapping[str, type[SumModel]] = {
    "computing": ComputingModel,
    "dying": DyingModel,
    "exiting": ExitingModel,
    "greedy": GreedyModel,
    "leaking": LeakingModel,
    "raising": RaisingModel,
    "short": ShortModel,
    "sleeping": SleepingModel,
}


def load_shadow(registry: Registry, reference: ModelReference) -> SumModel:
    """Load one of the classes above, or another small model."""
    kind = reference.name.partition("-")[0]
    return {**SHADOWS, **KINDS}[kind](reference, registry.verify(reference))
