import math
from random import Random
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special

from analysis.statistics.best_arm import best_arm_probabilities, normal_best_probabilities, top_two_probabilities
from analysis.statistics.posteriors import AnyPosterior, Beta, Normal, Student
from bench.best_arm import ARMS, brute_force, frozen

Floats = NDArray[np.float64]

betas = st.builds(Beta, *[st.one_of(st.floats(1, 50), st.floats(1, 1e6))] * 2)
students = st.builds(Student, st.floats(-3, 3), st.floats(1e-4, 10), st.floats(2, 1e5))
normals = st.builds(Normal, st.floats(-3, 3), st.one_of(st.just(0.0), st.floats(1e-4, 10)))
experiments = st.one_of(*(st.lists(family, min_size=2, max_size=12) for family in (betas, students, normals)))


DIRECTIONS: tuple[Literal["increase", "decrease"], ...] = ("increase", "decrease")


def drawn(family: str, arms: int, generator: np.random.Generator) -> list[AnyPosterior]:
    if family == "beta":
        return [Beta(*pair) for pair in 1 + generator.gamma(2.0, [20.0, 100.0], (arms, 2))]
    location, scale = generator.normal(0, 1, arms), generator.gamma(2.0, 0.5, arms)
    if family == "student":
        return list(map(Student, location, scale, 2 + generator.gamma(1.0, 40.0, arms)))
    return list(map(Normal, location, scale))


@pytest.mark.parametrize("arms", ARMS)
@pytest.mark.parametrize("family", ["beta", "student", "normal"])
def test_probabilities_are_those_of_brute_force(family: str, arms: int) -> None:
    posteriors = drawn(family, arms, np.random.default_rng(arms))
    probabilities = best_arm_probabilities(posteriors)
    assert probabilities == pytest.approx(brute_force(posteriors), abs=1e-10)
    assert math.fsum(probabilities) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("family", ["beta", "student", "normal"])
def test_probabilities_are_those_of_draws(family: str) -> None:
    generator, draws = np.random.default_rng(11), 200_000
    posteriors = drawn(family, 8, generator)
    samples = np.array([frozen(posterior).rvs(draws, random_state=generator) for posterior in posteriors])
    for direction, best in zip(DIRECTIONS, (samples.argmax(axis=0), samples.argmin(axis=0)), strict=True):
        probabilities = best_arm_probabilities(posteriors, direction)
        observed = np.bincount(best, minlength=8) / draws
        assert np.all(np.abs(observed - probabilities) <= 5 * np.sqrt(probabilities / draws) + 1e-5)


def test_two_normal_arms_have_a_closed_form() -> None:
    for gap in (0.0, 0.1, 1.0, 5.0, 40.0):
        for scale in (1.0, 1e-4, 1e4, 1e-12):
            expected = special.ndtr(gap / math.hypot(1.0, scale))
            assert normal_best_probabilities([gap, 0.0], [1.0, scale]) == pytest.approx(
                [expected, 1 - expected], abs=1e-13
            )


@pytest.mark.parametrize("trials", [1, 1e3, 1e6, 1e9])
def test_largest_without_failures_and_smallest_without_successes_have_a_closed_form(trials: float) -> None:
    # F(x) = x ** a for Beta(a, 1), so that a product of them is one as well.
    counts = trials * np.array([1.0, 2.0, 3.0, 1e-3, 4.0]) + 1
    expected = counts / counts.sum()
    assert best_arm_probabilities([Beta(count, 1) for count in counts]) == pytest.approx(expected, abs=1e-12)
    mirrored = [Beta(1, count) for count in counts]
    assert best_arm_probabilities(mirrored, "decrease") == pytest.approx(expected, abs=1e-12)


def test_whole_successes_and_failures_have_a_closed_form() -> None:
    # P(second > first) of two beta distributions (Cook 2005).
    first, second = Beta(13, 41), Beta(17, 36)
    terms = [
        special.betaln(first.successes + i, first.failures + second.failures)
        - math.log(second.failures + i)
        - special.betaln(1 + i, second.failures)
        - special.betaln(first.successes, first.failures)
        for i in range(int(second.successes))
    ]
    expected = math.fsum(map(math.exp, terms))
    assert best_arm_probabilities([first, second]) == pytest.approx([1 - expected, expected], abs=1e-12)


@pytest.mark.parametrize(
    "posteriors",
    [
        [Beta(1, 1e6 + 1), Beta(1, 1), Beta(1e6 + 1, 1), Beta(2, 1e6)],
        [Beta(1, 1e6 + 1), Beta(1, 1e5), Beta(2, 1e6)],
        [Beta(1, 1e6 + 1), Beta(1.25, 3e5), Beta(5e5, 5e5)],
        [Beta(5e5, 5e5), Beta(5e5 + 700, 5e5 - 700), Beta(50, 50)],
        [Normal(0, 0.05), Normal(0.5, 0.5), Normal(1, 1.5)],
        [Normal(0, 1e-4), Normal(0, 1), Normal(1e-4, 1e-4)],
        [Normal(0, 1e4), Normal(0, 1), Normal(3, 2), Normal(-1e4, 1e4)],
        [Student(0, 1, 2), Student(0.1, 1e-4, 1e6), Student(0.1, 2e-4, 30)],
        [Student(-1, 1e4, 2.5), Student(3, 1, 4)],
    ],
    ids=str,
)
def test_extreme_posteriors_are_as_exact(posteriors: list[AnyPosterior]) -> None:
    probabilities = best_arm_probabilities(posteriors)
    assert probabilities == pytest.approx(brute_force(posteriors), abs=1e-9)
    assert math.fsum(probabilities) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("arms", [1, *ARMS])
@pytest.mark.parametrize(
    "posterior", [Beta(1, 1), Beta(1, 1e6), Beta(1e9, 3e9), Student(5, 2, 2), Normal(7, 1e-3)], ids=str
)
def test_identical_arms_are_equally_good(posterior: AnyPosterior, arms: int) -> None:
    for direction in DIRECTIONS:
        probabilities = best_arm_probabilities([posterior] * arms, direction)
        assert probabilities == pytest.approx([1 / arms] * arms, abs=1e-12)


def test_arm_that_dominates_a_hundred_has_all() -> None:
    posteriors = [Beta(1000, 9000)] * 99 + [Beta(9000, 1000)]
    assert best_arm_probabilities(posteriors).tolist() == [0.0] * 99 + [1.0]
    assert best_arm_probabilities(posteriors, "decrease") == pytest.approx([1 / 99] * 99 + [0.0], abs=1e-12)


def test_certain_arms_share_what_no_uncertain_one_exceeds() -> None:
    assert normal_best_probabilities([1.0, 1.0, 0.0, 0.9], [0.0] * 4).tolist() == [0.5, 0.5, 0.0, 0.0]
    above = 1 - special.ndtr(1.0)
    probabilities = normal_best_probabilities([1.0, 1.0, 0.0, -3.0], [0.0, 0.0, 1.0, 0.0])
    assert probabilities == pytest.approx([(1 - above) / 2, (1 - above) / 2, above, 0.0], abs=1e-13)
    assert normal_best_probabilities([9.0, 0.0], [0.0, 1e-3]).tolist() == [1.0, 0.0]
    assert normal_best_probabilities([-9.0, 0.0], [0.0, 1e-3]).tolist() == [0.0, 1.0]


def test_scales_do_not_matter_however_large_or_small() -> None:
    means, sds = np.array([0.0, 0.3, 0.2]), np.array([0.5, 0.1, 0.0])
    expected = normal_best_probabilities(means, sds)
    for scale in (1e-100, 1e-9, 1e9, 1e100):
        assert normal_best_probabilities(scale * means, scale * sds) == pytest.approx(expected, abs=1e-12)


def test_scores_that_differ_by_less_than_they_are_apart_from_zero_end_in_time() -> None:
    probabilities = normal_best_probabilities([1e8, 1e8, 0.0, -1e8], [1e-9, 2e-9, 1.0, 1e16])
    assert probabilities == pytest.approx([0.25, 0.25, 0.0, 0.5], abs=1e-8)
    heavy = [Student(0, 1, 2), Student(-9.4e7, 1e-9, 1e6)]
    assert best_arm_probabilities(heavy) == pytest.approx([1.0, 0.0], abs=1e-12)


@given(experiments, st.randoms(use_true_random=False))
def test_order_of_the_arms_does_not_matter(posteriors: list[AnyPosterior], random: Random) -> None:
    order = list(range(len(posteriors)))
    random.shuffle(order)
    permuted = best_arm_probabilities([posteriors[arm] for arm in order])
    assert permuted == pytest.approx(best_arm_probabilities(posteriors)[order], abs=1e-11)


@given(experiments)
def test_probabilities_sum_to_one_without_being_normalised(posteriors: list[AnyPosterior]) -> None:
    for direction in DIRECTIONS:
        probabilities = best_arm_probabilities(posteriors, direction)
        assert np.all(probabilities >= 0)
        assert abs(math.fsum(probabilities) - 1) < 1e-9
        again = best_arm_probabilities(posteriors, direction)
        assert again.tobytes() == probabilities.tobytes()


@given(st.lists(betas, min_size=2, max_size=6), st.floats(0.1, 1000))
def test_more_successes_never_make_an_arm_less_probable(arms: list[Beta], more: float) -> None:
    first, *others = arms
    better = [Beta(first.successes + more, first.failures), *others]
    assert best_arm_probabilities(better)[0] >= best_arm_probabilities(arms)[0] - 1e-11
    assert best_arm_probabilities(better, "decrease")[0] <= best_arm_probabilities(arms, "decrease")[0] + 1e-11


@given(st.lists(normals, min_size=2, max_size=8))
def test_normal_scores_need_no_objects(arms: list[Normal]) -> None:
    means, sds = zip(*arms, strict=True)
    assert normal_best_probabilities(means, sds).tolist() == best_arm_probabilities(arms).tolist()


@pytest.mark.parametrize(
    "posteriors",
    [
        [Normal(0, math.inf), Normal(0, 1)],
        [Normal(math.nan, 1), Normal(0, 1)],
        [Normal(0, -1), Normal(0, 1)],
        [Beta(0, 1), Beta(1, 1)],
        [Student(0, 1, 0.01), Student(0, 1, 2)],
    ],
)
def test_what_is_no_distribution_is_refused(posteriors: list[AnyPosterior]) -> None:
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="must be"):
        best_arm_probabilities(posteriors)


@pytest.mark.parametrize("posteriors", [[Normal(0, 1), Beta(1, 1)], []])
def test_families_are_not_mixed(posteriors: list[AnyPosterior]) -> None:
    with pytest.raises(TypeError, match="all"):
        best_arm_probabilities(posteriors)


def test_top_two_by_hand() -> None:
    # Of certain failures the best probabilities are 1/6, 2/6 and 3/6.
    arms = [Beta(1, 1), Beta(2, 1), Beta(3, 1)]
    expected = [
        1 / 12 + (2 / 6 * 1 / 4 + 3 / 6 * 1 / 3) / 2,
        2 / 12 + (1 / 6 * 2 / 5 + 3 / 6 * 2 / 3) / 2,
        3 / 12 + (1 / 6 * 3 / 5 + 2 / 6 * 3 / 4) / 2,
    ]
    assert top_two_probabilities(arms) == pytest.approx(expected, abs=1e-12)


def test_top_two_is_what_drawing_until_another_arm_wins_plays() -> None:
    generator, plays = np.random.default_rng(5), 40_000
    arms = [Normal(0, 1), Normal(0.5, 0.8), Normal(1, 0.6)]
    means, sds = np.array(arms).T
    played = np.zeros(3)
    for _ in range(plays):
        leader = arm = int(generator.normal(means, sds).argmax())
        if generator.random() < 0.5:
            while arm == leader:
                arm = int(generator.normal(means, sds).argmax())
        played[arm] += 1
    expected = top_two_probabilities(arms)
    assert np.all(np.abs(played / plays - expected) <= 5 * np.sqrt(expected / plays))


def test_top_two_of_a_decided_experiment_plays_the_best_of_the_others() -> None:
    arms = [Normal(100, 1), Normal(1, 1), Normal(0, 1)]
    second = special.ndtr(1 / math.sqrt(2))
    assert top_two_probabilities(arms) == pytest.approx([0.5, second / 2, (1 - second) / 2], abs=1e-12)
    assert top_two_probabilities(arms[:1]).tolist() == [1.0]
    assert top_two_probabilities(arms[:2]) == pytest.approx([0.5, 0.5], abs=1e-12)


@given(experiments)
@settings(max_examples=50)
def test_top_two_plays_nobody_more_than_half_and_all_together_once(posteriors: list[AnyPosterior]) -> None:
    played = top_two_probabilities(posteriors)
    best = best_arm_probabilities(posteriors)
    assert math.fsum(played) == pytest.approx(1.0, abs=1e-9)
    assert np.all(played >= best / 2 - 1e-12)
    assert played.max() <= max(0.5 + 1e-9, best.max() / 2 + 0.5)
