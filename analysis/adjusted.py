"""Effects with less variance, because what the units did before the experiment explains some of what they do in it.

To be read once, at the planned end: the test is a fixed-horizon one. Units are the same in all arms but by chance, so
that their past tells nothing of an arm; it tells how much of a difference is just the difference of its units.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from analysis import queries
from analysis.errors import InvalidPeriod, UnknownMetric
from analysis.evidence import MINIMUM_UNITS, broken_split, insufficient, judge, missing_evidence
from analysis.experiment import AnyMetric, Arm, Experiment
from analysis.fixed_horizon import HAS_PAST, Effect, Sample, adjust, compare, read_samples, standard_error
from analysis.pre_exposure import first_decision_ms, log_before, with_past
from analysis.queries import Log
from analysis.source import Source
from analysis.split_check import UNTESTED, SplitCheck

DAYS = 14.0
"""How long before the experiment the past begins."""

_NOTHING_LEFT = 1e-12
_UNKNOWN = Effect(*[math.nan] * len(Effect._fields))


class Adjusted(NamedTuple):
    """A treatment against the control once the units' past is accounted for; nan where that is unknown.

    `variance_reduction_percent` is by how much the variance of the difference fell: at 50 half as many units would have
    been as good.
    """

    metric: str
    arm: str
    units: int
    """Of both arms."""
    units_with_past_percent: float
    difference: float
    difference_low: float
    difference_high: float
    lift_percent: float
    lift_low_percent: float
    lift_high_percent: float
    p_value: float
    confidence: float
    unadjusted_difference: float
    variance_reduction_percent: float
    verdict: Literal["reference", "better", "worse", "insufficient"]
    reason: str


def compare_adjusted(
    source: Source,
    log: Log,
    experiment: Experiment,
    metric: AnyMetric,
    *,
    confidence: float = 0.95,
    days: float = DAYS,
    split: SplitCheck = UNTESTED,
) -> tuple[Adjusted, ...]:
    """Compare every treatment with the control by Welch's test, adjusted for the same metric of so many days before.

    CUPED (Deng, Xu, Kohavi, Walker 2013), its coefficient from both arms together. A unit without a past counts with 0.

    Raises:
        UnknownMetric: Requests were randomised, shares followed outcomes or changed, or lists were mixed.
        InvalidPeriod: If `days` is not positive.
    """
    if experiment.randomise != "unit" or experiment.shares_changed or experiment.is_interleaved:
        raise UnknownMetric(
            f"experiment {experiment.name!r} is not adjusted for the past of its units: that takes units that keep "
            "their arm, and shares that never changed; see its summary()"
        )
    if not 0 < days < math.inf:
        raise InvalidPeriod(f"days is {days:g}; the past needs a positive number of days, such as {DAYS:g}")
    samples = _samples(source, log, experiment, metric, days)
    return tuple(_rows(experiment, metric, samples, confidence, days, split))


def _samples(source: Source, log: Log, experiment: Experiment, metric: AnyMetric, days: float) -> Mapping[int, Sample]:
    first_ms = first_decision_ms(source, log)
    if first_ms is None:
        return {}
    before = log_before(source, experiment, metric, first_ms, days)
    units = with_past(queries.per_unit(queries.observations(log, metric)), before, metric)
    return read_samples(source, units, with_past=True)


def _rows(
    experiment: Experiment,
    metric: AnyMetric,
    samples: Mapping[int, Sample],
    confidence: float,
    days: float,
    split: SplitCheck,
) -> Iterator[Adjusted]:
    control = samples.get(experiment.control.number)
    for arm in experiment.treatments:
        treatment = samples.get(arm.number)
        gap = missing_evidence(metric, experiment.control.name, control)
        gap = gap or missing_evidence(metric, arm.name, treatment)
        if gap or control is None or treatment is None:
            yield _row(metric, arm, (), _UNKNOWN, confidence, *insufficient(gap or ""))
            continue
        pair, gap = (control, treatment), _missing_past(metric, experiment.control, arm, control, treatment, days)
        if gap:
            yield _row(metric, arm, pair, _UNKNOWN, confidence, *insufficient(gap))
            continue
        effect = compare(*adjust(*pair), confidence, with_past=True)
        judgement = broken_split(split.p_value) if split.mismatch else judge(metric, arm.name, effect, confidence)
        yield _row(metric, arm, pair, effect, confidence, *judgement)


def _missing_past(
    metric: AnyMetric, control_arm: Arm, arm: Arm, control: Sample, treatment: Sample, days: float
) -> str | None:
    """Why the past of these units is no help, or None if it may be."""
    known = round(_with_past(control, treatment))
    if known < MINIMUM_UNITS:
        return (
            f"{known} units of {control_arm.name} and {arm.name} have {metric.name} from the {days:g} days before the "
            f"experiment, and an adjustment needs {MINIMUM_UNITS}"
        )
    adjusted = adjust(control, treatment)
    if not all(math.isfinite(sample.mean) for sample in adjusted):
        return f"the denominator of {metric.name} adds up to 0 in the {days:g} days before the experiment"
    if not standard_error(*adjusted) > _NOTHING_LEFT * standard_error(control, treatment):
        return f"the past of the units explains {metric.name} entirely, which leaves nothing to measure an error by"
    return None


def _with_past(*samples: Sample) -> float:
    return sum(sample.units * float(sample.aggregates.mean(HAS_PAST)) for sample in samples)


def _row(
    metric: AnyMetric,
    arm: Arm,
    pair: tuple[Sample, ...],
    effect: Effect,
    confidence: float,
    verdict: Literal["reference", "better", "worse", "insufficient"],
    reason: str,
) -> Adjusted:
    units = sum(sample.units for sample in pair)
    reduction = math.nan
    if math.isfinite(effect.difference):
        reduction = 1 - (standard_error(*adjust(*pair)) / standard_error(*pair)) ** 2
    return Adjusted(
        metric=metric.name,
        arm=arm.name,
        units=units,
        units_with_past_percent=100 * _with_past(*pair) / units if units else math.nan,
        **effect._asdict(),
        confidence=confidence,
        unadjusted_difference=pair[1].mean - pair[0].mean if pair else math.nan,
        variance_reduction_percent=100 * reduction,
        verdict=verdict,
        reason=reason,
    )
