"""Whose merit the clicks on an interleaved list are."""

from collections.abc import Collection, Sequence
from math import fsum

from router.interleaving.draw import Method, check_rankers
from router.interleaving.optimised import Credits, linear_ranks
from router.interleaving.probabilistic import posterior
from router.interleaving.slots import BOTH, Rankings, Slot


def slot_credits(method: Method, rankings: Rankings, slots: Sequence[Slot]) -> tuple[Credits, ...]:
    """Return for each slot what a click on it gives to each ranker; (0, .., 0) for a slot of BOTH.

    Team draft: 1 for the slot's own team. Probabilistic: the probability that the slot was drawn from that ranker,
    given the list. Optimised: the item's linear rank with that ranker, from 1 for its best item down to 0.
    """
    check_rankers(method, len(rankings))
    if method == "probabilistic":
        return posterior(rankings, [slot.item for slot in slots])
    if method == "optimised":
        return linear_ranks(rankings, slots)
    return tuple(tuple(float(slot.team == team) for team in range(len(rankings))) for slot in slots)


def credit(method: Method, rankings: Rankings, slots: Sequence[Slot], clicked: Collection[int]) -> Credits:
    """Return the credit of each ranker from the candidates that were clicked in one impression.

    Only its mean over impressions is fair with every method: of the probabilistic and the optimised one the sign of the
    difference is not (see `analysis.statistics.interleaving.preferences`).
    """
    given = slot_credits(method, rankings, slots)
    earned = [each for slot, each in zip(slots, given, strict=True) if slot.item in clicked]
    return tuple(fsum(each[team] for each in earned) for team in range(len(rankings)))


def comparable(slots: Sequence[Slot], rankers: int) -> tuple[bool, ...]:
    """Return which rankers the impression compares: of more than two, those with a slot (Schuth et al. 2014).

    Of two rankers it is always both: an impression in which neither has a slot of its own is a tie.
    """
    teams = {slot.team for slot in slots} - {BOTH}
    return tuple(rankers == 2 or team in teams for team in range(rankers))
