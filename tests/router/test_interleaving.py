from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.statistics.interleaving import Comparison, compare, compare_pairs, preferences
from router.interleaving.coins import Coins
from router.interleaving.credit import comparable, credit, slot_credits
from router.interleaving.draw import Method, interleave
from router.interleaving.slots import BOTH, Rankings, Slot
from tests.router.interleavings import METHODS, rankings_of

IMPRESSIONS = 100_000
Clicker = Callable[[np.random.Generator, NDArray[np.int_]], NDArray[np.bool_]]


@given(st.sampled_from(METHODS), rankings_of(st.just(2)), st.integers(0, 10), st.text("0123456789abcdef"))
@settings(deadline=None)
def test_a_list_of_two_rankings_keeps_its_promises(method: Method, rankings: Rankings, length: int, value: str) -> None:
    keeps_its_promises(method, rankings, length, value)


@given(rankings_of(st.integers(3, 6)), st.integers(0, 10), st.text("0123456789abcdef"))
@settings(deadline=None)
def test_a_list_of_many_rankings_keeps_its_promises(rankings: Rankings, length: int, value: str) -> None:
    keeps_its_promises("team_draft", rankings, length, value)


def keeps_its_promises(method: Method, rankings: Rankings, length: int, value: str) -> None:
    slots = interleave(method, rankings, length, Coins("promises", value))
    ranked = {item for ranking in rankings for item in ranking}
    items = [slot.item for slot in slots]
    assert len(set(items)) == len(items) == min(length, len(ranked))
    assert set(items) <= ranked
    assert all(slot.team == BOTH or slot.item in rankings[slot.team] for slot in slots)
    assert interleave(method, rankings, length, Coins("promises", value)) == slots
    given_credit = slot_credits(method, rankings, slots)
    assert all(len(each) == len(rankings) and min(each) >= 0 for each in given_credit)
    assert all(sum(each) == 0 for slot, each in zip(slots, given_credit, strict=True) if slot.team == BOTH)
    everything = credit(method, rankings, slots, set(items))
    assert everything == pytest.approx(np.array(given_credit).reshape(-1, len(rankings)).sum(axis=0))


@pytest.mark.parametrize(
    ("method", "rankers"), [("team_draft", 1), ("probabilistic", 1), ("probabilistic", 3), ("optimised", 3)]
)
def test_rankers_that_a_method_cannot_interleave_are_refused(method: Method, rankers: int) -> None:
    rankings = [[0, 1]] * rankers
    with pytest.raises(ValueError, match=rf"{method} interleaves .*2 rankers, not {rankers}"):
        interleave(method, rankings, 2, Coins("e", "u"))
    with pytest.raises(ValueError, match=f"not {rankers}"):
        credit(method, rankings, (), set())


def test_the_number_of_both_is_no_rankers() -> None:
    with pytest.raises(ValueError, match="not 255"):
        interleave("team_draft", [[0]] * (BOTH + 1), 1, Coins("e", "u"))


def test_clicks_on_what_was_not_shown_earn_nothing() -> None:
    slots = interleave("team_draft", [[0, 1, 2], [2, 1, 0]], 2, Coins("e", "u"))
    assert credit("team_draft", [[0, 1, 2], [2, 1, 0]], slots, {1, 99}) == (0.0, 0.0)


def test_team_draft_credits_clicks_on_own_items() -> None:
    slots = (Slot(3, BOTH), Slot(0, 2), Slot(1, 0), Slot(2, 1), Slot(4, 2))
    assert credit("team_draft", [[3, 1], [3, 2], [3, 0, 4]], slots, {3, 0, 1, 4}) == (1, 0, 2)


def test_an_impression_compares_those_of_many_rankers_that_have_a_slot() -> None:
    assert comparable((Slot(0, BOTH), Slot(1, 2), Slot(2, 0)), 3) == (True, False, True)
    assert comparable((Slot(0, BOTH), Slot(1, 1)), 2) == (True, True)


def test_teams_that_are_told_apart_only_by_the_experiments_name_fall_differently() -> None:
    rankings = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]
    drawn = {
        tuple(interleave("team_draft", rankings, 6, Coins(name, f"user-{unit}"))[0] for unit in range(40))
        for name in ("one", "another")
    }
    assert len(drawn) == 2


class Traffic(NamedTuple):
    """Lists of one experiment, one per unit, all as long."""

    rankings: Sequence[Rankings]
    lists: list[tuple[Slot, ...]]


def traffic(method: Method, rankers: int) -> Traffic:
    generator = np.random.default_rng(20)
    queries = [[generator.permutation(6).tolist() for _ in range(rankers)] for _ in range(12)]
    rankings = [queries[number % len(queries)] for number in range(IMPRESSIONS)]
    lists = [interleave(method, each, 4, Coins("random", f"user-{n}")) for n, each in enumerate(rankings)]
    return Traffic(rankings, lists)


def one_click(generator: np.random.Generator, items: NDArray[np.int_]) -> NDArray[np.bool_]:
    return np.asarray(np.arange(items.shape[1]) == generator.integers(items.shape[1], size=(len(items), 1)))


def clicks_by_position(generator: np.random.Generator, items: NDArray[np.int_]) -> NDArray[np.bool_]:
    return np.asarray(generator.random(items.shape) < 1 / np.arange(1, items.shape[1] + 1))


def clicks_on_what_is_good(generator: np.random.Generator, items: NDArray[np.int_]) -> NDArray[np.bool_]:
    return np.asarray(generator.random(items.shape) < 0.8 / (1 + items))


def compared(method: Method, shown: Traffic, clicker: Clicker) -> list[Comparison]:
    """Return the comparison of every two rankers after a click model had the lists."""
    items = np.array([[slot.item for slot in slots] for slots in shown.lists])
    clicks = clicker(np.random.default_rng(21), items)
    units = np.arange(len(shown.lists))
    gains = np.array([slot_credits(method, r, s) for r, s in zip(shown.rankings, shown.lists, strict=True)])
    rankers = gains.shape[2]
    if rankers == 2:
        impression, slot = np.nonzero(clicks)
        return [compare(preferences(method, impression, gains[impression, slot], len(units)), units)]
    there = [comparable(slots, rankers) for slots in shown.lists]
    return list(compare_pairs(np.einsum("is,isr->ir", clicks, gains), there, units).values())


@pytest.mark.parametrize(("method", "rankers"), [*((method, 2) for method in METHODS), ("team_draft", 3)])
def test_who_clicks_at_random_finds_no_difference_in_100_000_impressions(method: Method, rankers: int) -> None:
    shown = traffic(method, rankers)
    for clicker in (one_click, clicks_by_position):
        for found in compared(method, shown, clicker):
            assert found.impressions == IMPRESSIONS
            assert found.p_value > 0.01
            assert found.low < 0 < found.high


@pytest.mark.parametrize("method", METHODS)
def test_who_clicks_on_what_is_good_prefers_the_ranker_that_knows(method: Method) -> None:
    generator = np.random.default_rng(22)
    rankings = [[list(range(7)), generator.permutation(7).tolist()] for _ in range(2000)]
    lists = [interleave(method, each, 5, Coins("good", str(n))) for n, each in enumerate(rankings)]
    (found,) = compared(method, Traffic(rankings, lists), clicks_on_what_is_good)
    assert found.low > 0
