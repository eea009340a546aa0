"""Allocations: how the units of an experiment get their arms."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from router.documents.base import Document, Fraction, Name, Seconds

MAXIMUM_FEATURES = 64
"""How many columns the declared features of a contextual allocation may make together."""

Attribute = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class Split(Document, frozen=True, kw_only=True, tag_field="kind", tag="split"):
    """Fixed weights: every arm's share of the experiment's units."""

    weights: dict[str, Fraction]


class Bandit(Document, frozen=True, kw_only=True, tag_field="kind"):
    """What bandits have in common: the traffic goes where a metric is best, as far as is known so far."""

    metric: Name
    floor: Fraction = 0.05
    """The least share of every arm, added so that `share = floor + (1 - arms * floor) * probability`."""
    control_share: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] | None = None
    """A share that the control keeps whatever is known; the other arms divide the rest."""
    half_life_s: Seconds | None = None
    """After this time an outcome counts half, as time of the clock goes; null: for ever."""
    window_s: Seconds | None = None
    """Decisions older than this count for nothing; null: for ever."""
    min_matured: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 100
    """An arm with fewer matured decisions gets an equal share."""
    update_every_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400.0)] = 1.0


class Thompson(Bandit, frozen=True, kw_only=True, tag="thompson"):
    """Every arm gets traffic in proportion to the probability that it is the best one."""

    top_two: bool = False
    """Half of the traffic goes to the best of the others: for choosing what to ship, not for the reward meanwhile."""


class NumberFeature(Document, frozen=True, kw_only=True, tag_field="kind", tag="number"):
    """A number in the request's context, scaled so that `low` is -1 and `high` is 1; beyond them it is clipped."""

    name: Attribute
    low: float
    high: float

    @property
    def columns(self) -> int:
        """How many columns it makes."""
        return 1


class CategoryFeature(Document, frozen=True, kw_only=True, tag_field="kind", tag="category"):
    """One of several texts in the request's context; any other is none of them."""

    name: Attribute
    values: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAXIMUM_FEATURES)]

    @property
    def columns(self) -> int:
        """How many columns it makes."""
        return len(self.values)


AnyFeature = NumberFeature | CategoryFeature


class Contextual(Bandit, frozen=True, kw_only=True, tag="contextual"):
    """Every request gets the arm that is probably the best one for its context, by a linear model of the metric."""

    features: Annotated[list[AnyFeature], msgspec.Meta(min_length=1)]


class Interleave(Document, frozen=True, kw_only=True, tag_field="kind", tag="interleave"):
    """Every list mixes the rankings of all arms, and outcomes of items are credited to the arms that placed them."""

    method: Literal["team_draft", "probabilistic", "optimised"] = "team_draft"
    length: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    """How many items a list has at most, unless the request says fewer."""


AnyAllocation = Split | Thompson | Contextual | Interleave


def columns_of(features: Sequence[AnyFeature]) -> int:
    """Return how many columns the features make together, without the intercept."""
    return sum(feature.columns for feature in features)
