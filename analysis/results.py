"""The rows of a result: one per metric and arm, with numbers, a verdict and its reason."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from analysis.evidence import REFERENCE, Judgement, broken_split, in_pilot, insufficient, judge, missing_evidence
from analysis.experiment import INTERLEAVED, AnyMetric, Arm, Experiment
from analysis.fixed_horizon import Effect, Sample, compare
from analysis.interleaved import Pair, judge_pair
from analysis.sequential import Looks
from analysis.split_check import SplitCheck


class Traffic(NamedTuple):
    """What an arm was given, whatever became of it; the champion answered the fallbacks."""

    units: int
    decisions: int
    fallbacks: int
    first_ms: int
    last_ms: int


class Result(NamedTuple):
    """An arm's result in one metric; differences and lifts are against the control, nan where they are unknown.

    Where shares changed, a mean is what the arm would have had with all traffic; else it is that of its decisions.

    Where lists mix rankings, all of them are every arm's. There a mean is the arm's share of the credit in those that
    compare it with the control, counted by `observations`, and the difference is from one half.
    """

    metric: str
    metric_role: str
    direction: str
    arm: str
    role: Literal["control", "treatment"]
    model: str
    units: int
    decisions: int
    observed_units: int
    observations: int
    mean: float
    difference: float
    difference_low: float
    difference_high: float
    lift_percent: float
    lift_low_percent: float
    lift_high_percent: float
    p_value: float
    confidence: float
    verdict: Literal["reference", "better", "worse", "insufficient"]
    reason: str
    sample_ratio_p_value: float


class Comparison(NamedTuple):
    """What the rows of every metric share: traffic by arm number, the split's test, the level of each interval."""

    experiment: Experiment
    traffic: Mapping[int, Traffic]
    split: SplitCheck
    confidence: float


_UNKNOWN = Effect(*[math.nan] * len(Effect._fields))


def compare_arms(
    comparison: Comparison, metric: AnyMetric, samples: Mapping[int, Sample], looks: Mapping[int, Looks]
) -> Iterator[Result]:
    """Yield the rows of one metric, control first, from the looks at each treatment's number: valid at every look."""
    experiment = comparison.experiment
    means = _means(experiment, looks) if experiment.shares_changed else {}
    effects = {number: each.last for number, each in looks.items()}
    for row in _rows(comparison, metric, samples, effects):
        number = next(arm.number for arm in experiment.arms if arm.name == row.arm)
        yield row._replace(mean=means[number]) if math.isfinite(means.get(number, math.nan)) else row


def compare_once(comparison: Comparison, metric: AnyMetric, samples: Mapping[int, Sample]) -> Iterator[Result]:
    """Yield the rows of one metric, control first, by the fixed-horizon test: valid for one look that was planned."""
    control = samples.get(comparison.experiment.control.number)
    effects = {
        number: compare(control, sample, comparison.confidence)
        for number, sample in samples.items()
        if control and not (missing_evidence(metric, "", control) or missing_evidence(metric, "", sample))
    }
    yield from _rows(comparison, metric, samples, effects)


def _rows(
    comparison: Comparison, metric: AnyMetric, samples: Mapping[int, Sample], effects: Mapping[int, Effect | None]
) -> Iterator[Result]:
    experiment = comparison.experiment
    control = samples.get(experiment.control.number)
    yield _row(comparison, metric, experiment.control, control, _UNKNOWN, REFERENCE)
    for arm in experiment.treatments:
        treatment, effect = samples.get(arm.number), effects.get(arm.number)
        gap = missing_evidence(metric, experiment.control.name, control)
        gap = gap or missing_evidence(metric, arm.name, treatment)
        if gap or effect is None:
            reason = gap or in_pilot(arm.name, experiment.control.name)
            yield _row(comparison, metric, arm, treatment, _UNKNOWN, insufficient(reason))
        else:
            yield _row(comparison, metric, arm, treatment, effect, _judgement(comparison, metric, arm, effect))


def _means(experiment: Experiment, looks: Mapping[int, Looks]) -> dict[int, float]:
    """What each arm would have had with all traffic, as far as that is known."""
    known = {number: float(each.treatment.value[-1]) for number, each in looks.items()}
    controls = [float(each.control.value[-1]) for each in looks.values()]
    return known | ({experiment.control.number: controls[0]} if controls else {})


def compare_credit(comparison: Comparison, metric: AnyMetric, pairs: Iterable[Pair]) -> Iterator[Result]:
    """Yield the rows of one metric of interleaved arms, control first."""
    experiment = comparison.experiment
    yield _row(comparison, metric, experiment.control, None, _UNKNOWN, REFERENCE)
    against_control = {pair.second: pair for pair in pairs if pair.first == experiment.control.name}
    for arm in experiment.treatments:
        pair = against_control[arm.name]
        effect = _UNKNOWN._replace(
            difference=-pair.delta, difference_low=-pair.high, difference_high=-pair.low, p_value=pair.p_value
        )
        row = _row(comparison, metric, arm, None, effect, judge_pair(metric, pair, comparison.confidence))
        yield row._replace(mean=pair.share, observed_units=pair.units, observations=pair.impressions)


def _judgement(comparison: Comparison, metric: AnyMetric, arm: Arm, effect: Effect) -> Judgement:
    if comparison.split.mismatch:
        return broken_split(comparison.split.p_value)
    return judge(metric, arm.name, effect, comparison.confidence)


def _row(
    comparison: Comparison,
    metric: AnyMetric,
    arm: Arm,
    sample: Sample | None,
    effect: Effect,
    judgement: Judgement,
) -> Result:
    is_mixed = comparison.experiment.is_interleaved
    traffic = comparison.traffic.get(INTERLEAVED if is_mixed else arm.number)
    return Result(
        metric=metric.name,
        metric_role=metric.role,
        direction=metric.direction,
        arm=arm.name,
        role="control" if arm == comparison.experiment.control else "treatment",
        model=arm.model,
        units=traffic.units if traffic else 0,
        decisions=traffic.decisions if traffic else 0,
        observed_units=sample.units if sample else 0,
        observations=sample.observations if sample else 0,
        mean=sample.mean if sample else math.nan,
        **effect._asdict(),
        confidence=comparison.confidence,
        verdict=judgement.verdict,
        reason=judgement.reason,
        sample_ratio_p_value=comparison.split.p_value,
    )
