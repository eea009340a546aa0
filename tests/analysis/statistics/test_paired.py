import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import betaln

from analysis.statistics.paired import (
    LEAST_UNITS,
    PairedSums,
    compare,
    mean_evidence,
    mean_sequence,
    proportion_sequence,
    ratio_sequence,
    single_pairs,
)
from analysis.statistics.ratios import Moments, moments
from analysis.statistics.sequences import asymptotic_sequence

Floats = NDArray[np.float64]


def test_the_difference_by_hand() -> None:
    # A hundred pairs, half of them 0.3 and half 0.1: r^2 = (-2 ln a + ln(-2 ln a + 1)) / t*, as STATISTICS.md has it.
    found = mean_sequence(single_pairs(100, 20.0, 50 * 0.09 + 50 * 0.01), planned=100)
    sd, r2 = math.sqrt(1 / 99), (-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 100
    margin = sd * math.sqrt(2 * (100 * r2 + 1) / (100**2 * r2) * math.log(math.sqrt(100 * r2 + 1) / 0.05))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - margin, 0.2 + margin))


def test_one_pair_per_unit_is_the_sequence_of_a_mean() -> None:
    differences = np.random.default_rng(1).normal(0.1, 1, 500)
    found = mean_sequence(single_pairs(500, differences.sum(), (differences**2).sum()), planned=300, alpha=0.1)
    expected = asymptotic_sequence(differences.mean(), differences.std(ddof=1), 500, 300, 0.1)
    assert found == pytest.approx((differences.mean(), expected.low, expected.high))


def test_unequal_units_have_the_error_of_a_bootstrap_of_units() -> None:
    generator = np.random.default_rng(2)
    sizes = generator.geometric(0.3, 400)
    totals = sizes * generator.normal(0.2, 1, 400)
    found = mean_sequence(moments(np.arange(400), totals, sizes.astype(float)), planned=400)
    drawn = generator.integers(400, size=(10_000, 400))
    spread = (totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)).std()
    boundary = asymptotic_sequence(0.0, 1.0, 400, 400, 0.05).high * math.sqrt(400)
    # The bootstrap's own error is 0.7 %, linearisation adds some percent.
    assert (found.high - found.value) / boundary == pytest.approx(spread, rel=0.05)


def test_the_evidence_is_where_the_sequence_excludes_no_difference() -> None:
    generator = np.random.default_rng(3)
    for mean in (0.05, 0.1, 0.15, 0.2, 0.3):
        values = generator.normal(mean, 1, 400)
        sums = single_pairs(400, values.sum(), (values**2).sum())
        found = mean_sequence(sums, planned=200)
        assert (mean_evidence(sums, planned=200) > math.log(20)) == (found.low > 0 or found.high < 0)


def test_the_latency_ratio_by_hand() -> None:
    # Served takes 10 ms; the shadow 20 or 40: its logarithm's spread is that of 30 around itself.
    found = ratio_sequence(moments(np.arange(100), np.tile([20.0, 40.0], 50), np.full(100, 10.0)), planned=100)
    sd = 10 / 30 * math.sqrt(100 / 99)
    margin = float(asymptotic_sequence(0.0, sd, 100, 100, 0.05).high)
    assert found == pytest.approx((3.0, 3 * math.exp(-margin), 3 * math.exp(margin)))


def test_the_error_rate_by_hand() -> None:
    # After one trial without an error the odds against p are B(1/2, 3/2) / B(1/2, 1/2) / (1 - p), so 1 / (2 (1 - p)).
    found = proportion_sequence(0, 1)
    assert found == pytest.approx((0, 0, 1 - 0.05 / 2))
    assert proportion_sequence(1, 1) == pytest.approx((1, 0.05 / 2, 1))
    assert proportion_sequence(0, 0)[1:] == (0, 1)


def test_the_error_rate_excludes_what_a_mixture_by_quadrature_excludes() -> None:
    successes, trials, alpha = 7, 250, 0.1
    found = proportion_sequence(successes, trials, alpha)
    angle = (np.arange(20_000) + 0.5) / 20_000 * math.pi / 2
    marginal = np.mean(stats.binom.pmf(successes, trials, np.sin(angle) ** 2))
    for end in (found.low, found.high):
        assert marginal / stats.binom.pmf(successes, trials, end) == pytest.approx(1 / alpha, rel=1e-6)


def test_the_error_rate_is_covered_at_every_look() -> None:
    generator = np.random.default_rng(4)
    runs, rate, alpha = 2000, 0.01, 0.1
    looks = np.arange(10, 2001, 10)
    errors = (generator.random((runs, 2000)) < rate).cumsum(axis=1)[:, looks - 1]
    # Odds against the true rate at each look; above 1 / alpha it is outside.
    odds = betaln(errors + 0.5, looks - errors + 0.5) - betaln(0.5, 0.5)
    odds -= errors * math.log(rate) + (looks - errors) * math.log1p(-rate)
    outside = odds > -math.log(alpha)
    for run in range(5):
        found = [proportion_sequence(int(e), int(n), alpha) for e, n in zip(errors[run], looks, strict=True)]
        assert [not each.low <= rate <= each.high for each in found] == outside[run].tolist()
    assert outside.any(axis=1).mean() <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize("heavy", [False, True])
def test_no_difference_is_rarely_excluded_at_any_look(heavy: bool) -> None:
    generator = np.random.default_rng(5)
    runs, alpha, looks = 400, 0.05, np.arange(LEAST_UNITS, 2001, 50)
    outside = 0
    for _ in range(runs):
        sizes = generator.geometric(0.5, 2000)
        noise = generator.standard_t(4, 2000) if heavy else generator.normal(0, 1, 2000)
        a, b = np.cumsum(sizes * noise), np.cumsum(sizes)
        aa, ab, bb = np.cumsum((sizes * noise) ** 2), np.cumsum(sizes**2 * noise), np.cumsum(sizes**2)
        for n in looks:
            sums = Moments(int(n), *(float(each[n - 1]) for each in (a, b, aa, ab, bb)))
            found = mean_sequence(sums, planned=1000, alpha=alpha)
            if not found.low <= 0 <= found.high:
                outside += 1
                break
    assert outside / runs <= alpha + 4 * math.sqrt(alpha * (1 - alpha) / runs)


def test_the_whole_comparison() -> None:
    generator = np.random.default_rng(6)
    units, ones = np.arange(1000), np.ones(1000)
    served, shadow = generator.gamma(4, 2, 1000), generator.gamma(4, 3, 1000)
    sums = PairedSums(
        score=moments(units, generator.normal(-0.05, 0.1, 1000), ones),
        agreement=moments(units, (generator.random(1000) < 0.9).astype(float), ones),
        latency=moments(units, shadow, served),
        errors=3,
        decisions=1003,
    )
    found = compare(sums, planned=1000)
    assert found.difference.high < 0
    assert found.log_e_value > math.log(20)
    assert found.agreement.low < 0.9 < found.agreement.high <= 1
    assert found.latency_ratio is not None
    assert 1 < found.latency_ratio.low < 1.5 < found.latency_ratio.high
    assert found.error_rate == proportion_sequence(3, 1003)
    assert compare(sums._replace(latency=None), planned=1000) == found._replace(latency_ratio=None)


@pytest.mark.parametrize("sums", [single_pairs(LEAST_UNITS - 1, 5, 9), single_pairs(100, 30, 9), single_pairs(0, 0, 0)])
def test_too_little_says_nothing(sums: Moments) -> None:
    found = mean_sequence(sums, planned=100)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert mean_evidence(sums, planned=100) == -math.inf
    assert ratio_sequence(sums, planned=100)[1:] == (0, math.inf)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        proportion_sequence(successes, trials)
