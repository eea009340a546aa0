"""What a registry says of one model version, stored beside its files as manifest.json."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from models.open_inference.datatypes import Datatype
from models.reference import ModelReference
from models.signature import Signature


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Largest absolute difference between the graph's and the estimator's predictions on so many rows."""

    max_abs_difference: float
    rows: int
    limit: float


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Input rows with the predictions that the published runtime gave; every load repeats them."""

    inputs: tuple[dict[str, float | bool | str | None], ...]
    predictions: tuple[float, ...]


class DatasetVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The exact data a model was made from."""

    version: int
    content_hash: str


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A measured quality, with the interval that covers it at that confidence when one was computed."""

    value: float
    low: float | None = None
    high: float | None = None
    confidence: float | None = None


class InputTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input tensor of a model made for other software: of shape [rows, n] as a column or table, else of [rows]."""

    name: str
    datatype: Datatype
    as_column: bool = False


class Remote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a model runs that is not in this process, and how its server wants to be asked."""

    url: str
    model_name: str
    model_version: str | None = None
    """None leaves the choice to the server."""
    inputs: Literal["per_feature", "single_tensor"]
    tensors: tuple[InputTensor, ...]
    """One for each feature of the signature, in its order; or the one that holds all of them."""
    output: str | None
    """The output that holds the prediction; None when there is but one."""
    output_column: int | None = None
    """Which column of the output; None when there is but one."""
    token_variable: str | None = None
    """The environment variable that holds the server's bearer token."""


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an ONNX graph that was made elsewhere wants to be asked, and where its prediction stands."""

    inputs: Literal["per_feature", "per_kind"]
    tensors: tuple[InputTensor, ...]
    """One for each feature of the signature, in its order; or one of its numbers, one of its categories, or both."""
    output: str
    output_column: int | None = None
    """Which column of the output; None when there is but one."""
    output_key: int | str | None = None
    """Which class of the output, where that maps classes to probabilities."""


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a publisher says of a model: how to serve it, what it was made from and how good it is."""

    name: str
    signature: Signature
    runtime: Literal["onnx", "sklearn", "remote"]
    float_width: Literal[32, 64] | None
    libraries: dict[str, str]
    trusted_types: tuple[str, ...] = ()
    parity: Parity | None = None
    sample: Sample
    remote: Remote | None = None
    graph: Graph | None = None
    """None for graphs of Turnout's own making."""
    datasets: dict[str, DatasetVersion] = {}
    code_version: str | None = None
    params: dict[str, Any] = {}
    metrics: dict[str, Metric] = {}
    notes: tuple[str, ...] = ()


class Manifest(Draft, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A published draft: one version, whose files have these SHA-256 digests."""

    version: int
    created_at: datetime
    files: dict[str, str]

    @property
    def reference(self) -> ModelReference:
        """The version that this manifest describes."""
        return ModelReference(self.name, self.version)
