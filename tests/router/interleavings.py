"""Every outcome of a draw, with its exact probability, and what all clickers make of them who click at random."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.statistics.interleaving import preferences
from router.interleaving.coins import Coins
from router.interleaving.credit import slot_credits
from router.interleaving.draw import Method, interleave
from router.interleaving.slots import Rankings, Slot

Drawn = TypeVar("Drawn")

Weighted = list[tuple[Fraction, tuple[Slot, ...]]]
"""Lists, each with its probability."""

METHODS: tuple[Method, ...] = ("team_draft", "probabilistic", "optimised")


class _Undecided(Exception):
    """The script has no answer to a choice between these weights."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = weights


class ScriptedCoins(Coins):
    """Coins that fall as they are told."""

    def __init__(self, script: Sequence[int]) -> None:
        self._script = iter(script)

    def below(self, n: int) -> int:
        return self.choose([1.0] * n)

    def choose(self, weights: Sequence[float]) -> int:
        try:
            return next(self._script)
        except StopIteration:
            raise _Undecided(weights) from None


def every_draw(draw: Callable[[Coins], Drawn]) -> list[tuple[Fraction, Drawn]]:
    """Return what `draw` makes of every way in which coins can fall, with its probability."""
    found = []
    pending: list[tuple[Fraction, tuple[int, ...]]] = [(Fraction(1), ())]
    while pending:
        probability, script = pending.pop()
        try:
            found.append((probability, draw(ScriptedCoins(script))))
        except _Undecided as undecided:
            weights = [Fraction(weight) for weight in undecided.weights]
            pending += [
                (probability * weight / sum(weights), (*script, number)) for number, weight in enumerate(weights)
            ]
    return found


def every_list(method: Method, rankings: Rankings, length: int) -> Weighted:
    """Return every interleaved list with its probability."""
    return every_draw(lambda coins: interleave(method, rankings, length, coins))


def expected_credit(method: Method, rankings: Rankings, lists: Weighted) -> NDArray[np.float64]:
    """Return the expected credit of a click on a slot, for every ranker [slots, rankers]."""
    given = np.array([slot_credits(method, rankings, slots) for _, slots in lists])
    expected: NDArray[np.float64] = np.einsum("l,lsr->sr", [float(probability) for probability, _ in lists], given)
    return expected


def expected_preferences(method: Method, rankings: Rankings, lists: Weighted) -> NDArray[np.float64]:
    """Return the expected preference for each set of clicked slots [sets]; sets have at least one slot."""
    slots = len(lists[0][1])
    clicked = [chosen for size in range(1, slots + 1) for chosen in combinations(range(slots), size)]
    impression, gains = [], []
    for number, (_, shown) in enumerate(lists):
        given = slot_credits(method, rankings, shown)
        for which, chosen in enumerate(clicked):
            impression += [number * len(clicked) + which] * len(chosen)
            gains += [given[slot] for slot in chosen]
    found = preferences(method, impression, gains, len(lists) * len(clicked)).reshape(len(lists), len(clicked))
    expected: NDArray[np.float64] = np.array([float(probability) for probability, _ in lists]) @ found
    return expected


@st.composite
def rankings_of(draw: st.DrawFn, rankers: st.SearchStrategy[int], *, whole: bool = False) -> list[list[int]]:
    """Draw rankings of up to eight candidates; whole ones, or only the best of each."""
    candidates = draw(st.integers(1, 8))
    orders = [draw(st.permutations(range(candidates))) for _ in range(draw(rankers))]
    return orders if whole else [order[: draw(st.integers(0, candidates))] for order in orders]
