"""What shadows would have been worth: scored on the same labels as what was served, and valid at every look."""

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from analysis import shadow_sums
from analysis.evidence import Judgement, insufficient, number
from analysis.experiment import PLANNED_DECISIONS, ScoreMetric
from analysis.queries import Log
from analysis.shadow_sums import Agrees
from analysis.source import Source
from analysis.statistics.paired import LEAST_UNITS, Looked, PairedComparison, PairedSums, compare
from analysis.statistics.ratios import Moments
from analysis.statistics.scores import PROBABILITY_SCORES

TOLERANCE = 0.1
"""Two predicted numbers agree that are at most this part of the larger one apart."""

_NO_UNITS = Moments(0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Shadow(NamedTuple):
    """One shadow beside what was served, whichever arm did.

    Differences are the shadow's mean score less that of what was served, over the same labels, in the metric's unit.
    All intervals hold at every look, asymptotically by unit, but that of errors exactly for independent decisions. nan
    is no value; infinite ends say nothing.
    """

    model: str
    decisions: int
    """It saw, be it that it failed; what was dropped is not among them."""
    errors: int
    labels: int
    served_mean: float
    shadow_mean: float
    units: int
    """With a label."""
    difference: float
    difference_low: float
    difference_high: float
    p_value: float
    """Always valid: the chance to see, at any look, such evidence of a difference where there is none."""
    agreement_percent: float
    """Of predictions, with a label or without: on the same side of one half, where the score is one of probabilities,
    else at most `tolerance` of the larger one apart."""
    agreement_low_percent: float
    agreement_high_percent: float
    error_percent: float
    """Of the decisions that it saw."""
    error_low_percent: float
    error_high_percent: float
    latency_ms: float
    """Mean time that it took to answer; the ledger does not have that of what was served."""
    confidence: float
    verdict: Literal["better", "worse", "insufficient", "reference"]
    reason: str


def compare_shadows(
    source: Source,
    log: Log,
    metric: ScoreMetric | None,
    *,
    planned: float = PLANNED_DECISIONS,
    alpha: float = 0.05,
    tolerance: float = TOLERANCE,
) -> list[Shadow]:
    """Compare each shadow with what was served, by scores of items with a label and by agreement of predictions.

    Args:
        source: of the tables.
        log: of the experiment.
        metric: the score; scores are nan without any.
        planned: number of units at which intervals shall be tightest, fixed in advance.
        alpha: chance that a shadow's interval is ever wrong; it is split over the shadows, each kind of interval apart.
        tolerance: up to which part of the larger one two predicted numbers agree, if they are no probabilities.
    """
    predicted = source.tables["shadow_predictions"]
    seen = source.rows(shadow_sums.seen(log, predicted))
    if not seen:
        return []
    most = max(row["items"] or 0 for row in seen)
    scored = {} if metric is None else _by_model(source.rows(shadow_sums.scored(log, metric, predicted, most)))
    agreed = _by_model(source.rows(shadow_sums.agreeing(log, predicted, _agreement(metric, tolerance), most)))
    each = alpha / len(seen)
    return [_shadow(row, scored.get(row["model"]), agreed.get(row["model"]), metric, planned, each) for row in seen]


def _shadow(
    seen: dict[str, Any],
    scored: dict[str, Any] | None,
    agreed: dict[str, Any] | None,
    metric: ScoreMetric | None,
    planned: float,
    alpha: float,
) -> Shadow:
    sums = PairedSums(_moments(scored), _moments(agreed), seen["errors"], seen["decisions"])
    found = compare(sums, planned, alpha)
    labels = round(sums.score.b)
    judgement = _judge(seen["model"], metric, sums, found, 1 - alpha)
    return Shadow(
        seen["model"],
        seen["decisions"],
        seen["errors"],
        labels,
        scored["served"] / labels if scored else math.nan,
        scored["shadow"] / labels if scored else math.nan,
        sums.score.units,
        *found.difference,
        min(1.0, math.exp(-found.log_e_value)) if found.log_e_value > 0 else 1.0,
        *_percent(found.agreement),
        *_percent(found.error_rate),
        math.nan if seen["latency_ms"] is None else seen["latency_ms"],
        1 - alpha,
        judgement.verdict,
        judgement.reason,
    )


def _judge(
    model: str, metric: ScoreMetric | None, sums: PairedSums, found: PairedComparison, confidence: float
) -> Judgement:
    if metric is None:
        return insufficient(f"no metric is a score, so that nothing says whether {model} would do better")
    if sums.score.units == 0:
        return insufficient(f"no decision that {model} answered has a label for {metric.name}")
    if sums.score.units < LEAST_UNITS:
        units = f"{sums.score.units} units with a label for {metric.name}"
        return insufficient(f"{model} answered {units}, and an interval needs {LEAST_UNITS}")
    low, high = found.difference.low, found.difference.high
    if math.isinf(low):
        return insufficient(f"all units say the same of {metric.name} of {model} and of what was served")
    agreement = f"agreed on {100 * found.agreement.value:.0f} %"
    level = f"{100 * confidence:.4g} % CI"
    if low <= 0 <= high:
        change = f"{number(found.difference.value, '+')} ({level} {number(low, '+')} to {number(high, '+')})"
        return insufficient(
            f"the change that {model} in the shadow would make to {metric.name} may be 0: {change}; {agreement}"
        )
    least, most = sorted((abs(low), abs(high)))
    is_lower = high < 0
    size = f"{number(abs(found.difference.value))} ({level} {number(least)} to {number(most)})"
    return Judgement(
        "better" if is_lower == (metric.direction == "decrease") else "worse",
        f"{model} in the shadow {'lowers' if is_lower else 'raises'} {metric.name} by {size}, {agreement}",
    )


def _agreement(metric: ScoreMetric | None, tolerance: float) -> Agrees:
    if metric is not None and metric.score in PROBABILITY_SCORES:
        return lambda shadow, served: (shadow >= 0.5) == (served >= 0.5)

    def close(shadow: Any, served: Any) -> Any:
        # Both times the tolerance is of either one; of the larger one it is the wider.
        apart = (shadow - served).abs()
        return (apart <= tolerance * shadow.abs()) | (apart <= tolerance * served.abs())

    return close


def _percent(looked: Looked) -> tuple[float, float, float]:
    return 100 * looked.value, 100 * looked.low, 100 * looked.high


def _moments(row: dict[str, Any] | None) -> Moments:
    return Moments(*(row[name] for name in Moments._fields)) if row else _NO_UNITS


def _by_model(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in rows}
