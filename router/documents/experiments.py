"""Endpoints and experiments as the API takes and returns them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

from router.assignment.audience import Condition
from router.assignment.epochs import HOLDOUT, INTERLEAVED
from router.documents.allocations import AnyAllocation, Bandit
from router.documents.base import Document, Fraction, Name, Reference
from router.documents.metrics import AnyMetric

MAXIMUM_ARMS = 100
HOLDOUT_NAME = "holdout"
"""What replies and reports call the units that no arm gets."""
INTERLEAVED_NAME = "interleaved"
"""What replies call a list that mixes the rankings of all arms."""

SPECIAL_NAMES: Mapping[int, str] = MappingProxyType({HOLDOUT: HOLDOUT_NAME, INTERLEAVED: INTERLEAVED_NAME})
"""What replies call the numbers in a table that are no arm's."""

Timeout = Annotated[int, msgspec.Meta(ge=1, le=60_000)]
Concurrency = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Decisions = Annotated[int, msgspec.Meta(ge=100, le=1_000_000_000_000)]


class Breaker(Document, frozen=True, kw_only=True):
    """When a model that keeps failing is left alone for a while, so that requests no longer wait for it."""

    failure_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.5
    """Share of the last `calls` that failed, from which on the champion answers at once."""
    calls: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    open_s: Annotated[float, msgspec.Meta(ge=0.05, le=3600.0)] = 5.0
    """After this time one call tries the model again."""


class Endpoint(Document, frozen=True, kw_only=True):
    """The stable name that clients call, and the model version that serves when no experiment applies."""

    name: Name
    kind: Literal["predict", "rank"] = "predict"
    """`predict` answers with the model's predictions, `rank` with candidates in the order of theirs, highest first."""
    champion: Reference
    timeout_ms: Timeout = 200
    max_concurrency: Concurrency = 64
    """How many calls of one model may be under way at once; for one more the champion answers, or 503."""
    breaker: Breaker = Breaker()
    shadows: list[Reference] = msgspec.field(default_factory=list)
    """Model versions that see every request after its reply, and whose predictions are only recorded."""


class Arm(Document, frozen=True, kw_only=True):
    """One option of an experiment, bound to one model version."""

    name: Name
    model: Reference
    retired: bool = False
    """Whether a bandit gives it no more traffic; outcomes of its decisions still count."""
    timeout_ms: Timeout | None = None
    """The endpoint's, unless said."""
    max_concurrency: Concurrency | None = None
    """The endpoint's, unless said."""


class Experiment(Document, frozen=True, kw_only=True):
    """Arms, allocation and metrics on one endpoint. The first arm is the control."""

    name: Name
    endpoint: Name
    arms: list[Arm]
    allocation: AnyAllocation
    metrics: list[AnyMetric]
    shadows: list[Reference] = msgspec.field(default_factory=list)
    """Model versions that see the experiment's requests after their reply, and whose predictions are only recorded."""
    randomise: Literal["unit", "request"] | None = None
    """What is drawn for: unless said, bandits draw every request, and splits and interleaving every unit."""
    sticky: bool = False
    """Whether a unit keeps its first arm however the weights change; that assignment is stored."""
    traffic: Fraction = 1.0
    holdout: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.0
    """The share of the experiment's units that no arm gets: the champion serves them, and they are logged."""
    audience: list[Condition] = msgspec.field(default_factory=list)
    slow_ms: Timeout | None = None
    """A decision whose arm takes longer counts as slow; unless said, none does."""
    planned_decisions: Decisions = 10_000
    """At how many decisions intervals that may be read at every look shall be narrowest; fixed before the first one."""

    def __post_init__(self) -> None:
        if self.randomise is None:
            # So that the stored document says it.
            drawn = "request" if isinstance(self.allocation, Bandit) else "unit"
            msgspec.structs.force_setattr(self, "randomise", drawn)

    @property
    def by_request(self) -> bool:
        """Whether every request is drawn anew, not every unit."""
        return self.randomise == "request"

    @property
    def live(self) -> tuple[int, ...]:
        """The numbers of the arms that are not retired."""
        return tuple(number for number, arm in enumerate(self.arms) if not arm.retired)

    def metric(self, name: str) -> AnyMetric:
        """Return the metric of that name; the document has been checked to have it."""
        return next(metric for metric in self.metrics if metric.name == name)

    def arm_name(self, number: int) -> str:
        """Return what replies call the number that stands in a table or decision."""
        return SPECIAL_NAMES.get(number) or self.arms[number].name
