"""Intervals by betting, where a bandit may give an arm so little traffic that asymptotic ones cannot be relied on.

They need outcomes between 0 and 1, one of them per decision at most, units that come once, and shares that are those of
an epoch. Values stay those of the scores; only what is said of their error changes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.experiment import AnyMetric, BinaryMetric, Experiment, ScoreMetric
from analysis.statistics.betting import Pair, arm_draws, contrast_draws, log_capital, sequence
from analysis.statistics.effects import ASYMPTOTIC_FLOOR, Estimate
from analysis.statistics.sequences import Interval, always_valid_p_values

Floats = NDArray[np.float64]

MOST_EPOCHS = 2_000
"""More of them would take minutes; then the asymptotic sequence has to do, which has few of its values per epoch."""

_GRID = 500
"""Means that are tried; ends of intervals are rounded outwards to them."""

_BOUNDED_SCORES = frozenset({"brier", "correct"})
_CONTROL, _TREATMENT = 0, 1


class Bets(NamedTuple):
    """What betting says at each look [looks]."""

    control: Interval
    treatment: Interval
    difference: Interval
    lift: Interval
    log_e_values: Floats
    p_values: Floats


class Draws(NamedTuple):
    """Observed decisions in order of time [rows], of the control, a treatment and all others [rows, 3]."""

    looks: NDArray[np.intp]
    """The place of the row's period among the periods, ascending."""
    shares: Floats
    counts: Floats
    totals: Floats


def are_needed(experiment: Experiment, metric: AnyMetric, *, units_return: bool) -> bool:
    """Return whether intervals of the metric have to be made by betting, and can be."""
    is_bounded = isinstance(metric, BinaryMetric) or (
        isinstance(metric, ScoreMetric) and metric.score in _BOUNDED_SCORES
    )
    is_low = experiment.allocation == "thompson" and experiment.floor < ASYMPTOTIC_FLOOR
    return is_low and is_bounded and not units_return


def draws_of(
    rows: Sequence[dict[str, Any]], periods: NDArray[np.int64], experiment: Experiment, treatment: int
) -> Draws | None:
    """Return the draws from sums per period, epoch and arm; None if a decision has several outcomes, or not by epochs.

    Rows have period, epoch, arm, n, d and dd, as `analysis.sums.observed_by_epoch` says.
    """
    shares = {epoch.number: epoch.shares for epoch in experiment.epochs}
    keys = sorted({(row["period"], row["epoch"]) for row in rows})
    if not keys or len(keys) > MOST_EPOCHS or any(row["d"] != row["dd"] for row in rows):
        return None
    place = {key: index for index, key in enumerate(keys)}
    position = {arm.number: index for index, arm in enumerate(experiment.arms)}
    role = {experiment.control.number: _CONTROL, treatment: _TREATMENT}
    counts, totals = np.zeros((len(keys), 3)), np.zeros((len(keys), 3))
    for row in rows:
        here = place[row["period"], row["epoch"]], role.get(row["arm"], 2)
        counts[here] += row["d"]
        totals[here] += row["n"]
    pair = np.array([[shares[epoch][position[arm]] for arm in role] for _, epoch in keys])
    # What others get is never looked at, but must be a share.
    rest = np.ones((len(keys), 1))
    looks = np.searchsorted(periods, [period for period, _ in keys])
    return Draws(looks, np.concatenate([pair, rest], axis=1), counts, totals)


def bets(draws: Draws, looks: int, planned: float, alpha: float) -> Bets:
    """Return the confidence sequences and the evidence after each of so many looks."""
    control, treatment = (arm_draws(*draws[1:], arm) for arm in (_CONTROL, _TREATMENT))
    contrast = contrast_draws(*draws[1:], _TREATMENT, _CONTROL)
    evidence = np.logaddexp(*(_capital(contrast, side, planned, alpha) for side in ("lower", "upper"))) - np.log(2.0)
    last = np.searchsorted(draws.looks, np.arange(looks), side="right") - 1
    # A lift is outside what both means allow, each at half of alpha.
    below, above = (sequence(each, planned, alpha / 2, _GRID) for each in (control, treatment))
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = Interval(above.low / below.high - 1, above.high / below.low - 1)

    def at_looks(interval: Interval) -> Interval:
        return Interval(_at(interval.low, last, -np.inf), _at(interval.high, last, np.inf))

    return Bets(
        control=at_looks(sequence(control, planned, alpha, _GRID)),
        treatment=at_looks(sequence(treatment, planned, alpha, _GRID)),
        difference=at_looks(sequence(contrast, planned, alpha, _GRID)),
        lift=at_looks(lift),
        log_e_values=_at(evidence, last, 0.0),
        p_values=_at(always_valid_p_values(evidence), last, 1.0),
    )


def estimate(value: Floats, interval: Interval) -> Estimate:
    """Return an estimate of the scores with the interval that betting gives, which always contains it if widened."""
    return Estimate(value, Interval(np.fmin(interval.low, value), np.fmax(interval.high, value)))


def _capital(contrast: Pair, side: str, planned: float, alpha: float) -> Floats:
    """Return the logarithm of what was won by betting against a difference of 0 from one side [rows]."""
    draws, mean = (contrast.lower, -contrast.low) if side == "lower" else (contrast.upper, contrast.high)
    return np.asarray(log_capital(draws, [mean], planned, alpha / 2)[..., 0])


def _at(values: Floats, rows: NDArray[np.intp], before: float) -> Floats:
    """Return the values of these rows; where there is none yet, what holds before."""
    return np.where(rows >= 0, values[np.maximum(rows, 0)], before)
