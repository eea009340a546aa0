"""What the outcomes of one item add to the statistics: pure, so that a log can be folded again and compared."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from analysis.statistics.scores import score
from router.documents import (
    AnyFeature,
    AnyMetric,
    BinaryMetric,
    Contextual,
    Experiment,
    NumericMetric,
    RatioMetric,
    ScoreMetric,
)


class Moments(NamedTuple):
    """Additive sufficient statistics: how many values, their sum and the sum of their squares."""

    n: int
    total: float
    squares: float

    def __add__(self, other: tuple[float, ...]) -> "Moments":  # type: ignore[override]
        n, total, squares = other
        return Moments(self.n + n, self.total + total, self.squares + squares)  # type: ignore[arg-type]

    def scaled(self, factor: float) -> "Moments":
        """Return the statistics of values that are so many times as large."""
        if factor == 1.0:
            return self
        return Moments(self.n, factor * self.total, factor * factor * self.squares)

    def __sub__(self, other: tuple[float, ...]) -> "Moments":
        n, total, squares = other
        return Moments(self.n - n, self.total - total, self.squares - squares)  # type: ignore[arg-type]


NOTHING = Moments(0, 0.0, 0.0)


ITEMS = "decisions/items"
"""The statistic of how many items were decided: its values are the items of each decision that an experiment drew."""


class Stated(NamedTuple):
    """What was said about an item under one id and version, when that happened, and whether it is counted already."""

    value: float | None
    occurred_ms: int
    counted: bool


Statements = Mapping[tuple[str, int], Stated]
"""Everything said about an item, by outcome id and version."""


class Fold(NamedTuple):
    """A statistic that an outcome feeds, and the metric that says how."""

    statistic: str
    metric: AnyMetric
    features: tuple[AnyFeature, ...] = ()
    """What of the decision's context a contextual bandit learns this metric from."""


def folds(experiment: Experiment, outcome: str) -> tuple[Fold, ...]:
    """Return the statistics that outcomes of this name feed."""
    return tuple(
        Fold(_statistic(metric, outcome, part), metric, learned_features(experiment, metric))
        for metric in experiment.metrics
        for part, name in enumerate(metric.outcome_names())
        if name == outcome
    )


def statistics_of(metric: AnyMetric) -> tuple[str, ...]:
    """Return the names of the statistics that a metric is made of: one, or a ratio's numerator and denominator."""
    return tuple(_statistic(metric, outcome, part) for part, outcome in enumerate(metric.outcome_names()))


def learned_features(experiment: Experiment, metric: AnyMetric) -> tuple[AnyFeature, ...]:
    """Return what of a context the experiment learns a metric from: nothing, unless it is a contextual bandit's own."""
    allocation = experiment.allocation
    if isinstance(allocation, Contextual) and allocation.metric == metric.name:
        return tuple(allocation.features)
    return ()


def counted_features(experiment: Experiment) -> tuple[AnyFeature, ...]:
    """Return what has to be known of the contexts of all decisions, since a default stands for what does not come."""
    allocation = experiment.allocation
    if not isinstance(allocation, Contextual):
        return ()
    metric = experiment.metric(allocation.metric)
    return () if getattr(metric, "default", None) is None else learned_features(experiment, metric)


def is_label(folded: Iterable[Fold]) -> bool:
    """Return whether the outcome is compared with the decision's prediction."""
    return any(isinstance(fold.metric, ScoreMetric) for fold in folded)


def contribution(metric: AnyMetric, statements: Statements, prediction: float | None, decided_ms: int) -> Moments:
    """Return what an item adds to a statistic of the metric; nothing to a score where nothing was predicted.

    Of every outcome id the highest version counts, and not at all if it is retracted. Several outcomes of one item:
    values add up, and then are pulled to the metric's limits; a binary one happened or not, and the scores of repeated
    labels are averaged.
    """
    closes_ms = decided_ms + 1000 * metric.window_s
    values = [
        stated.value
        for stated in _newest(statements)
        if stated.value is not None and not (metric.ignores_late and stated.occurred_ms > closes_ms)
    ]
    if not values or (prediction is None and isinstance(metric, ScoreMetric)):
        return NOTHING
    value = _combined(metric, values, prediction)
    return Moments(1, value, value * value)


def _combined(metric: AnyMetric, values: list[float], prediction: float | None) -> float:
    if isinstance(metric, ScoreMetric) and prediction is not None:
        return sum(score(metric.score, prediction, value) for value in values) / len(values)
    if isinstance(metric, BinaryMetric):
        return max(values)
    # A limit would hide how much a sum depends on its order; verification adds up in another one.
    total = math.fsum(values)
    return metric.limited(total) if isinstance(metric, NumericMetric) else total


def _newest(statements: Statements) -> Iterable[Stated]:
    if len(statements) == 1:
        return statements.values()
    newest: dict[str, tuple[int, Stated]] = {}
    for (outcome_id, version), stated in statements.items():
        if outcome_id not in newest or newest[outcome_id][0] < version:
            newest[outcome_id] = (version, stated)
    return [stated for _, stated in newest.values()]


def _statistic(metric: AnyMetric, outcome: str, part: int) -> str:
    if isinstance(metric, RatioMetric):
        return f"{metric.name}/{'denominator' if part else 'numerator'}"
    return metric.name if isinstance(metric, ScoreMetric) else outcome
