import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate

from analysis.statistics.sequences import (
    Interval,
    always_valid_p_values,
    asymptotic_sequence,
    gamma_exponential,
    gamma_exponential_log_mixture,
    log_e_value,
    lyapunov_sequence,
    mixture_rho,
    normal_mixture,
    running_intersection,
)

Floats = NDArray[np.float64]


def crossed(sums: Floats, bounds: Floats) -> float:
    return float((np.abs(sums) > bounds).any(axis=-1).mean())


def three_errors(rate: float, runs: int) -> float:
    return 3 * math.sqrt(rate * (1 - rate) / runs)


# The numbers are those of the authors' own implementation (confseq, its tests of uniform boundaries).
def test_normal_mixture_is_that_of_its_authors() -> None:
    rho = mixture_rho(100, 0.05)
    assert rho == pytest.approx(12.60056, abs=1e-5)
    assert log_e_value(10, 100, rho) == pytest.approx(-0.6510052, abs=1e-5)
    assert normal_mixture(100, rho, 0.05) == pytest.approx(30.35209, abs=1e-5)


def test_gamma_exponential_mixture_is_that_of_its_authors() -> None:
    rho = float(mixture_rho(100, 0.1))
    assert gamma_exponential_log_mixture(10, 100, rho, 2) == pytest.approx(-0.2490165, abs=1e-5)
    assert gamma_exponential([100, 100], rho, 2, 0.05) == pytest.approx([33.02017, 33.02017], abs=1e-5)


def test_e_value_is_the_mixture_over_normal_alternatives() -> None:
    def mixed(slope: float) -> float:
        prior = math.exp(-3.0 * slope**2 / 2) * math.sqrt(3.0 / (2 * math.pi))
        return prior * math.exp(slope * 4.0 - slope**2 * 5.0 / 2)

    expected, _ = integrate.quad(mixed, -10, 10)
    assert math.exp(log_e_value(4.0, 5.0, 3.0)) == pytest.approx(expected)


def test_gamma_exponential_is_the_mixture_over_exponential_alternatives() -> None:
    rho, variance, total, scale = 3.0, 5.0, 4.0, 0.5
    shape = rho / scale**2

    def prior(slope: float) -> float:
        rest = 1 - scale * slope
        return math.pow(rest, shape - 1) * math.exp(-shape * rest)

    def mixed(slope: float) -> float:
        exponent = (-math.log1p(-scale * slope) - scale * slope) / scale**2
        return prior(slope) * math.exp(slope * total - variance * exponent)

    expected = integrate.quad(mixed, 0, 2)[0] / integrate.quad(prior, 0, 2)[0]
    assert math.exp(gamma_exponential_log_mixture(total, variance, rho, scale)) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_e_value_is_1_over_alpha_on_the_boundary(alpha: float) -> None:
    variance = np.array([0.1, 1.0, 50.0, 1e6])
    bounds = normal_mixture(variance, 2.0, alpha)
    assert log_e_value(bounds, variance, 2.0) == pytest.approx(np.full(4, -math.log(alpha)))
    exact = gamma_exponential(variance, 2.0, 1.0, alpha)
    assert gamma_exponential_log_mixture(exact, variance, 2.0, 1.0) == pytest.approx(np.full(4, -math.log(alpha)))
    assert (exact > normal_mixture(variance, 2.0, 2 * alpha) * 0.9).all()


def test_planned_size_is_where_the_boundary_is_tightest() -> None:
    variances = np.geomspace(1, 1e6, 2001)
    widths = [float(normal_mixture(1000, mixture_rho(planned, 0.05), 0.05)) for planned in variances]
    # The formula for rho is exact to first order only.
    assert variances[np.argmin(widths)] == pytest.approx(1000, rel=0.1)


def test_asymptotic_sequence_by_hand() -> None:
    # t = t* = 100: r^2 = (5.99146 + 1.94469) / 100 = 0.0793616, the formula of the paper.
    low, high = asymptotic_sequence(2.0, 3.0, 100, planned=100, alpha=0.05)
    squared = 0.0793616
    t = 100 * squared
    margin = 3.0 * math.sqrt(2 * (t + 1) / (100 * t) * math.log(math.sqrt(t + 1) / 0.05))
    assert low.item() == pytest.approx(2 - margin, rel=1e-5)
    assert high.item() == pytest.approx(2 + margin, rel=1e-5)


def test_lyapunov_sequence_of_equal_variances_is_the_asymptotic_one() -> None:
    n = np.array([10.0, 100.0, 5000.0])
    one = asymptotic_sequence([1.0, 2.0, 3.0], 3.0, n, planned=400, alpha=0.05)
    other = lyapunov_sequence([1.0, 2.0, 3.0], 9.0 * n, n, planned_variance=9.0 * 400, alpha=0.05)
    assert other.low == pytest.approx(one.low)
    assert other.high == pytest.approx(one.high)


def test_p_value_is_the_smallest_so_far() -> None:
    assert always_valid_p_values([-1.0, math.log(4), np.nan, 0.0, math.log(100)]) == pytest.approx(
        [1.0, 0.25, 0.25, 0.25, 0.01]
    )


def test_running_intersection_keeps_the_tightest_ends() -> None:
    found = running_intersection(Interval(np.array([np.nan, 0.0, 1.0, 0.5]), np.array([np.nan, 5.0, 6.0, 4.0])))
    assert found.low.tolist() == [-math.inf, 0.0, 1.0, 1.0]
    assert found.high.tolist() == [math.inf, 5.0, 5.0, 4.0]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_alpha_is_a_probability(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
        normal_mixture(1.0, 1.0, alpha)


@pytest.mark.parametrize(("rho", "scale"), [(0.0, 1.0), (1.0, 0.0)])
def test_gamma_exponential_needs_positive_tuning(rho: float, scale: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        gamma_exponential(1.0, rho, scale, 0.05)


def test_normal_sums_stay_inside_at_every_look() -> None:
    runs, looks = 4000, 1000
    steps = np.random.default_rng(1).standard_normal((runs, looks))
    n = np.arange(1.0, looks + 1)
    rate = crossed(np.cumsum(steps, axis=1), normal_mixture(n, mixture_rho(300, 0.05), 0.05))
    assert rate <= 0.05 + three_errors(0.05, runs)
    # The bound is not empty either: it is met with probability alpha in the long run.
    assert rate >= 0.01


def test_tuning_that_follows_the_sample_is_crossed() -> None:
    runs, looks = 1000, 2000
    sums = np.cumsum(np.random.default_rng(2).standard_normal((runs, looks)), axis=1)
    n = np.arange(1.0, looks + 1)
    assert crossed(sums, normal_mixture(n, mixture_rho(n, 0.05), 0.05)) < crossed(sums, 1.96 * np.sqrt(n))
    # A constant multiple of the standard error, which the law of the iterated logarithm breaks.
    assert np.ptp(normal_mixture(n, mixture_rho(n, 0.05), 0.05) / np.sqrt(n)) == pytest.approx(0, abs=1e-12)


def test_gamma_exponential_holds_for_skewed_bounded_values() -> None:
    runs, looks, probability = 2000, 500, 0.02
    # The test is of the mixture; its inversion is tested on the boundary.
    values = (np.random.default_rng(3).random((runs, looks)) < probability).astype(np.float64)
    n = np.arange(1.0, looks + 1)
    guess = (np.cumsum(values, axis=1) - values + 0.5) / n
    variance = np.cumsum((values - guess) ** 2, axis=1)
    total, rho = np.abs(np.cumsum(values - probability, axis=1)), float(mixture_rho(10.0, 0.1))
    rate = crossed(gamma_exponential_log_mixture(total, variance, rho, 1.0), np.full(looks, -math.log(0.025)))
    assert rate <= 0.05 + three_errors(0.05, runs)


def test_asymptotic_sequence_covers_at_every_look() -> None:
    runs, looks = 2000, 1000
    values = np.random.default_rng(4).exponential(size=(runs, looks))
    n = np.arange(1.0, looks + 1)
    mean = np.cumsum(values, axis=1) / n
    sd = np.sqrt(np.maximum(np.cumsum(values**2, axis=1) / n - mean**2, 0.0))
    low, high = asymptotic_sequence(mean[:, 29:], sd[:, 29:], n[29:], planned=looks, alpha=0.05)
    missed = float(((low > 1) | (high < 1)).any(axis=1).mean())
    assert missed <= 0.05 + three_errors(0.05, runs)
