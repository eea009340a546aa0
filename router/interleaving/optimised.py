"""Lists drawn with the probabilities that a linear programme finds best among those that are fair."""

from collections.abc import Sequence
from functools import lru_cache
from math import fsum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.interleaving.coins import Coins
from router.interleaving.slots import BOTH, Rankings, Slot, uncredited

BLOCK = 10
"""How many slots are optimised at a time: there may be 2 to this power lists to weigh."""

_REMEMBERED = 8192
_NEGLIGIBLE = 1e-12
_FAIR = 1e-9
# Lists often tie in sensitivity; without this, which of them are shown could depend on the version of the solver. Roots
# are irrational in ways of their own, so that mixtures of lists do not tie either.
_TIE_BREAK = 1e-4

Credits = tuple[float, ...]
"""For each ranker, how much of a click on one slot is its merit."""


class Lists(NamedTuple):
    """The lists that are shown, and with which probability."""

    lists: tuple[tuple[int, ...], ...]
    probabilities: tuple[float, ...]


class Block(NamedTuple):
    """The best items that each of two rankers has left, equally many."""

    first: tuple[int, ...]
    second: tuple[int, ...]

    def credits(self, item: int) -> Credits:
        """Return the item's linear rank with each ranker: 1 for its best item, 0 for one that it does not have here."""
        return _linear(self.first, item), _linear(self.second, item)


def optimised(rankings: Rankings, length: int, coins: Coins) -> tuple[Slot, ...]:
    """Interleave two rankings (Radlinski and Craswell 2013).

    An item speaks for the ranker that ranks it higher, and for BOTH if their ranks are equal. Lists longer than a block
    are interleaved block by block: the second ten slots from what the rankers have left behind the first ten, and so
    on, so that every block is fair by itself.
    """
    slots: list[Slot] = []
    while (block := _next_block(rankings, [slot.item for slot in slots], length)).first:
        slots += _draw(block, coins)
    return (*slots, *uncredited(rankings, slots, length))


def linear_ranks(rankings: Rankings, slots: Sequence[Slot]) -> tuple[Credits, ...]:
    """Return each slot's credit for both rankers: its item's linear ranks (equation 14), and nothing for BOTH."""
    shown = [slot.item for slot in slots]
    found: list[Credits] = []
    while (block := _next_block(rankings, shown[: len(found)], len(shown))).first:
        found += map(block.credits, shown[len(found) : len(found) + len(block.first)])
    found += [(0.0, 0.0)] * (len(slots) - len(found))
    return tuple((0.0, 0.0) if slot.team == BOTH else each for slot, each in zip(slots, found, strict=True))


def warm() -> None:
    """Import the solver, which takes about a second, before the first request needs it."""
    _solve((1, 0))


def _next_block(rankings: Rankings, shown: Sequence[int], length: int) -> Block:
    there = set(shown)
    first, second = ([item for item in ranking if item not in there] for ranking in rankings)
    size = min(BLOCK, len(first), len(second), max(length - len(shown), 0))
    return Block(tuple(first[:size]), tuple(second[:size]))


def _draw(block: Block, coins: Coins) -> list[Slot]:
    """Draw a list of the block; if none would be fair, show one ranker's own and give no credit."""
    items = list(dict.fromkeys((*block.first, *block.second)))
    found = _solve(tuple(items.index(item) for item in block.second))
    if found is None:
        return [Slot(item, BOTH) for item in (block.first, block.second)[coins.below(2)]]
    drawn = found.lists[coins.choose(found.probabilities)]
    return [Slot(items[number], _team(*block.credits(items[number]))) for number in drawn]


def _team(first: float, second: float) -> int:
    return BOTH if first == second else int(first < second)


@lru_cache(_REMEMBERED)
def _solve(second: tuple[int, ...]) -> Lists | None:
    """Return the fair probabilities of greatest expected sensitivity; None if there are no fair ones.

    The first ranker's items are 0, 1, 2 and so on, in this order. Fair is what gives a click on any one slot an
    expected credit of 0 (equation 8), which is the same as for a click on one of the first k slots at random, for
    every k.
    """
    # About a second, which routers without such experiments need not wait for.
    from scipy.optimize import linprog

    lists = _consistent(tuple(range(len(second))), second)
    gains = _differences(second)[np.array(lists)]
    objective = _sensitivity(gains) + _TIE_BREAK * (np.sqrt(np.arange(len(lists))) % 1)
    conditions = np.vstack([gains.T, np.ones(len(lists))])
    solution = linprog(-objective, A_eq=conditions, b_eq=[0.0] * len(second) + [1.0], method="highs")
    if solution.x is None:
        return None
    shown = np.flatnonzero(solution.x > _NEGLIGIBLE)
    probabilities = solution.x[shown] / fsum(solution.x[shown])
    if np.abs(probabilities @ gains[shown]).max() > _FAIR:
        return None
    return Lists(tuple(lists[number] for number in shown), tuple(probabilities.tolist()))


def _consistent(first: tuple[int, ...], second: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return every list whose each prefix is made of a prefix of both rankings (equation 5), as long as they are."""
    lists: list[tuple[int, ...]] = [()]
    for _ in first:
        lists = [
            (*prefix, item)
            for prefix in lists
            for item in dict.fromkeys(
                next(each for each in ranking if each not in prefix) for ranking in (first, second)
            )
        ]
    return lists


def _differences(second: tuple[int, ...]) -> NDArray[np.float64]:
    """Return how much more credit a click on each item gives to the first ranker than to the second."""
    first = tuple(range(len(second)))
    return np.array([_linear(first, item) - _linear(second, item) for item in range(max(*first, *second) + 1)])


def _linear(ranking: tuple[int, ...], item: int) -> float:
    return 1 - ranking.index(item) / len(ranking) if item in ranking else 0.0


def _sensitivity(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much one click tells, in bits, for each list of credit differences [lists, slots] (equations 9 to 13).

    That is the entropy of who wins, times the probability that someone does, if slot k is clicked with a probability in
    proportion to 1 / k.
    """
    clicks = 1 / np.arange(1, gains.shape[1] + 1)
    clicks /= clicks.sum()
    wins, losses = (gains > 0) @ clicks, (gains < 0) @ clicks
    return _x_log_x(wins + losses) - _x_log_x(wins) - _x_log_x(losses)


def _x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = values * np.log2(np.where(values > 0, values, 1.0))
    return result
