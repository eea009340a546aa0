"""What is believed of each arm's mean after what was seen: how probably it is best, and what shipping it could lose.

A belief, not a test: it says nothing of how often it is wrong. It does not care how the traffic was allocated, so it
holds for bandits too, but takes the arms' means for the same over the whole time.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.errors import UnknownMetric
from analysis.evidence import number
from analysis.experiment import AnyMetric, BinaryMetric, Experiment, ScoreMetric
from analysis.fixed_horizon import Sample
from analysis.statistics.best_arm import best_arm_probabilities
from analysis.statistics.posteriors import AnyPosterior, Beta, Normal, Student, beta_posteriors, student_posteriors
from analysis.statistics.value_remaining import value_remaining

_POINTS = 160
_TAIL = 5e-4


class ArmPosterior(NamedTuple):
    """The posterior of one arm's mean, in the metric's unit, with its 95 % credible interval."""

    arm: str
    observations: int
    mean: float
    low: float
    high: float
    best_percent: float
    """Probability that no other arm is better."""
    expected_loss: float
    """By how much the best arm is expected to be better than this one."""


class Posteriors(NamedTuple):
    """The arms' posteriors, control first, and what may still be gained by going on."""

    metric: str
    arms: tuple[ArmPosterior, ...]
    best: str | None
    """The arm that is best most probably; None without observations."""
    value_remaining_percent: float
    """What another arm may be better by, in percent of the best arm's mean, with a probability of 5 %."""
    reason: str
    densities: pd.DataFrame
    """Points of the densities: arm, value, density."""

    def frame(self) -> pd.DataFrame:
        """One row per arm; the columns are those of `ArmPosterior`."""
        return pd.DataFrame(self.arms, columns=pd.Index(ArmPosterior._fields))


def posteriors(experiment: Experiment, metric: AnyMetric, samples: Mapping[int, Sample]) -> Posteriors:
    """Return what is believed of the arms' means, from the samples of their units.

    Shares of ones have beta posteriors, all other means Student's. Units are the values that are counted: what several
    observations of one unit have in common makes the posterior wider, as it makes the sample's variance larger.
    UnknownMetric if lists were mixed: no arm has a mean.
    """
    if experiment.is_interleaved:
        raise UnknownMetric(f"experiment {experiment.name!r} interleaves rankings; see its interleaving()")
    seen = [samples.get(arm.number) for arm in experiment.arms]
    if not any(_has_mean(sample) for sample in seen):
        reason = f"not enough evidence: no arm has observations of {metric.name}"
        return Posteriors(metric.name, (), None, math.nan, reason, _densities([], []))
    beliefs = _betas(seen) if _is_share(metric) else _students(seen)
    remaining = value_remaining(beliefs, metric.direction)
    chances = best_arm_probabilities(beliefs, metric.direction)
    names = [arm.name for arm in experiment.arms]
    arms = tuple(
        _arm(name, sample, belief, float(chance), float(loss))
        for name, sample, belief, chance, loss in zip(names, seen, beliefs, chances, remaining.losses, strict=True)
    )
    best = arms[remaining.best]
    share = 100 * remaining.share
    return Posteriors(metric.name, arms, best.arm, share, _sentence(metric, best, share), _densities(names, beliefs))


def _arm(name: str, sample: Sample | None, belief: AnyPosterior, chance: float, loss: float) -> ArmPosterior:
    low, high = map(float, _distribution(belief).interval(0.95))
    return ArmPosterior(name, sample.observations if sample else 0, belief.mean, low, high, 100 * chance, loss)


def _has_mean(sample: Sample | None) -> bool:
    return sample is not None and sample.observations > 0 and math.isfinite(sample.mean)


def _is_share(metric: AnyMetric) -> bool:
    """Whether every observation is 0 or 1."""
    if isinstance(metric, ScoreMetric):
        return metric.score == "correct"
    return isinstance(metric, BinaryMetric) and metric.default in {None, 0.0, 1.0}


def _betas(samples: Sequence[Sample | None]) -> tuple[AnyPosterior, ...]:
    trials = [_effective_trials(sample) if sample and _has_mean(sample) else 0.0 for sample in samples]
    ones = [count * sample.mean if sample and count else 0.0 for count, sample in zip(trials, samples, strict=True)]
    return beta_posteriors(trials, ones)


def _effective_trials(sample: Sample) -> float:
    """As many independent trials as would know the share as well as the sample does; not more than it has."""
    independent = sample.mean * (1 - sample.mean)
    if sample.observations == sample.units or not sample.variance > 0 or independent <= 0:
        return float(sample.observations)
    return min(float(sample.observations), independent * sample.units / sample.variance)


def _students(samples: Sequence[Sample | None]) -> tuple[AnyPosterior, ...]:
    known = [sample if _has_mean(sample) else None for sample in samples]
    units = np.array([sample.units if sample else 0 for sample in known], dtype=np.float64)
    means = np.array([sample.mean if sample else 0.0 for sample in known])
    spread = np.nan_to_num([sample.variance if sample else 0.0 for sample in known])
    # A sample's variance is that of its units with one degree of freedom less.
    squares = np.maximum(units - 1, 0) * spread + units * means**2
    return student_posteriors(units, units * means, squares)


def _distribution(posterior: AnyPosterior) -> Any:
    match posterior:
        case Beta(successes, failures):
            return stats.beta(successes, failures)
        case Student(location, scale, freedom):
            return stats.t(freedom, location, scale)
        case Normal(mean, sd):
            return stats.norm(mean, sd)


def _densities(names: Sequence[str], beliefs: Sequence[AnyPosterior]) -> pd.DataFrame:
    return pd.DataFrame(_points(names, beliefs), columns=pd.Index(["arm", "value", "density"]))


def _points(names: Sequence[str], beliefs: Sequence[AnyPosterior]) -> Iterator[tuple[str, float, float]]:
    for name, belief in zip(names, beliefs, strict=True):
        distribution = _distribution(belief)
        low, high = distribution.ppf([_TAIL, 1 - _TAIL])
        values = np.linspace(low, high, _POINTS)
        yield from ((name, *point) for point in zip(values.tolist(), distribution.pdf(values).tolist(), strict=True))


def _sentence(metric: AnyMetric, best: ArmPosterior, share: float) -> str:
    chance = f"{best.arm} is best with probability {best.best_percent:.0f} %"
    loss = f"shipping it now may cost {number(best.expected_loss)} {metric.name} on average"
    return f"{chance}; {loss}" + ("" if math.isinf(share) else f" and, with 95 % certainty, {number(share)} % at most")
