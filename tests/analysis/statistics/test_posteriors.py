import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats

from analysis.statistics.best_arm import best_arm_probabilities
from analysis.statistics.posteriors import Beta, Student, beta_posteriors, pooled, student_posteriors

Floats = NDArray[np.float64]


def statistics_of(*arms: list[float]) -> tuple[Floats, Floats, Floats]:
    n = np.array([len(arm) for arm in arms], dtype=np.float64)
    return n, np.array([math.fsum(arm) for arm in arms]), np.array([math.fsum(x * x for x in arm) for arm in arms])


def test_beta_counts_successes_and_failures_on_top_of_one_each() -> None:
    assert beta_posteriors([10, 0, 2.5], [3, 0, 1.0]) == (Beta(4, 8), Beta(1, 1), Beta(2.0, 2.5))
    assert Beta(4, 8).mean == pytest.approx(1 / 3)


def test_beta_is_the_normalised_product_of_likelihood_and_prior() -> None:
    (posterior,) = beta_posteriors([7], [2])
    mass, _ = integrate.quad(lambda p: p**2 * (1 - p) ** 5, 0, 1)
    below, _ = integrate.quad(lambda p: p**2 * (1 - p) ** 5, 0, 0.3)
    assert stats.beta(*posterior).cdf(0.3) == pytest.approx(below / mass)


def test_rounding_below_nothing_or_above_the_trials_is_cut_off() -> None:
    assert beta_posteriors([1e6, 1e6], [-1e-9, 1e6 + 1e-9]) == (Beta(1, 1 + 1e6), Beta(1 + 1e6, 1))


def test_pooled_are_mean_and_variance_of_all_values_together() -> None:
    arms: list[list[float]] = [[1.0, 2.0, 4.0], [10.0], []]
    mean, variance = pooled(*statistics_of(*arms))
    together = np.concatenate(arms)
    assert mean == pytest.approx(together.mean())
    assert variance == pytest.approx(together.var())
    assert pooled([0, 0], [0, 0], [0, 0]) == (0.0, 1.0)


def test_student_by_hand() -> None:
    # Values 1, 3 and 2, 6: the pooled mean is 3, the pooled variance 3.5.
    first, second = student_posteriors(*statistics_of([1.0, 3.0], [2.0, 6.0]))
    # The first arm's deviations from 3 sum to -2, their squares to 4: rate 3.5 + (4 - 4 / 3) / 2, shape 2, weight 3.
    assert first == pytest.approx((3 - 2 / 3, math.sqrt((3.5 + 4 / 3) / 2 / 3), 4.0))
    assert second == pytest.approx((3 + 2 / 3, math.sqrt((3.5 + (10 - 4 / 3) / 2) / 2 / 3), 4.0))


def test_student_is_the_marginal_of_likelihood_and_prior() -> None:
    arms = [0.3, -0.4, 1.1, 0.2], [2.0, 0.5, 0.7]
    statistics = statistics_of(*arms)
    location, scale, freedom = student_posteriors(*statistics)[0]
    centre, variance = pooled(*statistics)
    values = np.array(arms[0])

    def joint(precision: float, mean: float) -> float:
        prior = math.sqrt(precision) * math.exp(-precision * ((mean - centre) ** 2 / 2 + variance))
        likelihood = precision**2 * math.exp(-precision * float(((values - mean) ** 2).sum()) / 2)
        return prior * likelihood

    def unnormalised(mean: float) -> float:
        return float(integrate.quad(joint, 0, math.inf, args=(mean,))[0])

    expected = stats.t(freedom, location, scale)
    for mean in (-0.5, 0.0, 0.9, 2.0):
        ratio = unnormalised(mean) / unnormalised(location)
        assert ratio == pytest.approx(expected.pdf(mean) / expected.pdf(location), rel=1e-6)


def test_arm_without_values_is_believed_to_be_like_the_others_and_uncertain() -> None:
    seen, unseen = student_posteriors(*statistics_of([4.0, 5.0, 6.0, 5.0] * 50, []))
    assert unseen.location == pytest.approx(5.0)
    assert unseen.scale == pytest.approx(math.sqrt(0.5))
    assert unseen.freedom == 2.0
    assert seen.scale < unseen.scale / 10


@pytest.mark.parametrize("value", [0.1, 7.0, -3.3e7, 1e100, 1e-100, 0.0])
def test_arms_whose_values_are_all_the_same_are_equally_good(value: float) -> None:
    arms = student_posteriors([1000, 1000, 1000], [1000 * value] * 3, [1000 * value**2] * 3)
    assert best_arm_probabilities(arms) == pytest.approx([1 / 3] * 3, abs=1e-12)
    uneven = student_posteriors([1000, 37, 0], [1000 * value, 37 * value, 0], [1000 * value**2, 37 * value**2, 0])
    assert np.isfinite(uneven).all()
    assert [arm.mean for arm in uneven] == pytest.approx([value] * 3, rel=1e-15)
    assert best_arm_probabilities(uneven) == pytest.approx(best_arm_probabilities(uneven, "decrease"), abs=1e-6)


@given(
    st.lists(st.lists(st.floats(-5, 5), max_size=8), min_size=2, max_size=4).filter(
        lambda arms: np.ptp(np.concatenate(arms) if any(arms) else [0.0]) > 0.01
    ),
    st.sampled_from([1e-100, 1e-5, 1e7, 1e100]),
)
def test_posteriors_scale_with_the_data(arms: list[list[float]], scale: float) -> None:
    plain = student_posteriors(*statistics_of(*arms))
    scaled = student_posteriors(*statistics_of(*[[scale * value for value in arm] for arm in arms]))
    for one, other in zip(plain, scaled, strict=True):
        assert other.location / scale == pytest.approx(one.location, rel=1e-6, abs=1e-6)
        assert other.scale / scale == pytest.approx(one.scale, rel=1e-6)
        assert other.freedom == one.freedom


def test_values_that_were_discounted_to_nothing_are_as_none_at_all() -> None:
    seen, unseen = student_posteriors([1e-200, 0], [3e-200, 0], [9e-200, 0])
    assert seen == pytest.approx(unseen, abs=1e-100)
    assert unseen == Student(0, 1, 2)


def test_intervals_of_many_values_cover_the_true_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(3)
    replications, level, covered = 2000, 0.9, 0
    for _ in range(replications):
        values = generator.gamma(2.0, 3.0, (2, 400))
        arms = student_posteriors(np.full(2, 400.0), values.sum(axis=1), (values**2).sum(axis=1))
        location, scale, freedom = arms[0]
        covered += abs(location - 6.0) <= stats.t.ppf((1 + level) / 2, freedom) * scale
    assert covered / replications == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / replications))
