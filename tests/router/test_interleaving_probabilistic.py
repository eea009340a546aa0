from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.statistics.interleaving import preferences
from router.interleaving.credit import credit
from router.interleaving.probabilistic import marginal_credit, posterior
from router.interleaving.slots import BOTH, Rankings, Slot
from tests.router.interleavings import every_list, expected_credit, expected_preferences, rankings_of

ROUNDS = 1e-12


def softmax(ranking: Sequence[int], gone: set[int]) -> dict[int, Fraction]:
    """Return the probability of each item that is left, in exact numbers."""
    weights = {item: Fraction(1, rank**3) for rank, item in enumerate(ranking, 1) if item not in gone}
    return {item: weight / sum(weights.values()) for item, weight in weights.items()}


def test_first_slot_by_hand() -> None:
    # 1 + 1/8 + 1/27 + 1/64 = 2035/1728, so the ranks of four items have 1728, 216, 64 and 27 parts of 2035.
    lists = every_list("probabilistic", [[0, 1, 2, 3], [1, 2, 3, 0]], 1)
    drawn = {slots[0]: float(probability * 2 * 2035) for probability, slots in lists}
    parts = (1728, 216, 64, 27)
    expected = {Slot(item, 0): parts[item] for item in range(4)}
    expected |= {Slot(item, 1): parts[(item + 3) % 4] for item in range(4)}
    assert drawn == pytest.approx(expected, rel=1e-12)


def test_second_slot_is_drawn_without_the_first_by_hand() -> None:
    # Behind 0 the first ranker has 1 and 2 left, with weights 1/8 and 1/27: 27 and 8 parts of 35.
    lists = every_list("probabilistic", [[0, 1, 2], [0, 1, 2]], 2)
    behind = [(probability, slots[1].item) for probability, slots in lists if slots[0] == Slot(0, 1)]
    total = sum(probability for probability, _ in behind)
    assert float(sum(probability for probability, item in behind if item == 1) / total) == pytest.approx(27 / 35)


def test_marginal_credit_by_hand() -> None:
    # Of three items the ranks have 216, 27 and 8 parts of 251. Item 0 is first here and third there: 216 against 8.
    # Behind it, item 1 is the second of two left here, 27 against 8, and the first of two there, 216 against 27.
    rankings = [[0, 1, 2], [1, 2, 0]]
    first = 216 / 224
    second = (27 / 35) / (27 / 35 + 216 / 243)
    assert marginal_credit(rankings, [0, 1, 2], {0}) == pytest.approx((first, 1 - first))
    assert marginal_credit(rankings, [0, 1, 2], {1}) == pytest.approx((second, 1 - second))
    assert marginal_credit(rankings, [0, 1, 2], {2}) == pytest.approx((0.5, 0.5))
    assert marginal_credit(rankings, [0, 1, 2], {0, 1}) == pytest.approx((first + second, 2 - first - second))
    assert marginal_credit(rankings, [0, 1, 2], set()) == (0.0, 0.0)


@given(rankings_of(st.just(2), whole=True), st.data())
@settings(max_examples=40, deadline=None)
def test_marginal_credit_is_the_sum_over_all_assignments(rankings: Rankings, data: st.DataObject) -> None:
    """Against the definition: all 2^n assignments of the slots, each as probable as Bayes makes it."""
    shown = data.draw(st.permutations(rankings[0]))[:5]
    clicked = data.draw(st.sets(st.sampled_from(shown)))
    total, earned = Fraction(0), [Fraction(0), Fraction(0)]
    for teams in product((0, 1), repeat=len(shown)):
        probability = Fraction(1)
        for slot, team in enumerate(teams):
            probability *= softmax(rankings[team], set(shown[:slot]))[shown[slot]] / 2
        total += probability
        for slot, team in enumerate(teams):
            earned[team] += probability * (shown[slot] in clicked)
    assert marginal_credit(rankings, shown, clicked) == pytest.approx([float(each / total) for each in earned])


def test_posterior_is_what_draws_with_that_list_were() -> None:
    rankings = [[0, 1, 2, 3], [2, 0, 3, 1]]
    by_list: dict[tuple[int, ...], np.ndarray] = {}
    probability_of: dict[tuple[int, ...], float] = {}
    for probability, slots in every_list("probabilistic", rankings, 3):
        items = tuple(slot.item for slot in slots)
        first = np.array([slot.team == 0 for slot in slots], dtype=float)
        by_list[items] = by_list.get(items, np.zeros(3)) + float(probability) * first
        probability_of[items] = probability_of.get(items, 0.0) + float(probability)
    assert len(by_list) == 24
    for items, weighted in by_list.items():
        assert [first for first, _ in posterior(rankings, items)] == pytest.approx(weighted / probability_of[items])


@pytest.mark.parametrize("length", [1, 2, 3])
def test_whoever_clicks_at_random_prefers_neither_ranker(length: int) -> None:
    for second in permutations(range(3)):
        rankings = [[0, 1, 2], list(second)]
        lists = every_list("probabilistic", rankings, length)
        expected = expected_credit("probabilistic", rankings, lists)
        assert np.abs(expected[:, 0] - expected[:, 1]).max() < ROUNDS
        assert np.abs(expected_preferences("probabilistic", rankings, lists)).max() < ROUNDS


@given(rankings_of(st.just(2)), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_partial_rankings_get_the_same_expected_credit_from_every_slot(rankings: Rankings, length: int) -> None:
    lists = every_list("probabilistic", rankings, length)
    if lists[0][1]:
        expected = expected_credit("probabilistic", rankings, lists)
        assert np.abs(expected[:, 0] - expected[:, 1]).max() < ROUNDS


def test_the_sign_of_marginal_credit_would_not_be_fair() -> None:
    """Why preferences are expected signs: a click on the first slot at random is the second ranker's win in 55 %."""
    rankings = [[0, 1, 2], [1, 2, 0]]
    sign, preferred = 0.0, 0.0
    for probability, slots in every_list("probabilistic", rankings, 1):
        first, second = credit("probabilistic", rankings, slots, {slots[0].item})
        sign += float(probability) * np.sign(first - second)
        preferred += float(probability) * preferences("probabilistic", [0], [[first, second]], 1)[0]
    # Items 0, 1 and 2 are the first's, the second's and the second's, with 224, 243 and 35 parts of 502.
    assert sign == pytest.approx((224 - 243 - 35) / 502)
    assert preferred == pytest.approx(0, abs=ROUNDS)


def test_where_a_ranker_has_nothing_left_nobody_gets_credit() -> None:
    lists = every_list("probabilistic", [[0], [0, 1]], 2)
    assert {slots for _, slots in lists} >= {(Slot(0, 0), Slot(1, BOTH)), (Slot(0, 1), Slot(1, BOTH))}
    assert posterior([[0], [0, 1]], [0, 1])[1] == (0.0, 0.0)
