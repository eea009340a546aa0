"""From one comparison to what may be said about it, in a sentence with its numbers."""

import math
from typing import Literal, NamedTuple

from analysis.experiment import AnyMetric, BinaryMetric, ScoreMetric
from analysis.fixed_horizon import Effect, Sample
from analysis.statistics.adaptive import LEAST_VALUES

MINIMUM_UNITS = 30
"""Fewer units in an arm give no interval: the normal approximation has nothing to stand on."""

MINIMUM_EVENTS = 5
"""An arm needs at least this many ones, and as many zeros, of a 0/1 metric."""

_SAME = 1e-9


class Judgement(NamedTuple):
    """What may be said of an arm in one metric, and why; `reference` is the control's."""

    verdict: Literal["reference", "better", "worse", "insufficient"]
    reason: str


REFERENCE = Judgement("reference", "the other arms are compared with this one")


def missing_evidence(metric: AnyMetric, arm: str, sample: Sample | None) -> str | None:
    """Why no interval can rest on this arm's sample, or None if one can."""
    if sample is None or sample.observations == 0:
        return f"{arm} has no observations of {metric.name}"
    if sample.units < MINIMUM_UNITS:
        return f"{arm} has {sample.units} units with {metric.name}, and an interval needs {MINIMUM_UNITS}"
    if not math.isfinite(sample.mean):
        return f"the denominator of {metric.name} adds up to 0 in {arm}"
    if _is_event(metric):
        ones = round(sample.mean * sample.observations)
        zeros = sample.observations - ones
        if min(ones, zeros) < MINIMUM_EVENTS:
            return f"{arm} has {ones} ones and {zeros} zeros of {metric.name}, and needs {MINIMUM_EVENTS} of each"
    if sample.variance <= (_SAME * sample.mean) ** 2:
        return f"all {sample.units} units of {arm} have the same {metric.name}"
    return None


def in_pilot(arm: str, control: str) -> str:
    """Why there is no interval yet although both arms have observations."""
    return f"the first {LEAST_VALUES} decisions of {control} and of {arm} only set the scale; too few came after them"


def _is_event(metric: AnyMetric) -> bool:
    return isinstance(metric, BinaryMetric) or (isinstance(metric, ScoreMetric) and metric.score == "correct")


def judge(metric: AnyMetric, arm: str, effect: Effect, confidence: float) -> Judgement:
    """Better or worse only if the interval of the difference excludes 0."""
    if effect.difference_low <= 0 <= effect.difference_high:
        return insufficient(
            f"the change that {arm} makes to {metric.name} may be 0: {_signed(effect)} ({_level(confidence)} "
            f"{_signed_interval(effect)})"
        )
    wanted = effect.difference < 0 if metric.direction == "decrease" else effect.difference > 0
    return Judgement("better" if wanted else "worse", _finding(metric, arm, effect, confidence))


def judge_credit(
    metric: AnyMetric, arm: str, other: str, share: tuple[float, float, float], confidence: float
) -> Judgement:
    """Better or worse only if the interval of the arm's share of credit (share, low, high) excludes one half."""
    percent, low, high = (f"{100 * each:.1f}" for each in share)
    credit = f"{percent} % of the credit ({_level(confidence)} {low} to {high})"
    if share[1] <= 0.5 <= share[2]:
        return insufficient(f"{arm} may earn as much {metric.name} as {other}: {credit}")
    is_more = share[0] > 0.5
    return Judgement(
        "better" if is_more == (metric.direction == "increase") else "worse",
        f"{arm} earns {'more' if is_more else 'less'} {metric.name} than {other}: {credit}",
    )


def insufficient(reason: str) -> Judgement:
    """Not enough evidence, for the given reason."""
    return Judgement("insufficient", f"not enough evidence: {reason}")


def broken_split(p_value: float) -> Judgement:
    """Nothing may be said when arms did not get the traffic that was promised."""
    return insufficient(
        f"the split is broken (sample ratio p = {p_value:.1g}), so arms cannot be compared; find the "
        "cause first: lost decisions, a filter, or a client that picks its arm"
    )


def _finding(metric: AnyMetric, arm: str, effect: Effect, confidence: float) -> str:
    values, unit = _percent_or_absolute(effect)
    amount, *ends = (abs(value) for value in values)
    low, high = sorted(ends)
    verb = "lowers" if effect.difference < 0 else "raises"
    return (
        f"{arm} {verb} {metric.name} by {number(amount)}{unit} ({_level(confidence)} {number(low)} to {number(high)})"
    )


def _percent_or_absolute(effect: Effect) -> tuple[tuple[float, float, float], str]:
    lift = (effect.lift_percent, effect.lift_low_percent, effect.lift_high_percent)
    # The interval of the lift is asymmetric; near the limit it may include 0 where that of the difference does not.
    if lift[1] > 0 or lift[2] < 0:
        return lift, " %"
    return (effect.difference, effect.difference_low, effect.difference_high), ""


def _signed(effect: Effect) -> str:
    if math.isfinite(effect.lift_percent):
        return f"{number(effect.lift_percent, '+')} %"
    return number(effect.difference, "+")


def _signed_interval(effect: Effect) -> str:
    if math.isfinite(effect.lift_percent):
        return f"{number(effect.lift_low_percent, '+')} to {number(effect.lift_high_percent, '+')}"
    return f"{number(effect.difference_low, '+')} to {number(effect.difference_high, '+')}"


def _level(confidence: float) -> str:
    return f"{100 * confidence:.4g} % CI"


def number(value: float, sign: str = "") -> str:
    """Two decimals below 1, one below 100, none above; smaller numbers keep two significant digits."""
    size = abs(value)
    if size >= 100:
        return f"{value:{sign},.0f}"
    if size >= 1:
        return f"{value:{sign}.1f}"
    return f"{value:{sign}.2f}" if size >= 0.1 or size == 0 else f"{value:{sign}.2g}"
