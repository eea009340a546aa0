"""Metrics: how outcomes become a number per unit."""

import math
from typing import Annotated, Literal

import msgspec

from router.documents.base import Document, Name, Seconds

Direction = Literal["increase", "decrease"]
Role = Literal["primary", "secondary", "guardrail"]

LARGEST_VALUE = 1e100
"""Outcomes, defaults and predictions beyond it are refused: their squares would make a statistic infinite for good."""


class Metric(Document, frozen=True, kw_only=True, tag_field="kind"):
    """How outcomes become a number per unit."""

    name: Name
    direction: Direction
    role: Role = "secondary"
    window_s: Seconds = 86_400
    late: Literal["count", "ignore"] | None = None
    """What becomes of an outcome that happened after the window; unless said, a metric with a default ignores it, since
    the decision has counted with its default by then, and any other counts it."""
    margin: Annotated[float, msgspec.Meta(ge=0.0)] | None = None

    @property
    def ignores_late(self) -> bool:
        """Whether outcomes that happened after the window count for nothing."""
        if self.late is None:
            return getattr(self, "default", None) is not None
        return self.late == "ignore"

    def outcome_names(self) -> tuple[str, ...]:
        """Return the names under which clients post the outcomes that feed this metric."""
        return (self.name,)


class BinaryMetric(Metric, frozen=True, kw_only=True, tag="binary"):
    """0 or 1 per decision; `default` counts for a decision whose window closed without an outcome."""

    default: Literal[0, 1] | None = None


class Limits(Document, frozen=True, kw_only=True):
    """The lowest and the highest value that counts. Limits read off the data would differ by arm and by look."""

    low: float | None = None
    high: float | None = None


class NumericMetric(Metric, frozen=True, kw_only=True, tag="numeric"):
    """A finite number per decision; `default` counts for a decision whose window closed without an outcome."""

    default: float | None = None
    winsorise: Limits | None = None
    """To which limits the value of an item is pulled, once its outcomes are added up."""

    def limited(self, value: float) -> float:
        """Return the value, or the limit that it is beyond."""
        if self.winsorise is None:
            return value
        low, high = self.winsorise.low, self.winsorise.high
        return min(max(value, -math.inf if low is None else low), math.inf if high is None else high)


class RatioMetric(Metric, frozen=True, kw_only=True, tag="ratio"):
    """The sum of one outcome divided by the sum of another."""

    numerator: Name
    denominator: Name

    def outcome_names(self) -> tuple[str, ...]:
        """Return the names of numerator and denominator."""
        return (self.numerator, self.denominator)


class ScoreMetric(Metric, frozen=True, kw_only=True, tag="score"):
    """A score of the decision's prediction against the label that arrives later under the name `label`."""

    score: Literal["brier", "log_loss", "absolute_error", "correct"]
    label: Name

    def outcome_names(self) -> tuple[str, ...]:
        """Return the label's name."""
        return (self.label,)


AnyMetric = BinaryMetric | NumericMetric | RatioMetric | ScoreMetric
