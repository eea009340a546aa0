"""What is known of a model beside its own file."""

from pathlib import Path
from typing import NamedTuple

from models.importing.sample_files import SampleFile
from models.registry import Registry
from models.signature import Feature, Output


class Given(NamedTuple):
    """What whoever imports a model says of it, or what stands beside its file."""

    name: str
    registry: Registry | Path | str | None
    origin: str
    """Where the model came from, in words for the manifest."""
    sample: SampleFile | None = None
    features: tuple[Feature, ...] | None = None
    output: Output | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the manifest notes of every imported model."""
        return (f"imported from {self.origin}",)
