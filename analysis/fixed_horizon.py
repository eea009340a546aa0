"""Fixed-horizon comparison of two arms with tea-tasting: valid when read once, at the planned end."""

import math
from itertools import combinations
from typing import NamedTuple

import ibis.expr.types as ir
from tea_tasting.aggr import Aggregates, read_aggregates
from tea_tasting.metrics import RatioOfMeans

from analysis.source import Source

_NUMERATOR, _DENOMINATOR, _OBSERVATIONS = "numerator", "denominator", "observations"
PAST = ("past_numerator", "past_denominator")
"""Columns of what was observed of a unit before the experiment, for `compare` with less variance."""

HAS_PAST = "has_past"
"""Column of 1 for units of which something was observed before the experiment, and 0 for the others."""

_LARGEST_RELATIVE_ERROR = 0.5
"""A mean within two standard errors of 0 is no base for a percentage."""


class Sample(NamedTuple):
    """What one arm's units add up to; the variance is that of the mean times `units`."""

    units: int
    observations: int
    mean: float
    variance: float
    aggregates: Aggregates

    @property
    def relative_error(self) -> float:
        """Standard error of the mean as a part of the mean; infinite when the mean is not positive."""
        return math.sqrt(self.variance / self.units) / self.mean if self.mean > 0 else math.inf


class Effect(NamedTuple):
    """Treatment minus control with its interval; lifts are percent of the control's mean, nan without a base."""

    difference: float
    difference_low: float
    difference_high: float
    lift_percent: float
    lift_low_percent: float
    lift_high_percent: float
    p_value: float


def read_samples(source: Source, per_unit: ir.Table, by: str = "arm", *, with_past: bool = False) -> dict[int, Sample]:
    """Aggregate units (columns arm, numerator, denominator, observations) to one sample per arm with data.

    `by` names another column of numbers to group by, in place of arm. With their past the units have the columns of
    PAST and HAS_PAST too.
    """
    sums = (_NUMERATOR, _DENOMINATOR, *(PAST if with_past else ()))
    with source.reading():
        groups = read_aggregates(
            per_unit,
            by,
            has_count=True,
            mean_cols=(*sums, _OBSERVATIONS, *([HAS_PAST] if with_past else ())),
            var_cols=sums,
            cov_cols=tuple(combinations(sums, 2)),
        )
    return {int(str(number)): sample_of(_without_gaps(aggregates)) for number, aggregates in groups.items()}


def _without_gaps(aggregates: Aggregates) -> Aggregates:
    # Of a single unit engines return no variance, not nan.
    return Aggregates(
        aggregates.count(),
        aggregates.mean_,
        {name: math.nan if value is None else value for name, value in aggregates.var_.items()},
        {names: math.nan if value is None else value for names, value in aggregates.cov_.items()},
    )


def sample_of(aggregates: Aggregates) -> Sample:
    """Mean and variance of the ratio of sums, from the aggregates of an arm's units."""
    safe = aggregates.with_zero_div()
    units = aggregates.count()
    return Sample(
        units=units,
        observations=round(units * aggregates.mean(_OBSERVATIONS)),
        mean=float(safe.mean(_NUMERATOR) / safe.mean(_DENOMINATOR)),
        variance=float(safe.ratio_var(_NUMERATOR, _DENOMINATOR)),
        aggregates=aggregates,
    )


def standard_error(control: Sample, treatment: Sample) -> float:
    """Return the standard error of the difference of the means."""
    return math.sqrt(control.variance / control.units + treatment.variance / treatment.units)


def degrees_of_freedom(control: Sample, treatment: Sample) -> float:
    """Return the degrees of freedom of the difference's standard error (Welch 1947)."""
    squares = [sample.variance / sample.units for sample in (control, treatment)]
    parts = (square**2 / (sample.units - 1) for square, sample in zip(squares, (control, treatment), strict=True))
    return sum(squares) ** 2 / sum(parts)


def adjust(control: Sample, treatment: Sample) -> tuple[Sample, Sample]:
    """Take from both what the units' past explains (CUPED: Deng, Xu, Kohavi, Walker 2013), for samples with PAST.

    The mean of an arm changes by -theta times how far the mean past of its units is from that of all; theta is
    cov(metric, past) / var(past) over both arms together. Past and metric are ratios of sums, so by the delta method.
    """
    both = (control.aggregates + treatment.aggregates).with_zero_div()
    spread = both.ratio_var(*PAST)
    theta = both.ratio_cov(_NUMERATOR, _DENOMINATOR, *PAST) / spread if spread > 0 else 0.0
    centre = both.mean(PAST[0]) / both.mean(PAST[1])

    def adjusted(sample: Sample) -> Sample:
        own = sample.aggregates.with_zero_div()
        past = own.mean(PAST[0]) / own.mean(PAST[1])
        covariance = own.ratio_cov(_NUMERATOR, _DENOMINATOR, *PAST)
        variance = sample.variance + theta**2 * own.ratio_var(*PAST) - 2 * theta * covariance
        return sample._replace(mean=float(sample.mean - theta * (past - centre)), variance=float(variance))

    return adjusted(control), adjusted(treatment)


def compare(control: Sample, treatment: Sample, confidence: float, *, with_past: bool = False) -> Effect:
    """Welch's test on the ratio of per-unit sums, its variance by the delta method (Deng, Knoblich, Lu 2018).

    With one observation per unit this is Welch's test of two means. Both samples need a positive variance. With their
    past, what that explains is taken off, and the samples are those that `adjust` returns.
    """
    metric = RatioOfMeans(
        _NUMERATOR,
        _DENOMINATOR,
        *(PAST if with_past else ()),
        alternative="two-sided",
        confidence_level=confidence,
        equal_var=False,
        use_t=True,
    )
    if max(control.relative_error, treatment.relative_error) > _LARGEST_RELATIVE_ERROR:
        return _without_lift(metric, control, treatment)
    result = metric.analyze_aggregates(control.aggregates, treatment.aggregates)
    return Effect(
        float(result.effect_size),
        float(result.effect_size_ci_lower),
        float(result.effect_size_ci_upper),
        100 * float(result.rel_effect_size),
        100 * float(result.rel_effect_size_ci_lower),
        100 * float(result.rel_effect_size_ci_upper),
        float(result.pvalue),
    )


def _without_lift(metric: RatioOfMeans, control: Sample, treatment: Sample) -> Effect:
    # tea-tasting's relative interval overflows when a mean is close to 0. A constant added to every observation
    # changes neither the difference nor its error, and takes the means away from 0.
    spread = math.sqrt(control.variance) + math.sqrt(treatment.variance)
    away = spread + abs(control.mean) + abs(treatment.mean)
    result = metric.analyze_aggregates(_shifted(control.aggregates, away), _shifted(treatment.aggregates, away))
    nan = math.nan
    return Effect(
        float(result.effect_size),
        float(result.effect_size_ci_lower),
        float(result.effect_size_ci_upper),
        nan,
        nan,
        nan,
        float(result.pvalue),
    )


def _shifted(aggregates: Aggregates, constant: float) -> Aggregates:
    """Aggregates of (numerator + constant * denominator, denominator), and whatever else they have."""
    covariances = {}
    for names, value in aggregates.cov_.items():
        one, other = sorted(names, key=lambda name: name != _NUMERATOR)
        covariances[names] = value + constant * _with_denominator(aggregates, other) if one == _NUMERATOR else value
    variance = aggregates.var(_NUMERATOR) + constant**2 * aggregates.var(_DENOMINATOR)
    return Aggregates(
        aggregates.count(),
        {**aggregates.mean_, _NUMERATOR: aggregates.mean(_NUMERATOR) + constant * aggregates.mean(_DENOMINATOR)},
        {**aggregates.var_, _NUMERATOR: variance + 2 * constant * aggregates.cov(_NUMERATOR, _DENOMINATOR)},
        covariances,
    )


def _with_denominator(aggregates: Aggregates, name: str) -> float:
    return float(aggregates.var(name) if name == _DENOMINATOR else aggregates.cov(name, _DENOMINATOR))
