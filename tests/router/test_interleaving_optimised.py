import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from router.interleaving import optimised
from router.interleaving.coins import Coins
from router.interleaving.credit import credit, slot_credits
from router.interleaving.draw import interleave
from router.interleaving.slots import BOTH, Rankings, Slot
from tests.router.interleavings import every_list, expected_credit, expected_preferences, rankings_of

FAIR = 1e-9


def top_lists(length: int) -> Iterator[tuple[int, ...]]:
    """Yield every list of that length up to renaming, against 0, 1, 2 ..: what is not among those is named in order."""

    def longer(prefix: tuple[int, ...], news: int) -> Iterator[tuple[int, ...]]:
        if len(prefix) == length:
            yield prefix
            return
        for item in range(length):
            if item not in prefix:
                yield from longer((*prefix, item), news)
        yield from longer((*prefix, length + news), news + 1)

    return longer((), 0)


def is_consistent(items: tuple[int, ...], rankings: Rankings) -> bool:
    """Return whether each prefix is the union of prefixes of the two rankings: the paper's definition, by trial."""
    first, second = rankings
    return all(
        any(
            set(items[:size]) == {*first[:i], *second[:j]}
            for i in range(len(first) + 1)
            for j in range(len(second) + 1)
        )
        for size in range(len(items) + 1)
    )


def test_probabilities_by_hand() -> None:
    """Four items, whose ranks differ by 3, -1, 0 and -2.

    In the first slot 3 p = 1 - p makes p = 1/4 for item 0. In the second, what lists that begin with 0 lose there with
    item 1, 1/4, those that begin with 1 win with item 0 in x and item 3 in the rest: 3 x - 2 (3/4 - x) = 1/4 makes
    x = 7/20. In the third slot items 3 and 0 tell more than item 2, which both rankers have in the same place.
    """
    lists = every_list("optimised", [[0, 1, 2, 3], [1, 3, 2, 0]], 4)
    found = {tuple(slot.item for slot in slots): float(probability) for probability, slots in lists}
    assert found == pytest.approx({(0, 1, 3, 2): 0.25, (1, 0, 3, 2): 0.35, (1, 3, 0, 2): 0.4})


def test_teams_and_credit_by_hand() -> None:
    rankings = [[0, 1, 2, 3], [1, 3, 2, 0]]
    slots = (Slot(0, 0), Slot(1, 1), Slot(3, 1), Slot(2, BOTH))
    assert slots in [slots for _, slots in every_list("optimised", rankings, 4)]
    assert slot_credits("optimised", rankings, slots) == ((1, 0.25), (0.75, 1), (0.25, 0.75), (0, 0))
    assert credit("optimised", rankings, slots, {0, 3, 2}) == (1.25, 1)


def test_ranks_behind_the_list_are_all_alike() -> None:
    # Of two slots, an item that the other ranker has in third place or later earns it nothing.
    rankings = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]
    assert slot_credits("optimised", rankings, [Slot(0, 0), Slot(4, 1)]) == ((1, 0), (0, 1))


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_whoever_clicks_at_random_prefers_neither_ranker(length: int) -> None:
    for second in permutations(range(4)):
        rankings = [[0, 1, 2, 3], list(second)]
        lists = every_list("optimised", rankings, length)
        expected = expected_credit("optimised", rankings, lists)
        assert np.abs(expected[:, 0] - expected[:, 1]).max() < FAIR
        assert np.abs(expected_preferences("optimised", rankings, lists)).max() < FAIR


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_there_are_fair_probabilities_for_every_pair_of_short_lists(length: int) -> None:
    for second in top_lists(length):
        assert optimised._solve.__wrapped__(second) is not None


def test_there_are_fair_probabilities_for_longer_lists() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        second = tuple(generator.permutation(generator.integers(10, 16))[:10].tolist())
        renamed = dict(zip([item for item in second if item >= 10], range(10, 20), strict=False))
        assert optimised._solve(tuple(renamed.get(item, item) for item in second)) is not None


@given(rankings_of(st.just(2)), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_partial_rankings_get_the_same_expected_credit_from_every_slot(rankings: Rankings, length: int) -> None:
    lists = every_list("optimised", rankings, length)
    if lists[0][1]:
        expected = expected_credit("optimised", rankings, lists)
        assert np.abs(expected[:, 0] - expected[:, 1]).max() < FAIR


def test_every_list_is_made_of_prefixes_of_both_rankings() -> None:
    for second in permutations(range(4)):
        rankings = [[0, 1, 2, 3], list(second)]
        consistent = [items for items in permutations(range(4)) if is_consistent(items, rankings)]
        assert sorted(optimised._consistent((0, 1, 2, 3), second)) == sorted(consistent)
        for _, slots in every_list("optimised", rankings, 4):
            assert tuple(slot.item for slot in slots) in consistent


def test_sensitivity_by_hand() -> None:
    # Two slots are clicked with 2/3 and 1/3: one win each way, or a win and a tie, or two wins of the same.
    gains = np.array([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    both = -(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3))
    assert optimised._sensitivity(gains) == pytest.approx([both, 0, 0, 0])


def test_no_fair_probabilities_are_more_sensitive() -> None:
    """Against the programme in its other form: any fair mixture of lists is bounded by the dual's value."""
    for second in permutations(range(4)):
        lists = optimised._consistent((0, 1, 2, 3), second)
        gains = optimised._differences(second)[np.array(lists)]
        bits = optimised._sensitivity(gains)
        # Minimise t over (y, t) such that y . gains + t >= bits for every list.
        dual = linprog(
            [0.0] * 4 + [1.0], A_ub=-np.hstack([gains, np.ones((len(lists), 1))]), b_ub=-bits, bounds=(None, None)
        )
        solved = optimised._solve(second)
        assert solved is not None
        assert dual.fun is not None
        reached = sum(probability * bits[lists.index(items)] for items, probability in zip(*solved, strict=True))
        assert dual.fun - optimised._TIE_BREAK <= reached <= dual.fun + FAIR


@pytest.mark.parametrize(
    "second", [(5, 1, 4, 0, 3, 2, 6), (2, 5, 6, 4, 0, 1, 3), (7, 5, 2, 1, 6, 4, 3, 0), (1, 0, 4, 6, 5, 3, 2, 10, 11, 8)]
)
def test_other_algorithms_find_the_same_probabilities(monkeypatch: pytest.MonkeyPatch, second: tuple[int, ...]) -> None:
    """They stand for other versions of the solver; without a rule of ours for lists that tie, they differ here."""

    def probabilities(algorithm: str) -> dict[tuple[int, ...], float]:
        with monkeypatch.context() as patch:
            patch.setattr(scipy.optimize, "linprog", partial(_solve_by, algorithm))
            solved = optimised._solve.__wrapped__(second)
        assert solved is not None
        return dict(zip(*solved, strict=True))

    assert probabilities("highs-ds") == pytest.approx(probabilities("highs-ipm"), abs=FAIR)


def _solve_by(algorithm: str, *arguments: Any, method: str, **others: Any) -> Any:
    solve: Any = linprog
    return solve(*arguments, method=algorithm, **others)


def test_the_sign_of_the_credit_would_not_be_fair() -> None:
    """Why preferences are mean differences: the second ranker wins three of four random clicks on the first slot."""
    lists = every_list("optimised", [[0, 1, 2, 3], [1, 3, 2, 0]], 4)
    assert sum(float(probability) for probability, slots in lists if slots[0].team == 1) == pytest.approx(0.75)


def test_longer_lists_are_fair_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimised, "BLOCK", 2)
    for second in permutations(range(4)):
        rankings = [[0, 1, 2, 3], list(second)]
        lists = every_list("optimised", rankings, 4)
        assert np.abs(expected_preferences("optimised", rankings, lists)).max() < FAIR


def test_credit_of_a_second_block_is_by_what_the_rankers_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimised, "BLOCK", 2)
    rankings = [[0, 1, 2, 3], [0, 1, 3, 2]]
    slots = (Slot(0, BOTH), Slot(1, BOTH), Slot(2, 0), Slot(3, 1))
    assert slots in [slots for _, slots in every_list("optimised", rankings, 4)]
    assert slot_credits("optimised", rankings, slots)[2:] == ((1, 0.5), (0.5, 1))


def test_a_list_of_25_shows_each_item_once_and_teams_as_ranks_say() -> None:
    generator = np.random.default_rng(8)
    rankings = [generator.permutation(30).tolist() for _ in range(2)]
    slots = interleave("optimised", rankings, 25, Coins("long", "u"))
    assert len({slot.item for slot in slots}) == 25
    for slot, (first, second) in zip(slots, slot_credits("optimised", rankings, slots), strict=True):
        assert slot.team == (BOTH if first == second else int(first < second))


def test_without_fair_probabilities_a_rankers_own_list_is_shown_for_no_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimised, "_solve", lambda second: None)
    lists = every_list("optimised", [[0, 1], [1, 0]], 2)
    assert sorted(slots for _, slots in lists) == [(Slot(0, BOTH), Slot(1, BOTH)), (Slot(1, BOTH), Slot(0, BOTH))]
    assert all(slot_credits("optimised", [[0, 1], [1, 0]], slots) == ((0, 0), (0, 0)) for _, slots in lists)


def test_equal_rankings_credit_nobody() -> None:
    ((_, slots),) = every_list("optimised", [[2, 0, 1], [2, 0, 1]], 3)
    assert slots == (Slot(2, BOTH), Slot(0, BOTH), Slot(1, BOTH))


def test_another_process_draws_the_same() -> None:
    code = """
from router.interleaving.coins import Coins
from router.interleaving.draw import interleave
for n in range(5):
    rankings = [list(range(12)), [(7 * i + n) % 12 for i in range(12)]]
    print(interleave("optimised", rankings, 10, Coins("s", str(n))))
"""
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1
    assert "Slot" in runs.pop()


def test_the_solver_is_imported_only_when_it_is_needed() -> None:
    code = """
import sys, router.interleaving.credit
before = "scipy" in sys.modules
router.interleaving.optimised.warm()
print(before, "scipy.optimize" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]
