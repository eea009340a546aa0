"""How often does something happen? Intervals of rates that hold at every look, for any number of cases."""

import math
from collections.abc import Callable
from typing import NamedTuple

from scipy.special import betaln

from analysis.statistics.unit_groups import GROUPS, Sums

_BISECTIONS = 60


class Rate(NamedTuple):
    """A share of cases, and its confidence sequence at this look."""

    value: float
    low: float
    high: float


NEVER = Rate(0.0, 0.0, 0.0)
"""What is known never to happen."""


def rate(events: float, cases: float, alpha: float) -> Rate:
    """Return the share of independent cases in which something happened; of weighted ones, as many as they are worth.

    A rate p is inside while the evidence against it, the likelihood of the cases mixed over all rates alike divided by
    that under p, is below 1 / alpha at this look (Robbins 1970; Lindon and Malek 2022). nan and 0 to 1 without cases.

    Raises:
        ValueError: There are more events than cases, or fewer than none.
    """
    if not 0 <= events <= cases:
        raise ValueError(f"there are {events:g} events of {cases:g} cases")
    if not cases:
        return Rate(math.nan, 0.0, 1.0)
    mixed, limit = float(betaln(events + 1, cases - events + 1)), -math.log(alpha)
    value = events / cases

    def inside(p: float) -> bool:
        return mixed - _log_likelihood(events, cases, p) < limit

    return Rate(value, _end(value, 0.0, inside), _end(value, 1.0, inside))


def weighted_rate(happened: Sums, decided: Sums, alpha: float) -> Rate:
    """Return the weighted share of decisions in which something happened: arms are then compared over the same times.

    Plain counts are not: an arm whose share grew has seen more of what befell everybody later on. Decisions are worth
    as many equally weighted ones as give the share the same variance, (sum of w)^2 / sum of w w (Kish 1965).
    """
    if not decided.count:
        return rate(0, 0, alpha)
    cases = decided.weight**2 / decided.squared_weight
    # Rounding must not make more of them than all.
    value = min(happened.weight / decided.weight, 1.0)
    cases /= _design_effect(happened, decided, value, cases)
    return rate(cases * value, cases, alpha)


def _design_effect(happened: Sums, decided: Sums, value: float, cases: float) -> float:
    """Return how many times as much the share varies as if no unit returned: one that fails once may fail always."""
    independent = value * (1.0 - value) / cases
    if not independent > 0:
        return 1.0
    residuals = (happened.group_weights - value * decided.group_weights) / decided.weight
    return max(float((residuals**2).sum()) * GROUPS / (GROUPS - 1) / independent, 1.0)


def _log_likelihood(events: float, cases: float, p: float) -> float:
    if not 0 < p < 1:
        return 0.0 if p == events / cases else -math.inf
    return events * math.log(p) + (cases - events) * math.log1p(-p)


def _end(inner: float, outer: float, inside: Callable[[float], bool]) -> float:
    """Return the last rate on the way from the estimate that is inside."""
    if inside(outer):
        return outer
    for _ in range(_BISECTIONS):
        middle = (inner + outer) / 2
        inner, outer = (middle, outer) if inside(middle) else (inner, middle)
    return outer
