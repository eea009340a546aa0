import math

import numpy as np
import pytest
from scipy import special, stats
from tea_tasting.aggr import Aggregates
from tea_tasting.metrics import RatioOfMeans

from analysis.statistics.power import (
    Plan,
    anytime_power,
    anytime_sample_size,
    clustered_variance,
    duration_days,
    minimum_detectable_effect,
    minimum_detectable_rise,
    power,
    proportion_plan,
    ratio_variance,
    sample_size,
    simulate_stopping,
)

EQUAL = Plan(1.0, 1.0)


def test_many_units_by_hand() -> None:
    # (z_0.975 + z_0.8)^2 * 2 * 2 / 0.01^2 of normal tests; t needs z^2 / 2 more, some units of 313,955.
    expected = (1.959963985 + 0.841621234) ** 2 * 4 / 0.01**2
    assert sample_size(0.01, EQUAL) == pytest.approx(expected, abs=5)
    assert minimum_detectable_effect(expected, EQUAL) == pytest.approx(0.01, rel=1e-4)


def test_variances_by_hand() -> None:
    assert proportion_plan(0.1, 0.02)[:2] == pytest.approx((0.09, 0.12 * 0.88))
    # R = 2: (5 - 4 * 0.5 + 4 * 1) / 9.
    assert ratio_variance(6, 3, 5, 0.5, 1) == pytest.approx(7 / 9)
    assert clustered_variance(2, size=5, size_variation=0, correlation=0.25) == 2 * 2
    assert clustered_variance(2, size=5, size_variation=2, correlation=0.5) == 2 * 13
    assert duration_days(7000, 1000, window_days=2) == 9


@pytest.mark.parametrize("units", [6, 30, 1000])
@pytest.mark.parametrize("effect", [0.05, 0.4, -1.0, 4.0])
def test_power_is_that_of_the_noncentral_f_distribution(units: int, effect: float) -> None:
    limit = stats.f.isf(0.05, 1, units - 2)
    expected = stats.ncf.sf(limit, 1, units - 2, effect**2 * units / 4)
    assert power(effect, units, EQUAL) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("ratio", "rise"), [(1.0, 0.05), (0.25, 0.1), (3.0, 0.02)])
def test_it_is_the_power_of_tea_tasting(ratio: float, rise: float) -> None:
    data = Aggregates(1000, {"n": 6.0, "d": 3.0}, {"n": 5.0, "d": 1.0}, {("d", "n"): 0.5})
    metric = RatioOfMeans("n", "d", ratio=ratio, rel_effect_size=rise, equal_var=False, use_t=True, alpha=0.1)
    variance = ratio_variance(6.0, 3.0, 5.0, 0.5, 1.0)
    plan = Plan(variance, variance, ratio / (1 + ratio), alpha=0.1)
    if ratio == 1:
        # Of unequal arms its search begins with less than one unit, which gives nan.
        assert sample_size(2 * rise, plan) == metric.solve_power_from_aggregates(data, "n_obs")[0].n_obs
    assert power(2 * rise, 1000, plan) == pytest.approx(metric.solve_power_from_aggregates(data, "power")[0].power)
    found = minimum_detectable_effect(1000, plan)
    again = RatioOfMeans("n", "d", ratio=ratio, effect_size=found, equal_var=False, use_t=True, alpha=0.1)
    assert again.solve_power_from_aggregates(data, "power")[0].power == pytest.approx(0.8)


def test_clusters_have_the_variance_of_simulated_ones() -> None:
    generator = np.random.default_rng(1)
    sizes = generator.geometric(0.2, 400_000)
    # Shared variance 0.3 of 1; a unit's sum has the variance 0.3 m^2 + 0.7 m.
    sums = sizes * generator.normal(0, math.sqrt(0.3), sizes.size) + np.sqrt(0.7 * sizes) * generator.normal(
        size=sizes.size
    )
    expected = clustered_variance(1.0, sizes.mean(), sizes.std() / sizes.mean(), 0.3)
    # A variance of n values has the relative error sqrt(kurtosis / n), which heavy sums make 1 % at most.
    assert sums.var() / sizes.mean() == pytest.approx(expected, rel=0.03)


def test_what_was_planned_is_found_as_often_as_wanted() -> None:
    generator = np.random.default_rng(2)
    runs, plan = 4000, proportion_plan(0.2, 0.05, treatment_share=0.3)
    units = sample_size(0.05, plan, wanted=0.8)
    treated = round(0.3 * units)
    ones = generator.binomial([units - treated, treated], [0.2, 0.25], (runs, 2)) / [units - treated, treated]
    variance = ones * (1 - ones) / np.array([units - treated, treated])
    found = np.abs(ones[:, 1] - ones[:, 0]) > 1.96 * np.sqrt(variance.sum(axis=1))
    # Estimated variances of binomials are not those of the plan; at this size that is worth less than 1 %.
    assert found.mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / runs) + 0.01)


def test_the_least_rise_is_where_the_power_is_as_wanted() -> None:
    rise = minimum_detectable_rise(0.1, 2000, wanted=0.9)
    assert power(rise, 2000, proportion_plan(0.1, rise)) == pytest.approx(0.9)
    assert math.isnan(minimum_detectable_rise(0.999, 10))


def test_sample_sizes_are_the_least() -> None:
    for effect in (0.05, 0.5, 2.0):
        units = sample_size(effect, EQUAL, wanted=0.9)
        assert power(effect, units, EQUAL) >= 0.9 > power(effect, units - 1, EQUAL)
    assert sample_size(50.0, EQUAL) <= 5


def test_an_anytime_plan_by_hand() -> None:
    # At the size that it is tuned for the boundary is sqrt(c + 1) / sqrt(c) * sqrt(ln(1 + c) + 2 ln 20) deviations,
    # with c = 2 ln 20 + ln(1 + 2 ln 20).
    c = 2 * math.log(20) + math.log1p(2 * math.log(20))
    limit = math.sqrt((1 + 1 / c) * (math.log1p(c) + 2 * math.log(20)))
    assert anytime_power(0.1, 1000, EQUAL) == pytest.approx(
        special.ndtr(0.1 * math.sqrt(250) - limit) + special.ndtr(-0.1 * math.sqrt(250) - limit)
    )
    units = anytime_sample_size(0.1, EQUAL)
    assert units == pytest.approx((limit + 0.841621234) ** 2 * 4 / 0.01, abs=1)


def test_simulated_stopping_finds_at_least_what_the_bound_says_and_saves_units() -> None:
    horizon = anytime_sample_size(0.1, EQUAL, wanted=0.8)
    found = simulate_stopping(0.1, EQUAL, horizon)
    assert found.power >= 0.8 - 4 * found.power_error
    assert found.mean_units < horizon
    assert found.inflation == pytest.approx(found.mean_units / sample_size(0.1, EQUAL, found.power))


def test_an_experiment_without_effect_rarely_stops() -> None:
    found = simulate_stopping(0.0, EQUAL, 10_000, planned=2000, looks=500)
    assert found.power <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 4000)
    assert found.inflation == math.inf
    assert found.median_units == 10_000


def test_a_certain_find_has_a_finite_inflation() -> None:
    found = simulate_stopping(1.0, EQUAL, 10_000, looks=200, runs=500)
    assert found.power == 1
    assert 0 < found.inflation < math.inf


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="effect of 0"):
        sample_size(0.0, EQUAL)
    with pytest.raises(ValueError, match="between alpha and 1"):
        sample_size(0.1, EQUAL, wanted=0.01)
    with pytest.raises(ValueError, match="too small"):
        sample_size(1e-12, EQUAL)
    with pytest.raises(ValueError, match="two units"):
        power(0.1, 2, EQUAL)
    with pytest.raises(ValueError, match="shares"):
        proportion_plan(0.9, 0.2)
    with pytest.raises(ValueError, match="per day"):
        duration_days(10, 0)
