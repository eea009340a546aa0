"""What would another policy have earned, going by a log that this one did not make?

An estimate needs overlap: what the policy would choose must have been chosen often enough. So the verdict on overlap
comes first, and without overlap there are no estimates.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.ratios import Estimate, moments, ratio_of_sums

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_FOLDS = 5
_THRESHOLDS = 20
_CERTAIN = 1e-9


class Log(NamedTuple):
    """Decisions with their outcomes; a row may stand for several of one unit with the same arm and probabilities."""

    units: Integers
    """Who decided, as numbers from 0 [rows]; decisions of one unit depend on each other."""
    arms: Integers
    """Chosen arms [rows]."""
    rewards: Floats
    """Sum of the row's outcomes [rows]."""
    counts: Floats
    """Number of the row's decisions [rows]."""
    propensities: Floats
    """Logged probability of every arm [rows, arms], or one row for all."""


class Limits(NamedTuple):
    """Where overlap ends."""

    effective_sample_size: float = 100.0
    unsupported_mass: float = 0.01


DEFAULT_LIMITS = Limits()


class Overlap(NamedTuple):
    """How far the log covers what the policy would do."""

    effective_sample_size: float
    """Units that would be as informative had the policy itself made the log: (sum of W)^2 / sum of W^2 over units, W
    their summed weights (Kish 1965)."""
    largest_weight: float
    """Of a decision; weights are the policy's probability over the logged one."""
    mean_weight: float
    """1 within its error, less the unsupported mass, unless logged propensities are wrong."""
    unsupported_mass: float
    """Share of the policy's choices whose logged probability is 0."""
    censored_share: float
    """Share of decisions that were left out because their outcome is not known yet."""
    version_changes: int
    """How often an arm got another model version during the log; what came before says nothing about the later one."""
    limits: Limits

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why there is no overlap, with the numbers; empty if there is."""
        size, unsupported = self.effective_sample_size, self.unsupported_mass
        found = []
        if not size >= self.limits.effective_sample_size:
            found.append(
                f"effective sample size {size:,.1f}, below {self.limits.effective_sample_size:g}, "
                f"with a largest weight of {self.largest_weight:,.1f}"
            )
        if unsupported > self.limits.unsupported_mass:
            found.append(
                f"{unsupported:.1%} of the policy's choices were never possible in the log, above "
                f"{self.limits.unsupported_mass:.1%}"
            )
        return tuple(found)

    @property
    def sufficient(self) -> bool:
        """Whether estimates may be given."""
        return not self.reasons


class Estimates(NamedTuple):
    """The mean outcome per decision under the policy, estimated in five ways; t intervals by unit, fixed horizon."""

    ips: Estimate
    snips: Estimate
    dm: Estimate
    dr: Estimate
    switch_dr: Estimate
    gain: Estimate
    """DR less the mean outcome of the log itself, with the error of the difference."""
    switch_threshold: float
    """Weights above this one are not used by SWITCH-DR."""


class Evaluation(NamedTuple):
    """The verdict, and the estimates where there is overlap."""

    overlap: Overlap
    estimates: Estimates | None


def make_log(
    units: ArrayLike, arms: ArrayLike, rewards: ArrayLike, propensities: ArrayLike, counts: ArrayLike | None = None
) -> Log:
    """Return a log from columns [rows] and probabilities [rows, arms] or [arms]; units may have any names.

    ValueError for a chosen arm whose logged probability is 0: then the propensities are not those that were used.
    """
    chosen, rewarded = np.asarray(arms, dtype=np.intp), np.asarray(rewards, dtype=np.float64)
    logged = np.atleast_2d(np.asarray(propensities, dtype=np.float64))
    number = np.ones(chosen.size) if counts is None else np.asarray(counts, dtype=np.float64)
    if not np.isfinite(rewarded).all():
        raise ValueError("every reward must be a number; leave decisions without an outcome out, and count them")
    _check_probabilities(logged, "propensities")
    if (_of_chosen(logged, chosen) <= 0).any():
        raise ValueError("a chosen arm has the logged propensity 0, so these propensities were not used")
    return Log(np.unique(np.asarray(units), return_inverse=True)[1].reshape(-1), chosen, rewarded, number, logged)


def balanced_propensities(sizes: ArrayLike, propensities: ArrayLike) -> Floats:
    """Return the probabilities of the mixture of several logging policies [..].

    Takes the number of decisions of each [policies] and the probabilities with which each would choose [policies, ..],
    for every row those given its context. Weights over the mixture have never more variance than those over each
    policy's own probabilities, and support what any policy does (Agarwal, Basu, Schnabel, Joachims 2017). They assume
    that rewards do not change with time. If later policies learned from earlier rewards, as a bandit's epochs do, there
    is a bias of the order of what was learned per decision; a decision's own propensity has none.
    """
    number, each = np.asarray(sizes, dtype=np.float64), np.asarray(propensities, dtype=np.float64)
    return np.asarray(np.tensordot(number / number.sum(), each, axes=1))


def evaluate(
    log: Log,
    policy: ArrayLike,
    expected: ArrayLike | None = None,
    *,
    censored: int = 0,
    version_changes: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    threshold: float | None = None,
    confidence: float = 0.95,
) -> Evaluation:
    """Judge the overlap and, if it suffices, estimate the mean outcome under the policy.

    Args:
        log: decisions whose outcome is known.
        policy: its probabilities of every arm [rows, arms], or [arms] if they are the same everywhere.
        expected: expected outcome per decision of every arm [rows, arms] or [arms], from a model that has not seen the
            row's unit. By default means per arm (`arm_means`).
        censored: number of decisions left out because their outcome is not known.
        version_changes: how often an arm got another model version during the log.
        limits: below or above which there is no overlap.
        threshold: of SWITCH-DR; by default the one with the least bound of the mean squared error.
        confidence: of the intervals, each by itself.
    """
    chosen = np.atleast_2d(np.asarray(policy, dtype=np.float64))
    _check_probabilities(chosen, "the policy's probabilities")
    overlap = overlap_of(log, chosen, censored=censored, version_changes=version_changes, limits=limits)
    if not overlap.sufficient:
        return Evaluation(overlap, None)
    model = arm_means(log) if expected is None else np.atleast_2d(np.asarray(expected, dtype=np.float64))
    return Evaluation(overlap, _estimates(log, chosen, model, threshold, confidence))


def overlap_of(
    log: Log, policy: ArrayLike, *, censored: int = 0, version_changes: int = 0, limits: Limits = DEFAULT_LIMITS
) -> Overlap:
    """Return how far the log covers the policy; arguments as for `evaluate`."""
    chosen = np.atleast_2d(np.asarray(policy, dtype=np.float64))
    decisions = float(log.counts.sum())
    if decisions == 0:
        return Overlap(0.0, math.nan, math.nan, math.nan, 1.0 if censored else math.nan, version_changes, limits)
    weights = _weights(log, chosen)
    per_unit = np.bincount(log.units, weights=weights * log.counts)
    squares = float(per_unit @ per_unit)
    unsupported = np.broadcast_to(np.where(log.propensities > 0, 0.0, chosen).sum(axis=1), log.arms.shape)
    return Overlap(
        effective_sample_size=float(per_unit.sum()) ** 2 / squares if squares > 0 else 0.0,
        largest_weight=float(weights[log.counts > 0].max()),
        mean_weight=float(per_unit.sum()) / decisions,
        unsupported_mass=float(unsupported @ log.counts) / decisions,
        censored_share=censored / (decisions + censored),
        version_changes=version_changes,
        limits=limits,
    )


def arm_means(log: Log, folds: int = _FOLDS) -> Floats:
    """Return the mean outcome of each arm among the units of the other folds [rows, arms]: a model without context.

    Weighted by 1 / propensity (Hájek 1971), since shares that move with time would compare different times. An arm
    without outcomes there has the mean of all.
    """
    fold = log.units % folds
    weight = 1 / _of_chosen(log.propensities, log.arms)
    arms = log.propensities.shape[1]
    cell = fold * arms + log.arms
    sums, number = (
        np.bincount(cell, weights=weight * each, minlength=folds * arms).reshape(folds, arms)
        for each in (log.rewards, log.counts)
    )
    sums, number = sums.sum(axis=0) - sums, number.sum(axis=0) - number
    total = number.sum(axis=1, keepdims=True)
    overall = np.divide(sums.sum(axis=1, keepdims=True), total, out=np.zeros_like(total), where=total > 0)
    known = number > _CERTAIN
    means = np.where(known, np.divide(sums, number, out=np.zeros_like(sums), where=known), overall)
    return np.asarray(means[fold])


def group_means(log: Log, groups: ArrayLike) -> Floats:
    """Return `arm_means` within the group of each row, such as a value of its context [rows, arms]."""
    place = np.asarray(groups)
    found = np.empty((log.arms.size, log.propensities.shape[1]))
    for group in np.unique(place):
        here = place == group
        rows = Log(log.units[here], log.arms[here], log.rewards[here], log.counts[here], _rows(log.propensities, here))
        found[here] = arm_means(rows)
    return found


def weights_of(log: Log, policy: ArrayLike) -> Floats:
    """Return the policy's probability over the logged one, of every row's chosen arm [rows]; arguments as above."""
    return _weights(log, np.atleast_2d(np.asarray(policy, dtype=np.float64)))


def _rows(table: Floats, chosen: NDArray[np.bool_]) -> Floats:
    return table if len(table) == 1 else table[chosen]


def _estimates(log: Log, policy: Floats, model: Floats, threshold: float | None, confidence: float) -> Estimates:
    weights = _weights(log, policy)
    planned = np.broadcast_to((policy * model).sum(axis=1), log.arms.shape) * log.counts
    residual = log.rewards - log.counts * _of_chosen(np.broadcast_to(model, (len(model), policy.shape[1])), log.arms)

    def of(numerator: Floats, denominator: Floats) -> Estimate:
        return ratio_of_sums(moments(log.units, numerator, denominator), confidence)

    doubly_robust = of(planned + weights * residual, log.counts)
    switch = _switch_threshold(log, policy, residual, planned, weights) if threshold is None else threshold
    return Estimates(
        ips=of(weights * log.rewards, log.counts),
        snips=of(weights * log.rewards, weights * log.counts),
        dm=_direct(of(planned, log.counts).value, doubly_robust),
        dr=doubly_robust,
        switch_dr=of(planned + np.where(weights <= switch, weights, 0.0) * residual, log.counts),
        gain=of(planned + weights * residual - log.rewards, log.counts),
        switch_threshold=switch,
    )


def _direct(value: float, doubly_robust: Estimate) -> Estimate:
    """The direct method with the error of DR, which it has to first order when its model is fitted on this very log.

    The spread of predictions alone would be 0 for a model without context. The model's bias is in neither.
    """
    shift = value - doubly_robust.value
    return Estimate(value, doubly_robust.error, doubly_robust.low + shift, doubly_robust.high + shift)


def _switch_threshold(log: Log, policy: Floats, residual: Floats, planned: Floats, weights: Floats) -> float:
    """Return the threshold with the least variance plus bound of squared bias (Wang, Agarwal, Dudík 2017, section 3.4).

    The bias is at most the largest residual, times what the policy would choose with larger weights.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        every = np.where(policy > 0, policy / log.propensities, 0.0)
    candidates = np.unique(np.quantile(weights, np.linspace(0, 1, _THRESHOLDS), method="higher"))
    largest = float(np.abs(residual / np.maximum(log.counts, _CERTAIN)).max())
    decisions = float(log.counts.sum())

    def bound(threshold: float) -> float:
        beyond = np.broadcast_to(np.where(every > threshold, policy, 0.0).sum(axis=1), log.counts.shape)
        score = planned + np.where(weights <= threshold, weights, 0.0) * residual
        error = ratio_of_sums(moments(log.units, score, log.counts)).error
        return error**2 + (largest * float(beyond @ log.counts) / decisions) ** 2

    return float(min(candidates.tolist(), key=bound))


def _weights(log: Log, policy: Floats) -> Floats:
    return _of_chosen(policy, log.arms) / _of_chosen(log.propensities, log.arms)


def _of_chosen(table: Floats, arms: Integers) -> Floats:
    """Return the entry of each row's arm [rows], from [rows, arms] or the one row for all."""
    return np.asarray(table[0, arms] if len(table) == 1 else table[np.arange(arms.size), arms])


def _check_probabilities(table: Floats, name: str) -> None:
    if not ((table >= 0).all() and np.allclose(table.sum(axis=1), 1.0, rtol=0, atol=1e-6)):
        raise ValueError(f"{name} must be at least 0 and sum to 1 over arms")
