"""How small an effect can the experiment find now, and how long would it take to find smaller ones?

From the variance of its own units so far, so nothing has to be guessed; the shares of the traffic stay what they are.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from scipy import optimize

from analysis.errors import UnknownMetric
from analysis.evidence import insufficient, missing_evidence, number
from analysis.experiment import AnyMetric, Arm, Experiment
from analysis.fixed_horizon import Sample
from analysis.results import Traffic
from analysis.statistics import power
from analysis.statistics.power import Plan

EFFECTS_PERCENT = (1.0, 2.0, 5.0, 10.0)
_DAY_MS = 86_400_000


class Need(NamedTuple):
    """What it takes to find one effect of one treatment; nan where that cannot be known yet.

    Units are those of the treatment and the control together, from the start on, and days are counted from there too,
    at the traffic so far and with the metric's window. Fixed horizon means one look that was planned; anytime means as
    many looks as you like, of which the last one finds it at the latest.
    """

    arm: str
    effect_percent: float
    """Of the control's mean."""
    effect: float
    """In the metric's unit."""
    power_now_percent: float
    """Chance that one look now finds it."""
    fixed_horizon_units: float
    fixed_horizon_days: float
    anytime_units: float
    anytime_days: float


class Detectable(NamedTuple):
    """The least effect of one treatment that its units so far find with the wanted power."""

    arm: str
    units: int
    units_per_day: float
    fixed_horizon_percent: float
    anytime_percent: float
    reason: str


class Planning(NamedTuple):
    """What can be found now, per treatment, and what other effects take."""

    metric: str
    wanted_percent: float
    """The power that is meant."""
    detectable: tuple[Detectable, ...]
    needs: tuple[Need, ...]

    def frame(self) -> pd.DataFrame:
        """One row per treatment and effect; the columns are those of `Need`."""
        return pd.DataFrame(self.needs, columns=pd.Index(Need._fields))


class _Setting(NamedTuple):
    metric: AnyMetric
    control: Arm
    alpha: float
    wanted: float


def plan(
    experiment: Experiment,
    metric: AnyMetric,
    samples: Mapping[int, Sample],
    traffic: Mapping[int, Traffic],
    *,
    effects_percent: Sequence[float] = EFFECTS_PERCENT,
    alpha: float = 0.05,
    wanted: float = 0.8,
) -> Planning:
    """Return what an experiment can find, from samples of its units and its traffic so far.

    Args:
        experiment: with shares that do not follow outcomes.
        metric: whose mean is compared.
        samples: by arm number.
        traffic: by arm number.
        effects_percent: effects that should be found, in percent of the control's mean.
        alpha: of each comparison, two-sided.
        wanted: the power, a probability.

    Raises:
        UnknownMetric: Lists were mixed, or shares follow outcomes: then the numbers have to be simulated.
    """
    if experiment.is_interleaved:
        raise UnknownMetric(f"experiment {experiment.name!r} interleaves rankings; see its interleaving()")
    if experiment.is_adaptive:
        raise UnknownMetric(
            f"shares of experiment {experiment.name!r} follow outcomes ({experiment.allocation}), so that no formula "
            "says how many units it takes; rehearse it with `turnout simulate`"
        )
    setting = _Setting(metric, experiment.control, alpha, wanted)
    found = [_plan_arm(setting, arm, samples, traffic, effects_percent) for arm in experiment.treatments]
    return Planning(
        metric.name, 100 * wanted, tuple(now for now, _ in found), tuple(need for _, needs in found for need in needs)
    )


def _plan_arm(
    setting: _Setting,
    arm: Arm,
    samples: Mapping[int, Sample],
    traffic: Mapping[int, Traffic],
    effects_percent: Sequence[float],
) -> tuple[Detectable, list[Need]]:
    control, treatment = samples.get(setting.control.number), samples.get(arm.number)
    per_day = _units_per_day([traffic[each.number] for each in (setting.control, arm) if each.number in traffic])
    gap = missing_evidence(setting.metric, setting.control.name, control)
    gap = gap or missing_evidence(setting.metric, arm.name, treatment)
    if control is not None and control.mean == 0:
        gap = gap or f"the mean of {setting.control.name} is 0, of which there are no percent"
    if gap or control is None or treatment is None:
        nan = math.nan
        units = sum(sample.units for sample in (control, treatment) if sample)
        unknown = [Need(arm.name, percent, nan, nan, nan, nan, nan, nan) for percent in effects_percent]
        return Detectable(arm.name, units, per_day, nan, nan, insufficient(str(gap)).reason), unknown
    units = control.units + treatment.units
    sizes = Plan(control.variance, treatment.variance, treatment.units / units, setting.alpha)
    now = _detectable(setting, arm, units, per_day, sizes, abs(control.mean))
    return now, list(_needs(setting, now, sizes, abs(control.mean), effects_percent))


def _detectable(setting: _Setting, arm: Arm, units: int, per_day: float, sizes: Plan, base: float) -> Detectable:
    fixed = 100 * power.minimum_detectable_effect(units, sizes, setting.wanted) / base
    anytime = 100 * _anytime_detectable_effect(units, sizes, setting.wanted) / base
    reason = (
        f"{units:,} units of {arm.name} and {setting.control.name} find a change of {setting.metric.name} by "
        f"{number(fixed)} % with {100 * setting.wanted:.4g} % power in one planned look, and by {number(anytime)} % "
        "however often they are looked at"
    )
    return Detectable(arm.name, units, per_day, fixed, anytime, reason)


def _needs(
    setting: _Setting, now: Detectable, sizes: Plan, base: float, effects_percent: Sequence[float]
) -> Iterator[Need]:
    window_days = setting.metric.window_s / 86_400 if getattr(setting.metric, "default", None) is not None else 0.0

    def days(units: float) -> float:
        known = math.isfinite(now.units_per_day) and now.units_per_day > 0
        return power.duration_days(units, now.units_per_day, window_days) if known else math.nan

    for percent in effects_percent:
        effect = percent / 100 * base
        fixed = power.sample_size(effect, sizes, setting.wanted)
        anytime = power.anytime_sample_size(effect, sizes, setting.wanted)
        chance = 100 * power.power(effect, now.units, sizes)
        yield Need(now.arm, percent, effect, chance, fixed, days(fixed), anytime, days(anytime))


def _anytime_detectable_effect(units: int, sizes: Plan, wanted: float) -> float:
    """The least effect for which a sequence that is tuned for so many units has the wanted power at them."""
    high = power.minimum_detectable_effect(units, sizes, wanted)
    while power.anytime_power(high, units, sizes) < wanted:
        high *= 2
    return float(optimize.brentq(lambda effect: power.anytime_power(effect, units, sizes) - wanted, 0.0, high))


def _units_per_day(traffic: Sequence[Traffic]) -> float:
    """Units of both arms per day between the first and the last decision; nan if that is one moment."""
    if not traffic:
        return math.nan
    length_ms = max(arm.last_ms for arm in traffic) - min(arm.first_ms for arm in traffic)
    return sum(arm.units for arm in traffic) * _DAY_MS / length_ms if length_ms > 0 else math.nan
