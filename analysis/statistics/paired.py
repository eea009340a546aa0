"""Is a shadow better than what was served? Both were scored on the same labels, so their difference has little noise.

All intervals hold at every look: those of means asymptotically, that of the error rate exactly. They need sums over
units, no rows. Each has its own confidence; for several at once split alpha between them.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from analysis.statistics.ratios import Moments
from analysis.statistics.sequences import asymptotic_sequence, log_e_value, mixture_rho

LEAST_UNITS = 50
"""Before so many units the asymptotic sequence has nothing to stand on, and is infinite."""

_ROUNDING = 1e-12


class PairedSums(NamedTuple):
    """Sums over units of what a shadow and the served model did for the same decisions.

    The two values of a unit, A and B of `Moments`, are: its sum of score differences (shadow less served) and number of
    labels; its number of agreeing predictions and of predictions; milliseconds of the shadow and of the served model,
    where both are known.
    """

    score: Moments
    agreement: Moments
    errors: int
    """Decisions for which the shadow failed."""
    decisions: int
    """That it was asked."""
    latency: Moments | None = None


class Looked(NamedTuple):
    """A value at one look, and its confidence sequence there; infinite ends say nothing, nan is no value."""

    value: float
    low: float
    high: float


class PairedComparison(NamedTuple):
    """A shadow beside what was served."""

    difference: Looked
    """Mean score of the shadow less that of the served model, per label."""
    log_e_value: float
    """Natural logarithm of the evidence at this look that the difference is not 0; -inf without any."""
    agreement: Looked
    """Share of predictions on which both agree."""
    error_rate: Looked
    """Share of decisions for which the shadow failed."""
    latency_ratio: Looked | None
    """Mean latency of the shadow, divided by that of the served model; None where one is not known."""


def compare(sums: PairedSums, planned: float, alpha: float = 0.05) -> PairedComparison:
    """Compare a shadow with what was served; `planned` is the number of units for which the sequences are tightest.

    Both `planned` and alpha are fixed in advance.
    """
    agreement = mean_sequence(sums.agreement, planned, alpha)
    return PairedComparison(
        difference=mean_sequence(sums.score, planned, alpha),
        log_e_value=mean_evidence(sums.score, planned, alpha),
        agreement=Looked(agreement.value, max(agreement.low, 0.0), min(agreement.high, 1.0)),
        error_rate=proportion_sequence(sums.errors, sums.decisions, alpha),
        latency_ratio=None if sums.latency is None else ratio_sequence(sums.latency, planned, alpha),
    )


def single_pairs(count: int, total: float, squares: float) -> Moments:
    """Return the moments of units with one pair each, from the number of pairs, sum d and sum d^2."""
    return Moments(count, total, count, squares, total, count)


def mean_sequence(sums: Moments, planned: float, alpha: float = 0.05) -> Looked:
    """Return the mean sum A / sum B with an asymptotic confidence sequence by unit.

    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (2024), theorem 2.2, of the linearised ratio. Infinite below
    `LEAST_UNITS`, and if all units have the same mean, so that their spread is unknown.
    """
    value, sd = _linearised(sums)
    if not _enough(sums, sd):
        return Looked(value, -math.inf, math.inf)
    found = asymptotic_sequence(value, sd, sums.units, planned, alpha)
    return Looked(value, float(found.low), float(found.high))


def mean_evidence(sums: Moments, planned: float, alpha: float = 0.05) -> float:
    """Return the logarithm of the e-value against the mean 0: above ln(1 / alpha) where its sequence excludes 0.

    A p-value for all looks is `sequences.always_valid_p_values` of those at each.
    """
    value, sd = _linearised(sums)
    if not _enough(sums, sd):
        return -math.inf
    return float(log_e_value(value * sums.units / sd, sums.units, mixture_rho(planned, alpha)))


def ratio_sequence(sums: Moments, planned: float, alpha: float = 0.05) -> Looked:
    """Return sum A / sum B of positive values with a sequence on its logarithmic scale, which keeps it positive."""
    value, sd = _linearised(sums)
    if not value > 0 or not _enough(sums, sd):
        return Looked(value, 0.0, math.inf)
    found = asymptotic_sequence(math.log(value), sd / value, sums.units, planned, alpha)
    return Looked(value, float(np.exp(found.low)), float(np.exp(found.high)))


def proportion_sequence(successes: int, trials: int, alpha: float = 0.05) -> Looked:
    """Return a share with its exact confidence sequence, for independent trials.

    Every p is inside for which Beta(1/2, 1/2)-binomial odds against it are below 1 / alpha (Robbins 1970; the prior of
    Krichevsky and Trofimov): sharp at rare events, where asymptotics fail. [0, 1] without trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be between 0 and the number of trials; they are {successes} of {trials}")
    if trials == 0:
        return Looked(math.nan, 0.0, 1.0)
    failures = trials - successes
    marginal = float(special.betaln(successes + 0.5, failures + 0.5) - special.betaln(0.5, 0.5))

    def beyond(p: float) -> float:
        likelihood = float(special.xlogy(successes, p) + special.xlog1py(failures, -p))
        return marginal - likelihood + math.log(alpha)

    value = successes / trials
    low = 0.0 if successes == 0 else float(optimize.brentq(beyond, 1e-300, value, xtol=1e-300, rtol=1e-12))
    high = 1.0 if failures == 0 else float(optimize.brentq(beyond, value, 1 - 1e-16, xtol=1e-15))
    return Looked(value, low, high)


def _linearised(sums: Moments) -> tuple[float, float]:
    """Return sum A / sum B and the standard deviation over units of what each adds to it."""
    if sums.units == 0 or sums.b == 0:
        return math.nan, math.nan
    value = sums.a / sums.b
    squared = sums.aa - 2 * value * sums.ab + value * value * sums.bb
    # What sums of squares cannot tell from 0 is no spread.
    if squared <= _ROUNDING * (sums.aa + value * value * sums.bb):
        return value, 0.0
    return value, math.sqrt(squared / max(sums.units - 1, 1)) * sums.units / abs(sums.b)


def _enough(sums: Moments, sd: float) -> bool:
    return sums.units >= LEAST_UNITS and sd > 0
