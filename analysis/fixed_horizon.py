"""Fixed-horizon comparison of two arms with tea-tasting: valid when read once, at the planned end."""

import math
from typing import NamedTuple

import ibis.expr.types as ir
from tea_tasting.aggr import Aggregates, read_aggregates
from tea_tasting.metrics import RatioOfMeans

from analysis.source import Source

_NUMERATOR, _DENOMINATOR, _OBSERVATIONS = "numerator", "denominator", "observations"
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


def read_samples(source: Source, per_unit: ir.Table, by: str = "arm") -> dict[int, Sample]:
    """Aggregate units (columns arm, numerator, denominator, observations) to one sample per arm with data.

    `by` names another column of numbers to group by, in place of arm.
    """
    with source.reading():
        groups = read_aggregates(
            per_unit,
            by,
            has_count=True,
            mean_cols=(_NUMERATOR, _DENOMINATOR, _OBSERVATIONS),
            var_cols=(_NUMERATOR, _DENOMINATOR),
            cov_cols=((_NUMERATOR, _DENOMINATOR),),
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


def compare(control: Sample, treatment: Sample, confidence: float) -> Effect:
    """Welch's test on the ratio of per-unit sums, its variance by the delta method (Deng, Knoblich, Lu 2018).

    With one observation per unit this is Welch's test of two means. Both samples need a positive variance.
    """
    metric = RatioOfMeans(
        _NUMERATOR,
        _DENOMINATOR,
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
    """Aggregates of (numerator + constant * denominator, denominator)."""
    covariance = aggregates.cov(_NUMERATOR, _DENOMINATOR)
    variance = aggregates.var(_DENOMINATOR)
    return Aggregates(
        aggregates.count(),
        {
            _NUMERATOR: aggregates.mean(_NUMERATOR) + constant * aggregates.mean(_DENOMINATOR),
            _DENOMINATOR: aggregates.mean(_DENOMINATOR),
        },
        {
            _NUMERATOR: aggregates.var(_NUMERATOR) + 2 * constant * covariance + constant**2 * variance,
            _DENOMINATOR: variance,
        },
        {(_NUMERATOR, _DENOMINATOR): covariance + constant * variance},
    )
