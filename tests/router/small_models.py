"""Small real models: they compute on the batch, or misbehave in one plain way."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

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
    """Works when it is loaded and fails from its seventh call on."""

    calls = 0

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Raise RuntimeError."""
        self.calls += 1
        if self.calls > 6:
            raise RuntimeError("out of order")
        return super().predict(batch)


class NanModel(SumModel):
    """Predicts what is not a number."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """NaN for every row."""
        return super().predict(batch) * np.nan


KINDS: Mapping[str, type[SumModel]] = {"sum": SumModel, "slow": SlowModel, "error": ErrorModel, "nan": NanModel}


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
