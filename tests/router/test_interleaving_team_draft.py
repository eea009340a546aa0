from collections import Counter
from fractions import Fraction
from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.interleaving.coins import Coins
from router.interleaving.credit import comparable
from router.interleaving.slots import BOTH, Rankings, Slot
from router.interleaving.team_draft import team_draft
from tests.router.interleavings import Weighted, every_list, expected_credit, expected_preferences, rankings_of

ROUNDS = 1e-12


def named(slots: tuple[Slot, ...], names: str) -> str:
    """Return the list as text: an item's name, and after it the team that has it, * for both."""
    return " ".join(names[slot.item] + ("*" if slot.team == BOTH else "AB"[slot.team]) for slot in slots)


def test_drafts_by_hand() -> None:
    # Rankings a b c d g h and b e a f g h: three rounds, then both want g, then h.
    names = "abcdefgh"
    rankings = [[names.index(name) for name in ranking] for ranking in ("abcdgh", "beafgh")]
    lists = every_list("team_draft", rankings, 8)
    assert {named(slots, names): probability for probability, slots in lists} == {
        f"{first} {second} {third} g* h*": Fraction(1, 8)
        for first, second, third in product(("aA bB", "bB aA"), ("cA eB", "eB cA"), ("dA fB", "fB dA"))
    }


def test_a_shared_pick_comes_once_and_opens_no_round() -> None:
    lists = every_list("team_draft", [[0, 1, 2], [0, 2, 1]], 3)
    assert sorted(named(slots, "xyz") for _, slots in lists) == ["x* yA zB", "x* zB yA"]


def test_an_item_wanted_by_the_other_ranker_too_is_no_shared_pick_within_a_round() -> None:
    # Once the first ranker has picked x, both want y; but it is the second one's turn, whose pick it was all along.
    lists = every_list("team_draft", [[0, 1, 2], [1, 2, 0]], 3)
    assert sorted(named(slots, "xyz") for _, slots in lists) == ["xA yB z*", "yB xA z*"]


def test_equal_rankings_credit_nobody() -> None:
    ((probability, slots),) = every_list("team_draft", [[2, 0, 1], [2, 0, 1]], 3)
    assert probability == 1
    assert slots == (Slot(2, BOTH), Slot(0, BOTH), Slot(1, BOTH))


def test_what_only_one_ranker_can_still_supply_credits_nobody() -> None:
    lists = every_list("team_draft", [[0], [1, 2, 3]], 4)
    assert sorted(named(slots, "xyzw") for _, slots in lists) == ["xA yB z* w*", "yB xA z* w*"]


def test_of_three_rankers_each_picks_once_a_round_in_any_order() -> None:
    lists = every_list("team_draft", [[0, 3], [1, 4], [2, 5]], 4)
    first_rounds = Counter(tuple(slot.team for slot in slots[:3]) for _, slots in lists)
    assert set(first_rounds) == set(permutations(range(3)))
    assert sum(probability for probability, slots in lists if slots[3] == Slot(4, 1)) == Fraction(1, 3)


def test_of_three_rankers_a_shared_pick_is_told_only_while_it_does_not_depend_on_the_draw() -> None:
    # All want 0. Then two want 1 and one wants 2: whether 3 is wanted by all behind that round depends on the draw.
    rankings = [[0, 1, 3, 2, 4], [0, 1, 3, 4, 2], [0, 2, 1, 3, 4]]
    lists = every_list("team_draft", rankings, 5)
    assert {slots[0] for _, slots in lists} == {Slot(0, BOTH)}
    assert all(slot.team != BOTH for _, slots in lists for slot in slots[1:])


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_whoever_clicks_at_random_prefers_neither_of_two_rankers(length: int) -> None:
    """For all pairs of rankings of four, for every set of clicked slots, so for any clicker who ignores items."""
    for second in permutations(range(4)):
        rankings = [[0, 1, 2, 3], list(second)]
        lists = every_list("team_draft", rankings, length)
        credit = expected_credit("team_draft", rankings, lists)
        assert np.array_equal(credit[:, 0], credit[:, 1])
        assert np.abs(expected_preferences("team_draft", rankings, lists)).max() < ROUNDS


@given(rankings_of(st.just(2)), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_whoever_clicks_at_random_prefers_neither_of_two_partial_rankings(rankings: Rankings, length: int) -> None:
    lists = every_list("team_draft", rankings, min(length, 6))
    if lists[0][1]:
        assert np.abs(expected_preferences("team_draft", rankings, lists)).max() < ROUNDS


def wins(lists: Weighted, rankers: int) -> dict[tuple[int, int], float]:
    """Return, for every two rankers, the greatest expected sign over sets of clicked slots, where both had a slot."""
    slots = len(lists[0][1])
    chosen = [np.array(each) for each in product((False, True), repeat=slots)]
    found = {}
    for first, second in combinations(range(rankers), 2):
        expected = np.zeros(len(chosen))
        for probability, shown in lists:
            there = comparable(shown, rankers)
            if there[first] and there[second]:
                teams = np.array([slot.team for slot in shown])
                differences = [(teams[each] == first).sum() - (teams[each] == second).sum() for each in chosen]
                expected += float(probability) * np.sign(differences)
        found[first, second] = np.abs(expected).max()
    return found


# Whoever of the first two picks 0, what is left behind the round is wanted by all three, or not.
@example([[0, 2, 3, 4, 1, 5], [0, 3, 2, 4, 1, 5], [1, 2, 4, 3, 0, 5]], 4)
@given(rankings_of(st.integers(3, 4), whole=True), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_whoever_clicks_at_random_prefers_none_of_many_rankers(rankings: Rankings, length: int) -> None:
    lists = every_list("team_draft", rankings, length)
    assert max(wins(lists, len(rankings)).values()) < ROUNDS


@given(rankings_of(st.integers(3, 4)), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_partial_rankings_of_many_get_the_same_expected_credit_from_every_slot(rankings: Rankings, length: int) -> None:
    lists = every_list("team_draft", rankings, length)
    if lists[0][1]:
        credit = expected_credit("team_draft", rankings, lists)
        assert np.abs(credit - credit[:, :1]).max() < ROUNDS


@given(rankings_of(st.integers(2, 5)), st.integers(1, 10), st.integers())
@settings(deadline=None)
def test_no_ranker_picks_more_than_one_item_more_than_another(rankings: Rankings, length: int, seed: int) -> None:
    slots = team_draft(rankings, length, Coins("sizes", str(seed)))
    sizes = [sum(slot.team == team for slot in slots) for team in range(len(rankings))]
    assert max(sizes) - min(sizes) <= 1


def test_a_reference_draft_agrees() -> None:
    """Against the algorithm as it is usually printed: the smaller team picks, and a coin breaks ties."""

    def printed(rankings: Rankings, coins: list[int]) -> list[Slot]:
        slots: list[Slot] = []
        teams: list[set[int]] = [set(), set()]
        flips = iter(coins)
        while len(slots) < len(rankings[0]):
            shown = {slot.item for slot in slots}
            picks = [next(item for item in ranking if item not in shown) for ranking in rankings]
            if len(teams[0]) == len(teams[1]) and picks[0] == picks[1]:
                slots.append(Slot(picks[0], BOTH))
                continue
            even = len(teams[0]) == len(teams[1])
            team = next(flips) if even else int(len(teams[1]) < len(teams[0]))
            teams[team].add(picks[team])
            slots.append(Slot(picks[team], team))
        return slots

    generator = np.random.default_rng(5)
    for _ in range(20):
        rankings = [generator.permutation(6).tolist() for _ in range(2)]
        expected = {tuple(printed(rankings, list(flips))) for flips in product((0, 1), repeat=3)}
        assert {slots for _, slots in every_list("team_draft", rankings, 6)} == expected
