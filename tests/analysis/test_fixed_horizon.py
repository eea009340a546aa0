import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from tea_tasting import config_context
from tea_tasting.aggr import Aggregates

from analysis.fixed_horizon import Sample, compare, sample_of

Floats = NDArray[np.float64]


def _sample(numerator: Floats, denominator: Floats) -> Sample:
    covariance = np.cov(numerator, denominator)
    return sample_of(
        Aggregates(
            len(numerator),
            {
                "numerator": float(numerator.mean()),
                "denominator": float(denominator.mean()),
                "observations": float(denominator.mean()),
            },
            {"numerator": float(covariance[0, 0]), "denominator": float(covariance[1, 1])},
            {("denominator", "numerator"): float(covariance[0, 1])},
        )
    )


def _clusters(generator: np.random.Generator, units: int, mean: float) -> tuple[Floats, Floats]:
    """Units with 1 to 8 observations, whose mean depends on the unit and on how many it has."""
    sizes = generator.integers(1, 9, units).astype(np.float64)
    own = generator.normal(mean + 0.1 * (sizes - 5.1), 0.5, units)
    return sizes * own + generator.normal(0, np.sqrt(sizes)), sizes


def test_one_observation_per_unit_is_welch() -> None:
    generator = np.random.default_rng(1)
    control, treatment = generator.gamma(2.0, 1.0, 90), generator.gamma(2.5, 2.0, 140)
    welch = stats.ttest_ind(treatment, control, equal_var=False)
    interval = welch.confidence_interval(0.9)
    effect = compare(_sample(control, np.ones(90)), _sample(treatment, np.ones(140)), 0.9)
    assert effect.difference == pytest.approx(treatment.mean() - control.mean(), rel=1e-12)
    assert (effect.difference_low, effect.difference_high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert effect.p_value == pytest.approx(welch.pvalue, rel=1e-9)
    assert effect.lift_percent == pytest.approx(100 * (treatment.mean() / control.mean() - 1), rel=1e-12)


def test_ratio_of_sums_follows_the_delta_method() -> None:
    generator = np.random.default_rng(2)
    arms = [_clusters(generator, units, mean) for units, mean in ((120, 3.0), (200, 3.3))]
    ratios = [numerator.sum() / denominator.sum() for numerator, denominator in arms]
    # The linearised unit: (M - R D) / mean(D), whose mean is 0 and whose variance is that of the ratio times n.
    linear = [(m - ratio * d) / d.mean() for (m, d), ratio in zip(arms, ratios, strict=True)]
    variances = [residual.var(ddof=1) / len(residual) for residual in linear]
    error = math.sqrt(sum(variances))
    degrees = sum(variances) ** 2 / sum(v**2 / (len(r) - 1) for v, r in zip(variances, linear, strict=True))
    half = stats.t.ppf(0.975, degrees) * error
    effect = compare(_sample(*arms[0]), _sample(*arms[1]), 0.95)
    difference = ratios[1] - ratios[0]
    assert effect.difference == pytest.approx(difference, rel=1e-9)
    assert (effect.difference_low, effect.difference_high) == pytest.approx((difference - half, difference + half))
    assert effect.p_value == pytest.approx(2 * stats.t.sf(abs(difference) / error, degrees), rel=1e-7)


def test_global_configuration_of_tea_tasting_changes_nothing() -> None:
    generator = np.random.default_rng(3)
    control, treatment = (_sample(*_clusters(generator, 50, 1.0)) for _ in range(2))
    expected = compare(control, treatment, 0.95)
    with config_context(alternative="greater", confidence_level=0.5, equal_var=True, use_t=False):
        assert compare(control, treatment, 0.95) == expected


@pytest.mark.parametrize("mean", [0.0, 1e-6, -3.0])
def test_mean_without_a_base_has_a_difference_but_no_lift(mean: float) -> None:
    generator = np.random.default_rng(4)
    control, treatment = generator.normal(mean, 1.0, 60), generator.normal(mean + 0.5, 1.0, 70)
    effect = compare(_sample(control, np.ones(60)), _sample(treatment, np.ones(70)), 0.95)
    welch = stats.ttest_ind(treatment, control, equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert math.isnan(effect.lift_percent)
    assert (effect.difference_low, effect.difference_high) == pytest.approx((interval.low, interval.high), rel=1e-7)
    assert effect.p_value == pytest.approx(welch.pvalue, rel=1e-6)


@pytest.mark.parametrize("difference", [0.0, 0.4])
def test_interval_covers_the_truth_as_often_as_it_says(difference: float) -> None:
    generator = np.random.default_rng(5)
    replications, confidence = 800, 0.9
    # E[M]/E[D] of _clusters: mean + 0.1 (E[D^2] / E[D] - 5.1), and sizes 1..8 have E[D^2] / E[D] = 25.5 / 4.5.
    covered = relative = 0
    base = 3.0 + 0.1 * (25.5 / 4.5 - 5.1)
    for _ in range(replications):
        control = _sample(*_clusters(generator, 80, 3.0))
        treatment = _sample(*_clusters(generator, 120, 3.0 + difference))
        effect = compare(control, treatment, confidence)
        covered += effect.difference_low <= difference <= effect.difference_high
        relative += effect.lift_low_percent <= 100 * difference / base <= effect.lift_high_percent
    tolerance = 4 * math.sqrt(confidence * (1 - confidence) / replications)
    assert covered / replications == pytest.approx(confidence, abs=tolerance)
    assert relative / replications == pytest.approx(confidence, abs=tolerance)
