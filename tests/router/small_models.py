"""Small real models: they compute on the batch, or misbehave in one plain way."""

import asyncio
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValue
from models.manifest import Manifest, Sample
from models.reference import ModelReference
from models.registry import Registry
from models.signature import Batch, Feature, Output, Signature

FEATURES = (Feature("distance", "number"), Feature("carrier", "category"), Feature("wind", "number", nullable=True))


class SumModel:
    """The logistic function of the sum of a row's numbers, plus the length of its categories; null counts as 0."""

    def __init__(self, reference: ModelReference, manifest: Manifest) -> None:
        self.reference = reference
        self.manifest = manifest
        self.signature = manifest.signature

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row."""
        lengths = np.array([[len(text) for text in row] for row in batch.categories], dtype=np.float64)
        totals: NDArray[np.float64] = np.nansum(batch.numbers, axis=1) + lengths.sum(axis=1)
        return 1 / (1 + np.exp(-totals / 1000))


class SlowModel(SumModel):
    """Takes a fifth of a second."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row, late."""
        time.sleep(0.2)
        return super().predict(batch)


class ErrorModel(SumModel):
    """Works when it is loaded, which takes eleven calls, and fails from then on."""

    calls = 0

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Raise RuntimeError."""
        self.calls += 1
        if self.calls > 11:
            raise RuntimeError("out of order")
        return super().predict(batch)


class WholeModel(SumModel):
    """Takes whole distances only, as a tensor of integers does."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row."""
        if (batch.numbers[:, 0] % 1).any():
            raise InvalidValue("distance", "feature 'distance' has a value that its model cannot take")
        return super().predict(batch)


class NanModel(SumModel):
    """Predicts what is not a number."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """NaN for every row."""
        return super().predict(batch) * np.nan


class GateModel(SumModel):
    """Answers while its gate is open, and counts its calls."""

    def __init__(self, reference: ModelReference, manifest: Manifest) -> None:
        super().__init__(reference, manifest)
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row, once the gate is open."""
        self.calls += 1
        self.gate.wait(60)
        return super().predict(batch)


class BulkModel(GateModel):
    """Takes four milliseconds for one row as for many, and refuses negative distances; keeps how many rows came."""

    def __init__(self, reference: ModelReference, manifest: Manifest) -> None:
        super().__init__(reference, manifest)
        self.sizes: list[int] = []

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row."""
        self.sizes.append(len(batch.numbers))
        time.sleep(0.004)
        if np.nanmin(batch.numbers) < 0:
            raise ValueError("a distance is negative")
        return super().predict(batch)


class RowwiseModel(SumModel):
    """Takes twenty milliseconds for each row, however busy the machine is."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row."""
        time.sleep(0.02 * len(batch.numbers))
        return super().predict(batch)


class AwaitedModel(GateModel):
    """Answers an event loop once its gate is open, as a model on another server does."""

    async def predict_async(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row."""
        self.calls += 1
        while not self.gate.is_set():
            await asyncio.sleep(0.001)
        return SumModel.predict(self, batch)


class BackwardModel(SumModel):
    """Says the opposite."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row, highest where the sum is lowest."""
        return 1 - super().predict(batch)


KINDS: Mapping[str, type[SumModel]] = {
    "backward": BackwardModel,
    "sum": SumModel,
    "slow": SlowModel,
    "error": ErrorModel,
    "nan": NanModel,
    "gate": GateModel,
    "bulk": BulkModel,
    "rowwise": RowwiseModel,
    "awaited": AwaitedModel,
    "whole": WholeModel,
}


def add_model(registry: Registry, name: str, signature: Signature | None = None, output: Output = "probability") -> str:
    """Put a version into the registry; the name's part before the first dash says which class serves it."""
    signature = signature or Signature(FEATURES, output)
    values: dict[str, float | bool | str] = {"number": 1.0, "boolean": True, "category": "AA"}
    row: dict[str, float | bool | str | None] = {feature.name: values[feature.kind] for feature in signature.features}
    draft = Manifest(
        name=name,
        version=0,
        created_at=datetime.now(UTC),
        signature=signature,
        runtime="sklearn",
        float_width=None,
        files={},
        libraries={},
        sample=Sample((row,), (0.5,)),
    )
    return str(registry.publish(draft, {"model": name.encode()}))


def load_small(registry: Registry, reference: ModelReference) -> SumModel:
    """Load one of the classes above."""
    return KINDS[reference.name.partition("-")[0]](reference, registry.verify(reference))
