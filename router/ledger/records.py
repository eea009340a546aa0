"""What the data plane hands to the ledger and gets back."""

from typing import Literal, NamedTuple


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


class Fold(NamedTuple):
    """A statistic that an outcome feeds: the value itself, or its score against the decision's prediction."""

    metric: str
    score: str | None


class Observation(NamedTuple):
    """An outcome whose decision id is known to be ours and whose value is known to fit its metrics."""

    decision_id: bytes
    metric: str
    item: int
    outcome_id: str
    value: float
    experiment_id: int | None
    arm: int | None
    minute: int
    occurred_ms: int
    folds: tuple[Fold, ...]

    @property
    def key(self) -> tuple[bytes, str, int, str]:
        """What makes the outcome one and the same however often it is sent."""
        return self[:4]

    @property
    def is_label(self) -> bool:
        """Whether it is compared with a prediction."""
        return any(fold.score is not None for fold in self.folds)


class Receipt(NamedTuple):
    """What became of one outcome."""

    status: Literal["accepted", "duplicate", "rejected"]
    reason: str | None = None


ACCEPTED = Receipt("accepted")
DUPLICATE = Receipt("duplicate")
