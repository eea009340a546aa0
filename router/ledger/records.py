"""What the data plane hands to the ledger and gets back."""

from typing import Literal, NamedTuple

_TIME_BYTES = 6


class DecisionRow(NamedTuple):
    """One row of `decisions`, its fields in the order of the table's columns."""

    id: bytes
    decided_ms: int
    endpoint: str
    experiment_id: int | None
    epoch: int | None
    arm: int | None
    propensity: float
    unit: str
    model: str
    served_model: str
    fallback: str | None
    context: str | None
    inputs: str
    predictions: str
    shown: str | None = None
    draw: str | None = None
    latency_ms: float | None = None
    """How long the assigned arm took, or was waited for; None where several rankings were mixed or no model ran."""


class AssignmentRow(NamedTuple):
    """One row of `assignments`: the first arm of a unit in a sticky experiment; fields in the order of the columns."""

    experiment_id: int
    unit: str
    epoch: int
    arm: int
    slots: int
    assigned_ms: int


class ShadowRow(NamedTuple):
    """One row of `shadow_predictions`, its fields in the order of the table's columns."""

    decision_id: bytes
    model: str
    predictions: str | None
    error: str | None
    latency_ms: float
    recorded_ms: int


class Item(NamedTuple):
    """What outcomes are about: a metric's outcome of one row of a decision."""

    decision_id: bytes
    metric: str
    item: int


class Observation(NamedTuple):
    """An outcome whose decision id is known to be ours and whose value is known to fit its metrics.

    `version` 0 is what was said first; a higher one corrects it, and a value of None retracts it.
    """

    decision_id: bytes
    metric: str
    item: int
    outcome_id: str
    version: int
    value: float | None
    experiment_id: int | None
    arm: int | None
    occurred_ms: int
    dated: bool = True
    """Whether its sender said when it happened; if not, a correction happened when what it corrects did."""
    itemised: bool = True
    """Whether its sender said which item it is about; if not, it is the first, unless the decision is a list."""

    @property
    def about(self) -> Item:
        """The item that it is about."""
        return Item(self.decision_id, self.metric, self.item)


class Receipt(NamedTuple):
    """What became of one outcome; `field` names what is wrong with one that is rejected, where it can."""

    status: Literal["accepted", "duplicate", "rejected"]
    reason: str | None = None
    field: str | None = None


ACCEPTED = Receipt("accepted")
DUPLICATE = Receipt("duplicate")


def decided_ms(decision_id: bytes) -> int:
    """Return the time of a decision, in milliseconds since 1970, from its id's raw bytes."""
    return int.from_bytes(decision_id[:_TIME_BYTES])
