"""Rankers as distributions: every slot is a draw from one of them, whichever a coin says."""

from collections.abc import Collection, Sequence
from math import fsum

from router.interleaving.coins import Coins
from router.interleaving.slots import Rankings, Slot, uncredited

Credits = tuple[float, ...]
"""For each ranker, how much of a click on one slot is its merit."""


def probabilistic(rankings: Rankings, length: int, coins: Coins) -> tuple[Slot, ...]:
    """Interleave two rankings (Hofmann, Whiteson, de Rijke 2011).

    For every slot a fair coin says which ranker it is drawn from: its item at rank r with a probability in proportion
    to 1 / r^3, among those not shown yet.
    """
    left = [_weighted(ranking) for ranking in rankings]
    slots: list[Slot] = []
    while len(slots) < length and all(left):
        team = coins.below(2)
        item = list(left[team])[coins.choose(list(left[team].values()))]
        for weights in left:
            weights.pop(item, None)
        slots.append(Slot(item, team))
    return (*slots, *uncredited(rankings, slots, length))


def posterior(rankings: Rankings, shown: Sequence[int]) -> tuple[Credits, ...]:
    """Return for each slot the probability that its item was drawn from the first ranker, and from the second.

    It is exact, and independent from slot to slot, because the coins are. Slots without a draw have (0, 0).
    """
    first, second = map(_weighted, rankings)
    found: list[Credits] = []
    for item in shown:
        if not (first and second):
            break
        ours = first.get(item, 0.0) / fsum(first.values())
        theirs = second.get(item, 0.0) / fsum(second.values())
        found.append((ours / (ours + theirs), theirs / (ours + theirs)))
        first.pop(item, None)
        second.pop(item, None)
    return (*found, *((0.0, 0.0) for _ in shown[len(found) :]))


def marginal_credit(rankings: Rankings, shown: Sequence[int], clicks: Collection[int]) -> tuple[float, float]:
    """Return how many of the clicked items each of two rankers is expected to have drawn, over all assignments.

    `shown` are the items of the list, `clicks` those that were clicked. It is the exact sum over the 2^n ways in
    which n slots may have been assigned, each as probable as it is given the list.
    """
    clicked = [each for item, each in zip(shown, posterior(rankings, shown), strict=True) if item in clicks]
    return fsum(first for first, _ in clicked), fsum(second for _, second in clicked)


def _weighted(ranking: Sequence[int]) -> dict[int, float]:
    return {item: 1.0 / rank**3 for rank, item in enumerate(ranking, 1)}
