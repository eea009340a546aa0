"""How good is an arm, and how much better than another one? At every look, from scores on adaptive or fixed traffic.

All intervals invert one sequence: a value theta is inside while the sum of A_i - theta * B_i has not left the normal
mixture, where A and B are sums of scores. For a mean or a difference B is the constant, for a lift the control's score.
The variance is that about theta itself, not about the estimate; so few decisions make intervals wider, as they should.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.adaptive import Scores
from analysis.statistics.cells import Cells, past_means
from analysis.statistics.sequences import Interval, gamma_exponential, log_e_value, mixture_rho

Floats = NDArray[np.float64]

ASYMPTOTIC_FLOOR = 0.05
"""An experiment that may give an arm a smaller share than this is better read by betting, if its outcomes are bounded
(analysis.statistics.betting). The declared floor decides: a choice that follows the data would spend alpha twice.
"""

_ROUNDS = 40
_ROUNDING = 1e-9


class Estimate(NamedTuple):
    """An estimate and its confidence sequence at each look [.., periods].

    Before the pilot is over the value is nan and the interval infinite; an interval is infinite, too, where the data
    exclude nothing.
    """

    value: Floats
    interval: Interval


class _Ratio(NamedTuple):
    """A_i - theta * B_i: coefficients of A and B over the entries of x."""

    numerator: Floats
    denominator: Floats


def mean(scores: Scores, arm: int, planned: float, alpha: float = 0.05) -> Estimate:
    """Return the mean that the arm would have had with all traffic.

    `planned` is the number of decisions, of all arms, at which the intervals shall be tightest; it is fixed in advance,
    and so is alpha. The same holds for every function here.
    """
    return _estimate(scores, _Ratio(_entry(scores, arm), _constant(scores)), planned, alpha)


def contrast(scores: Scores, treatment: int, control: int, planned: float, alpha: float = 0.05) -> Estimate:
    """Return the treatment's mean less the control's; the variance is that of the difference of the scores."""
    return _estimate(scores, _Ratio(_difference(scores, treatment, control), _constant(scores)), planned, alpha)


def lift(scores: Scores, treatment: int, control: int, planned: float, alpha: float = 0.05) -> Estimate:
    """Return the treatment's mean divided by the control's, less 1.

    By inversion, like Fieller's (1954): theta is inside while the sum of G(treatment) - (1 + theta) G(control) is.
    Infinite ends where the control's mean may be 0.
    """
    ratio = _estimate(scores, _Ratio(_entry(scores, treatment), _entry(scores, control)), planned, alpha)
    return Estimate(ratio.value - 1.0, Interval(ratio.interval.low - 1.0, ratio.interval.high - 1.0))


def bounded_mean(
    cells: Cells,
    arm: int,
    outcomes: tuple[float, float],
    least_propensity: float,
    planned_variance: float,
    alpha: float = 0.05,
) -> Estimate:
    """Return the mean of an arm with a guarantee for every sample size, from the first period on.

    Takes the least and greatest outcome that is possible, the least propensity that the arm can have, and the sum of
    squared deviations of scores that is expected at the planned size; all fixed in advance. Gamma-exponential boundary
    with the empirical variance (Howard, Ramdas, McAuliffe, Sekhon 2021, theorem 4), alpha / 2 on each side. Betting is
    narrower where it applies; this one needs no bets. ValueError for outcomes or propensities outside the limits.
    """
    low, high = outcomes
    n, total, square = cells.counts[..., arm], cells.totals[..., arm, 0], cells.squares[..., arm, 0, 0]
    slack = _ROUNDING * (1.0 + n) * max(low * low, high * high)
    if (total < n * low - slack).any() or (total > n * high + slack).any() or (square < 0).any():
        raise ValueError(f"outcomes must be between {low} and {high}")
    if (cells.weights[..., arm] * least_propensity > n * (1.0 + _ROUNDING)).any():
        raise ValueError(f"a propensity of the arm was less than {least_propensity}")
    known = np.cumsum(n, axis=-1) - n
    guess = np.where(known > 0, past_means(cells)[..., arm, 0], (low + high) / 2.0)
    weighted, squared = cells.weighted[..., arm, 0], cells.squared_weights[..., arm]
    scored = cells.decisions * guess + weighted - cells.weights[..., arm] * guess
    deviations = cells.products[..., arm, 0, 0] - 2.0 * guess * cells.squared_weighted[..., arm, 0]
    variance = np.maximum(np.cumsum(deviations + guess * guess * squared, axis=-1), 0.0)
    rho, scale = float(mixture_rho(planned_variance, alpha)), (high - low) / least_propensity
    count = np.maximum(np.cumsum(cells.decisions, axis=-1), 1.0)
    value, margin = np.cumsum(scored, axis=-1) / count, gamma_exponential(variance, rho, scale, alpha / 2.0) / count
    return Estimate(value, Interval(value - margin, value + margin))


def log_evidence(
    scores: Scores, treatment: int, control: int, planned: float, difference: float = 0.0, alpha: float = 0.05
) -> Floats:
    """Return the logarithm of the e-value, at each look, against the means having this difference [.., periods].

    It is log(1 / alpha) where `contrast` at that alpha begins to exclude the difference; at every other alpha it is as
    valid, being tuned for this one. 0 before the pilot is over.
    """
    chosen = _Ratio(_difference(scores, treatment, control), _constant(scores))
    total = scores.totals @ (chosen.numerator - difference * chosen.denominator)
    variance = _at(_quadratic(scores.products, chosen), difference)
    rho = _at(_tuning(scores, chosen, planned, alpha), difference)[..., np.newaxis]
    return np.where(scores.started, log_e_value(total, variance, np.where(rho > 0, rho, 1.0)), 0.0)


def _constant(scores: Scores) -> Floats:
    return _unit(scores, 0)


def _unit(scores: Scores, entry: int) -> Floats:
    vector = np.zeros(scores.totals.shape[-1])
    vector[entry] = 1.0
    return vector


def _entry(scores: Scores, arm: int) -> Floats:
    if scores.values != 1:
        raise ValueError("scores of numerators and denominators must be linearised first")
    if not 0 <= arm < scores.arms:
        raise ValueError(f"there is no arm {arm} among {scores.arms}")
    return _unit(scores, 1 + arm)


def _difference(scores: Scores, treatment: int, control: int) -> Floats:
    return _entry(scores, treatment) - _entry(scores, control)


class _Quadratic(NamedTuple):
    """a - 2 b theta + c theta^2."""

    a: Floats
    b: Floats
    c: Floats


def _quadratic(products: Floats, chosen: _Ratio) -> _Quadratic:
    """Return the quadratic form of A - theta * B as a function of theta."""
    first, second = products @ chosen.numerator, products @ chosen.denominator
    return _Quadratic(first @ chosen.numerator, first @ chosen.denominator, second @ chosen.denominator)


def _at(form: _Quadratic, theta: Floats | float) -> Floats:
    return np.maximum(form.a - 2.0 * form.b * theta + form.c * theta * theta, 0.0)


def _tuning(scores: Scores, chosen: _Ratio, planned: float, alpha: float) -> _Quadratic:
    if not planned > 0:
        raise ValueError(f"the planned number of decisions must be positive; it is {planned}")
    return _quadratic(mixture_rho(planned * scores.scale, alpha), chosen)


def _estimate(scores: Scores, chosen: _Ratio, planned: float, alpha: float) -> Estimate:
    above, below = scores.totals @ chosen.numerator, scores.totals @ chosen.denominator
    defined = scores.started & (below != 0)
    value = np.divide(above, below, out=np.full_like(above, np.nan), where=defined)
    variance = _quadratic(scores.products, chosen)
    tuning = _Quadratic(*(each[..., np.newaxis] for each in _tuning(scores, chosen, planned, alpha)))
    together = _Quadratic(*(v + rho for v, rho in zip(variance, tuning, strict=True)))

    def end(sign: float) -> Floats:
        theta = np.where(defined, value, sign * np.inf)
        for _ in range(_ROUNDS):
            finite = np.isfinite(theta)
            at = np.where(finite, theta, 0.0)
            rho = _at(tuning, at)
            ratio = np.divide(_at(variance, at), rho, out=np.zeros_like(at), where=rho > 0)
            found = _root(above, below, together, np.log1p(ratio) - 2.0 * math.log(alpha), sign)
            theta = np.where(finite, found, theta)
        return theta

    return Estimate(value, Interval(end(-1.0), end(1.0)))


def _root(above: Floats, below: Floats, form: _Quadratic, spread: Floats, sign: float) -> Floats:
    """Return the end of {theta: (above - theta * below)^2 <= spread * form(theta)}; infinite if unbounded."""
    first = below * below - spread * form.c
    second = above * below - spread * form.b
    third = above * above - spread * form.a
    bounded = first > 0
    root = np.sqrt(np.maximum(second * second - first * third, 0.0))
    return np.divide(second + sign * root, first, out=np.full_like(above, sign * np.inf), where=bounded)
