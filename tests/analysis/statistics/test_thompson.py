import math
from collections.abc import Sequence
from random import Random
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.statistics.best_arm import best_arm_probabilities, top_two_probabilities
from analysis.statistics.posteriors import Beta, student_posteriors
from analysis.statistics.thompson import Evidence, posteriors, probabilities, shares
from router.documents import Thompson

PLAIN = Thompson(metric="click", floor=0.0, min_matured=0)


def counts(successes: int, trials: int) -> Evidence:
    return Evidence(float(trials), float(successes), float(successes), trials)


def values(*given: float) -> Evidence:
    return Evidence(len(given), math.fsum(given), math.fsum(value * value for value in given), len(given))


arms = st.lists(
    st.integers(0, 5000).flatmap(lambda trials: st.builds(counts, st.integers(0, trials), st.just(trials))),
    min_size=2,
    max_size=8,
)
allocations = st.builds(
    Thompson,
    metric=st.just("click"),
    floor=st.floats(0, 0.12),
    control_share=st.none() | st.floats(0.01, 0.99),
    min_matured=st.sampled_from([0, 100, 1000]),
    top_two=st.booleans(),
)


def test_binary_metrics_have_beta_posteriors_and_others_those_of_any_mean() -> None:
    evidence = [counts(3, 10), counts(5, 10)]
    assert posteriors("binary", evidence) == (Beta(4, 8), Beta(6, 6))
    assert probabilities(PLAIN, "binary", "increase", evidence) == pytest.approx(
        best_arm_probabilities([Beta(4, 8), Beta(6, 6)]).tolist(), abs=1e-12
    )
    assert posteriors("numeric", evidence) == student_posteriors([10, 10], [3, 5], [3, 5])


def test_reward_between_0_and_1_is_no_count_of_successes() -> None:
    steady, erratic = values(*[0.5] * 50), values(*[0.1, 0.9] * 25)
    as_numbers = probabilities(PLAIN, "numeric", "increase", [steady, erratic])
    assert as_numbers == pytest.approx((0.5, 0.5), abs=1e-9)
    # Were they counts, the posteriors of the same sums would be the same; here one arm is known better.
    scales = [posterior[1] for posterior in posteriors("score", [steady, erratic])]
    assert scales[0] < scales[1] / 2


def test_direction_says_which_end_is_better() -> None:
    evidence = [values(1.0, 2.0, 3.0), values(2.0, 4.0, 6.0), values(0.0, 1.0, 5.0)]
    rising = probabilities(PLAIN, "numeric", "increase", evidence)
    mirrored = [arm._replace(total=-arm.total) for arm in evidence]
    assert probabilities(PLAIN, "numeric", "decrease", mirrored) == pytest.approx(rising, abs=1e-12)
    assert probabilities(PLAIN, "binary", "decrease", [counts(1, 100), counts(30, 100)])[0] > 0.999


def test_two_arms_by_hand() -> None:
    # P(Beta(1, 2) > Beta(2, 1)) is 1/6.
    evidence = [counts(0, 1), counts(1, 1)]
    assert probabilities(PLAIN, "binary", "increase", evidence) == pytest.approx((1 / 6, 5 / 6), abs=1e-12)
    floored = Thompson(metric="click", floor=0.05, min_matured=0)
    expected = (0.05 + 0.9 / 6, 0.05 + 0.9 * 5 / 6)
    assert probabilities(floored, "binary", "increase", evidence) == pytest.approx(expected, abs=1e-12)


def test_floor_keeps_order_and_odds_of_what_is_above_it() -> None:
    evidence = [counts(100, 1000), counts(104, 1000), counts(110, 1000), counts(90, 1000)]
    plain = np.array(probabilities(PLAIN, "binary", "increase", evidence))
    floored = np.array(
        probabilities(Thompson(metric="click", floor=0.1, min_matured=0), "binary", "increase", evidence)
    )
    assert (floored - 0.1) / 0.6 == pytest.approx(plain, abs=1e-12)


def test_floor_of_more_than_an_equal_share_is_an_equal_share() -> None:
    evidence = [counts(0, 1000), counts(900, 1000), counts(500, 1000)]
    for control_share in (None, 0.4):
        crowded = Thompson(metric="click", floor=0.5, min_matured=0, control_share=control_share)
        found = probabilities(crowded, "binary", "increase", evidence)
        expected = (1 / 3,) * 3 if control_share is None else (0.4, 0.3, 0.3)
        assert found == pytest.approx(expected, abs=1e-12)


def test_control_keeps_its_share_and_the_others_divide_the_rest() -> None:
    allocation = Thompson(metric="click", floor=0.05, control_share=0.2, min_matured=0)
    evidence = [counts(990, 1000), counts(0, 1), counts(1, 1)]
    expected = (0.2, 0.05 + 0.7 / 6, 0.05 + 0.7 * 5 / 6)
    found = probabilities(allocation, "binary", "increase", evidence)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[0] == 0.2


def test_control_share_of_a_lone_arm_is_everything() -> None:
    allocation = Thompson(metric="click", control_share=0.2)
    assert probabilities(allocation, "binary", "increase", [counts(0, 0)]) == (1.0,)


def test_all_arms_begin_alike() -> None:
    allocation = Thompson(metric="click")
    evidence = [counts(0, 99), counts(50, 99), counts(99, 99), counts(0, 0)]
    assert probabilities(allocation, "binary", "increase", evidence) == pytest.approx((0.25,) * 4)


def test_arm_that_comes_later_does_not_set_the_others_back() -> None:
    allocation = Thompson(metric="click")
    known = [counts(100, 1000), counts(140, 1000), counts(90, 900)]
    before = np.array(probabilities(allocation, "binary", "increase", known))
    after = np.array(probabilities(allocation, "binary", "increase", [*known, counts(5, 50)]))
    assert after[3] == pytest.approx(0.25)
    best = (before - 0.05) / (1 - 3 * 0.05)
    assert after[:3] == pytest.approx(0.05 + (1 - 4 * 0.05) * best * 3 / 4, abs=1e-12)


def test_control_in_its_burn_in_keeps_its_share() -> None:
    allocation = Thompson(metric="click", control_share=0.1, floor=0.0)
    evidence = [counts(1, 5), counts(3, 1000), counts(900, 1000), counts(7, 30)]
    assert probabilities(allocation, "binary", "increase", evidence) == pytest.approx((0.1, 0.0, 0.6, 0.3), abs=1e-9)


def test_top_two_plays_the_challenger_as_often_as_the_leader() -> None:
    allocation = Thompson(metric="click", floor=0.0, min_matured=0, top_two=True)
    evidence = [counts(100, 1000), counts(140, 1000), counts(700, 1000)]
    expected = top_two_probabilities(posteriors("binary", evidence)).tolist()
    assert probabilities(allocation, "binary", "increase", evidence) == pytest.approx(expected, abs=1e-12)
    assert expected[2] == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [1e100, 1e-100, 1.0])
def test_values_of_any_size_are_allocated(scale: float) -> None:
    evidence = [values(*(scale * value for value in row)) for row in ([1, 2, 3, 4], [2, 3, 4, 5], [7, 7, 7, 7])]
    expected = probabilities(PLAIN, "numeric", "increase", [values(1, 2, 3, 4), values(2, 3, 4, 5), values(7, 7, 7, 7)])
    assert probabilities(PLAIN, "numeric", "increase", evidence) == pytest.approx(expected, abs=1e-9)


@given(arms, allocations, st.sampled_from(["binary", "numeric"]), st.sampled_from(["increase", "decrease"]))
def test_shares_sum_to_one_and_respect_floor_and_control(
    evidence: list[Evidence], allocation: Thompson, kind: str, direction: Literal["increase", "decrease"]
) -> None:
    found = probabilities(allocation, kind, direction, evidence)
    assert abs(math.fsum(found) - 1) < 1e-12
    others = found if allocation.control_share is None else found[1:]
    if allocation.control_share is not None:
        assert found[0] == allocation.control_share
    assert min(others) >= min(allocation.floor, math.fsum(others) / len(others)) - 1e-12
    again = probabilities(allocation, kind, direction, evidence)
    assert again == found


@given(arms, st.sampled_from(["binary", "numeric"]), st.randoms(use_true_random=False))
def test_order_of_the_arms_does_not_matter(evidence: list[Evidence], kind: str, random: Random) -> None:
    order = list(range(len(evidence)))
    random.shuffle(order)
    allocation = Thompson(metric="click")
    found = probabilities(allocation, kind, "increase", evidence)
    permuted = probabilities(allocation, kind, "increase", [evidence[arm] for arm in order])
    assert permuted == pytest.approx([found[arm] for arm in order], abs=1e-9)


@given(arms, st.integers(1, 1000))
def test_more_successes_never_lower_an_arms_share(evidence: list[Evidence], more: int) -> None:
    allocation = Thompson(metric="click", min_matured=0)
    first, *others = evidence
    better = first._replace(n=first.n + more, total=first.total + more)
    before = probabilities(allocation, "binary", "increase", evidence)[0]
    assert probabilities(allocation, "binary", "increase", [better, *others])[0] >= before - 1e-9


def test_shares_ask_only_for_arms_that_are_ready() -> None:
    asked = []

    def best(ready: Sequence[int]) -> NDArray[np.float64]:
        asked.append(list(ready))
        return np.array([0.9, 0.1])

    allocation = Thompson(metric="click", floor=0.0, min_matured=10)
    assert shares(allocation, [10, 9, 50], best) == pytest.approx((0.6, 1 / 3, 1 / 15))
    assert shares(allocation, [0, 9, 5], best) == pytest.approx((1 / 3,) * 3)
    assert asked == [[0, 2]]


def test_frequencies_of_a_played_bandit_follow_the_shares_and_find_the_better_arm() -> None:
    generator = np.random.default_rng(17)
    truth, allocation = np.array([0.1, 0.2, 0.3]), Thompson(metric="click", floor=0.02, min_matured=10)
    trials, successes, expected, variance = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    for _ in range(300):
        known = [counts(int(won), int(tried)) for won, tried in zip(successes, trials, strict=True)]
        share = np.array(probabilities(allocation, "binary", "increase", known))
        played = generator.multinomial(20, share)
        trials += played
        successes += generator.binomial(played, truth)
        expected += 20 * share
        variance += 20 * share * (1 - share)
    assert np.all(np.abs(trials - expected) <= 5 * np.sqrt(variance))
    assert trials[2] > 0.7 * trials.sum()
