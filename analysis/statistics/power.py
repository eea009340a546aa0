"""How many units does an experiment need, and what can it find? Planned before it starts.

All kinds of metric come down to one number per arm: the variance of what a unit adds to the arm's mean. Effects are
absolute differences of means, treatment less control; for a relative one multiply by the control's mean.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from analysis.statistics.sequences import mixture_rho, normal_mixture

_LEAST_UNITS = 2.0
_MOST_UNITS = 1e15


class Plan(NamedTuple):
    """Two arms with units that are drawn independently."""

    control_variance: float
    """Variance of a unit's value."""
    treatment_variance: float
    treatment_share: float = 0.5
    """Of the units of both arms."""
    alpha: float = 0.05
    """Of the two-sided test; divide it by the number of arms that are compared with the control."""


class Stopping(NamedTuple):
    """How a test that is read at every look ends, by simulation."""

    power: float
    """Share of runs that found an effect by the horizon."""
    power_error: float
    """Monte Carlo standard error."""
    mean_units: float
    """Until it was found, or the horizon where it was not."""
    median_units: float
    inflation: float
    """Mean units over those that a fixed horizon needs for the same power; below 1 where stopping early saves units,
    and infinite if no run found anything."""


def proportion_plan(control: float, effect: float, treatment_share: float = 0.5, alpha: float = 0.05) -> Plan:
    """Return the plan for a 0/1 metric with the control's share of ones and the effect on it."""
    treatment = control + effect
    if not (0 < control < 1 and 0 < treatment < 1):
        raise ValueError(f"shares must be between 0 and 1; they are {control} and {treatment}")
    return Plan(control * (1 - control), treatment * (1 - treatment), treatment_share, alpha)


def ratio_variance(
    numerator: float, denominator: float, numerator_variance: float, covariance: float, denominator_variance: float
) -> float:
    """Return the variance of a unit's part of sum M / sum D, from means, variances and covariance over units.

    (s_M^2 - 2 R s_MD + R^2 s_D^2) / mean(D)^2 by the delta method (Deng, Knoblich, Lu 2018).
    """
    ratio = numerator / denominator
    squared = numerator_variance - 2 * ratio * covariance + ratio * ratio * denominator_variance
    return squared / denominator**2


def clustered_variance(variance: float, size: float, size_variation: float, correlation: float) -> float:
    """Return the variance per observation when units have several.

    Takes the variance of an observation, the mean number of a unit's observations, the coefficient of variation of that
    number, and the correlation of two observations of a unit: variance * (1 + ((1 + cv^2) m - 1) rho) (Eldridge, Ashby,
    Kerry 2006). Sizes are then numbers of observations, not of units.
    """
    return variance * (1 + ((1 + size_variation**2) * size - 1) * correlation)


def power(effect: float, units: float, plan: Plan) -> float:
    """Return the probability that Welch's two-sided test finds the effect with this many units in both arms together.

    By the noncentral t distribution with Welch's degrees of freedom (Welch 1947; Cohen 1988, section 2.2).
    """
    control, treatment = _units_per_arm(units, plan)
    parts = plan.control_variance / control, plan.treatment_variance / treatment
    variance = sum(parts)
    freedom = variance**2 / (parts[0] ** 2 / (control - 1) + parts[1] ** 2 / (treatment - 1))
    limit = float(special.stdtrit(freedom, 1 - plan.alpha / 2))
    noncentrality = abs(effect) / math.sqrt(variance)
    # Where finding the opposite effect has less than about 1e-16, scipy has nan.
    opposite = float(np.nan_to_num(stats.nct.cdf(-limit, freedom, noncentrality)))
    return float(stats.nct.sf(limit, freedom, noncentrality)) + opposite


def sample_size(effect: float, plan: Plan, wanted: float = 0.8) -> int:
    """Return the least number of units, in both arms together, that find the effect with the wanted power.

    ValueError for no effect, and for a power below alpha.
    """
    return math.ceil(_least(lambda units: power(effect, units, plan), effect, plan, wanted) - 1e-6)


def minimum_detectable_effect(units: float, plan: Plan, wanted: float = 0.8) -> float:
    """Return the least effect, positive, that this many units find with the wanted power."""
    _check(1.0, plan, wanted)
    control, treatment = _units_per_arm(units, plan)
    error = math.sqrt(plan.control_variance / control + plan.treatment_variance / treatment)
    high = error
    while power(high, units, plan) < wanted:
        high *= 2
    return float(optimize.brentq(lambda effect: power(effect, units, plan) - wanted, 0.0, high, xtol=1e-12 * high))


def minimum_detectable_rise(
    control: float, units: float, wanted: float = 0.8, treatment_share: float = 0.5, alpha: float = 0.05
) -> float:
    """Return the least rise of a 0/1 metric's share that this many units find; nan if not even one to 1 is found.

    Other than `minimum_detectable_effect` it knows that the variance changes with the share.
    """
    nearly = (1 - control) * (1 - 1e-9)

    def lacking(rise: float) -> float:
        return wanted - power(rise, units, proportion_plan(control, rise, treatment_share, alpha))

    return float(optimize.brentq(lacking, 0.0, nearly, xtol=1e-12)) if lacking(nearly) < 0 else math.nan


def duration_days(units: float, units_per_day: float, window_days: float = 0.0) -> float:
    """Return days until so many units have come and their attribution windows have closed."""
    if units_per_day <= 0:
        raise ValueError(f"units per day must be positive; they are {units_per_day}")
    return units / units_per_day + window_days


def anytime_power(effect: float, units: float, plan: Plan, planned: float | None = None) -> float:
    """Return a lower bound of the probability that the confidence sequence has excluded 0 by this many units.

    It is that of the last look alone, for normal means: Phi((effect n - boundary(n)) / sd(n)). The sequence is tuned
    for `planned` units, by default these.
    """
    variance = _variance_per_unit(plan)
    rho = mixture_rho(variance * (units if planned is None else planned), plan.alpha)
    boundary = float(normal_mixture(variance * units, rho, plan.alpha))
    spread = math.sqrt(variance * units)
    drift = abs(effect) * units
    return float(special.ndtr((drift - boundary) / spread) + special.ndtr((-drift - boundary) / spread))


def anytime_sample_size(effect: float, plan: Plan, wanted: float = 0.8) -> int:
    """Return the units by which a confidence sequence tuned for them finds the effect, with the wanted power at least.

    It is what may be needed at most; most experiments stop earlier (`simulate_stopping`).
    """
    return math.ceil(_least(lambda units: anytime_power(effect, units, plan), effect, plan, wanted) - 1e-6)


def simulate_stopping(
    effect: float,
    plan: Plan,
    horizon: int,
    *,
    planned: float | None = None,
    looks: int = 100,
    runs: int = 4000,
    seed: int = 1,
) -> Stopping:
    """Return how an experiment ends that stops as soon as its confidence sequence excludes 0.

    Args:
        effect: true difference of means.
        plan: arms and alpha.
        horizon: units, in both arms together, at which it ends in any case.
        planned: units for which the sequence is tuned; by default the horizon.
        looks: number of looks, evenly spread up to the horizon.
        runs: simulated experiments, with normal means.
        seed: of the simulation.
    """
    variance = _variance_per_unit(plan)
    units = horizon * np.arange(1, looks + 1) / looks
    rho = mixture_rho(variance * (horizon if planned is None else planned), plan.alpha)
    steps = np.random.default_rng(seed).normal(
        effect * horizon / looks, math.sqrt(variance * horizon / looks), (runs, looks)
    )
    crossed = np.abs(np.cumsum(steps, axis=1)) > normal_mixture(variance * units, rho, plan.alpha)
    found = crossed.any(axis=1)
    ended = np.where(found, units[crossed.argmax(axis=1)], horizon)
    share, mean = float(found.mean()), float(ended.mean())
    return Stopping(
        power=share,
        power_error=math.sqrt(share * (1 - share) / runs),
        mean_units=mean,
        median_units=float(np.median(ended)),
        inflation=_inflation(mean, effect, plan, share, runs),
    )


def _inflation(mean_units: float, effect: float, plan: Plan, found: float, runs: int) -> float:
    # Nobody knows how many units a power of 1 needs; that of half a run less than all is what the runs can tell.
    wanted = min(found, 1 - 0.5 / runs)
    if effect == 0 or wanted <= plan.alpha:
        return math.inf
    return mean_units / sample_size(effect, plan, wanted)


def _least(reached: Callable[[float], float], effect: float, plan: Plan, wanted: float) -> float:
    """Return the least number of units at which the increasing function has the wanted value."""
    _check(effect, plan, wanted)
    # Welch's degrees of freedom need more than one unit in the smaller arm.
    low = _LEAST_UNITS / min(plan.treatment_share, 1 - plan.treatment_share)
    high = low
    while reached(high) < wanted:
        high *= 4
        if high > _MOST_UNITS:
            raise ValueError(f"an effect of {effect} is too small for any number of units")
    if high == low:
        return low
    return math.exp(optimize.brentq(lambda log: reached(math.exp(log)) - wanted, math.log(high / 4), math.log(high)))


def _units_per_arm(units: float, plan: Plan) -> tuple[float, float]:
    control, treatment = units * (1 - plan.treatment_share), units * plan.treatment_share
    if min(control, treatment) <= 1:
        raise ValueError(f"every arm needs two units or more; they would have {control:g} and {treatment:g}")
    return control, treatment


def _variance_per_unit(plan: Plan) -> float:
    """Return the variance of the difference of means, times the units of both arms."""
    return plan.control_variance / (1 - plan.treatment_share) + plan.treatment_variance / plan.treatment_share


def _check(effect: float, plan: Plan, wanted: float) -> None:
    if effect == 0:
        raise ValueError("no number of units finds an effect of 0")
    if not plan.alpha < wanted < 1:
        raise ValueError(f"the power must be between alpha and 1; it is {wanted}")
