"""The test of a split at its planned end: how many decisions it needs, how likely it finds what is there, and doing it.

Every treatment is compared with the control by Welch's test (1947); alpha is split over the treatments, as in a report.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from analysis.statistics.thompson import Evidence
from router.documents import AnyMetric, Split
from router.simulation.plans import Fixed
from router.simulation.settings import Setting
from router.simulation.traffic import HOURS_PER_DAY, MINUTES_PER_DAY
from router.simulation.values import AnyValues

POWER = 0.8

_HOURS_TO_S = 3600


class Observable(NamedTuple):
    """Mean and standard deviation of what a metric makes of an arm's decisions, and the share of them that counts."""

    mean: float
    sd: float
    counted: float


class Planned(msgspec.Struct, frozen=True):
    """What it takes to tell the best arm from the one that is hardest to tell from it, of those that a test compares.

    `decisions` and `days` have power 0.8, both None where there is no difference or no traffic; `power` is that of the
    whole rehearsal. From the normal approximation, with what the arms are before any change.
    """

    best: str
    against: str
    difference: float
    decisions: int | None
    days: float | None
    power: float


class Interval(NamedTuple):
    """A treatment's mean less the control's, with a confidence interval, nan where there is none."""

    difference: float
    low: float
    high: float


def observable(values: AnyValues, setting: Setting) -> Observable:
    """Return what the metric makes of values of which some do not come, or come too late."""
    default: float | None = getattr(setting.metric, "default", None)
    share = setting.answered
    if default is None:
        return Observable(values.mean, values.sd, share)
    mean = share * values.mean + (1 - share) * default
    squares = share * (values.sd**2 + values.mean**2) + (1 - share) * default**2
    return Observable(mean, math.sqrt(max(squares - mean * mean, 0.0)), 1.0)


def planned(setting: Setting, alpha: float) -> Planned | None:
    """Return the plan of a split's test; None for any other allocation."""
    split = setting.document.allocation
    if not isinstance(split, Split):
        return None
    from scipy.special import ndtri

    arms = [observable(values, setting) for values in setting.phases[0].values]
    best, other = _compared([setting.sign * arm.mean for arm in arms])
    shares = [split.weights[name] * (1 - setting.document.holdout) for name in setting.names]
    difference = arms[best].mean - arms[other].mean
    noise = sum(_noise(arms[arm], shares[arm]) for arm in (best, other))
    limit = float(-ndtri(alpha / (len(arms) - 1) / 2))
    needed = (limit + float(ndtri(POWER))) ** 2 * noise / difference**2 if difference else math.inf
    per_day = HOURS_PER_DAY * setting.world.requests_per_hour * setting.document.traffic
    lag = _lag_days(setting.metric, setting.world.delay.seconds if isinstance(setting.world.delay, Fixed) else 0.0)
    within = max(setting.ends[-1] / MINUTES_PER_DAY - lag, 0.0) * per_day
    return Planned(
        best=setting.names[best],
        against=setting.names[other],
        difference=difference,
        decisions=math.ceil(needed) if math.isfinite(needed) else None,
        days=needed / per_day + lag if math.isfinite(needed) else None,
        power=_power(abs(difference), noise, within, limit),
    )


def intervals(setting: Setting, evidence: Sequence[Evidence], alpha: float) -> tuple[Interval, ...]:
    """Return each treatment's difference from the control, with an interval of level 1 - alpha over all of them."""
    return tuple(_welch(evidence[0], arm, alpha / (len(evidence) - 1)) for arm in evidence[1:])


def called(setting: Setting, found: Sequence[Interval]) -> int | None:
    """Return the arm that the intervals call the best one: a place among the live arms, or None.

    That is the treatment with the largest difference of those that are better than the control, or the control if every
    treatment is worse.
    """
    signed = [_towards(setting.sign, each) for each in found]
    better = [place for place, each in enumerate(signed, start=1) if each.low > 0]
    if better:
        return max(better, key=lambda place: signed[place - 1].difference)
    return 0 if all(each.high < 0 for each in signed) else None


def _compared(scores: Sequence[float]) -> tuple[int, int]:
    """Return the best arm, and the one that has to be told from it: the control, or its closest rival."""
    best = max(range(len(scores)), key=lambda arm: scores[arm])
    return (best, 0) if best else (0, max(range(1, len(scores)), key=lambda arm: scores[arm]))


def _noise(arm: Observable, share: float) -> float:
    """Return the variance of an arm's mean times the number of all decisions."""
    return arm.sd**2 / (share * arm.counted) if share * arm.counted > 0 else math.inf


def _power(difference: float, noise: float, decisions: float, limit: float) -> float:
    from scipy.special import ndtr

    if not (decisions > 0 and math.isfinite(noise)):
        return 0.0
    if noise == 0:
        return float(difference > 0)
    steps = difference / math.sqrt(noise / decisions)
    return float(ndtr(steps - limit) + ndtr(-steps - limit))


def _lag_days(metric: AnyMetric, delay_s: float) -> float:
    """Return how long the first decisions take to count."""
    seconds = metric.window_s if getattr(metric, "default", None) is not None else delay_s
    return seconds / (_HOURS_TO_S * HOURS_PER_DAY)


def _welch(control: Evidence, treatment: Evidence, alpha: float) -> Interval:
    from scipy.special import stdtrit

    if min(control.n, treatment.n) < 2:
        return Interval(math.nan, math.nan, math.nan)
    first, second = (_variance(arm) / arm.n for arm in (control, treatment))
    difference = treatment.total / treatment.n - control.total / control.n
    variance = first + second
    if variance == 0:
        return Interval(difference, math.nan, math.nan)
    freedom = variance**2 / (first**2 / (control.n - 1) + second**2 / (treatment.n - 1))
    half = float(stdtrit(freedom, 1 - alpha / 2)) * math.sqrt(variance)
    return Interval(difference, difference - half, difference + half)


def _variance(arm: Evidence) -> float:
    return max(arm.squares - arm.total**2 / arm.n, 0.0) / (arm.n - 1)


def _towards(sign: float, interval: Interval) -> Interval:
    low, high = sorted((sign * interval.low, sign * interval.high))
    return Interval(sign * interval.difference, low, high)
