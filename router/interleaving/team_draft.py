"""Rankers pick in turn, as captains pick their teams."""

from collections.abc import Sequence
from itertools import islice

from router.interleaving.coins import Coins
from router.interleaving.slots import BOTH, Rankings, Slot, uncredited


def team_draft(rankings: Rankings, length: int, coins: Coins) -> tuple[Slot, ...]:
    """Interleave two rankings (Radlinski, Kurup, Joachims 2008) or more (multileaving: Schuth et al. 2014).

    The list is drafted in rounds: each ranker picks the best item that it has left, in an order drawn anew for every
    round. If all rankers want the same item at the start of a round, it is inserted once, for BOTH, and the round
    starts behind it. That is done only while the items shown so far follow from the rankings alone: two rankers show
    the same items whoever picks first, but of three, two may want one item, and then it depends on the draw what is
    left. Were shared picks told apart from then on, clicks at random would not let two rankers win equally often.
    """
    teams = len(rankings)
    slots: list[Slot] = []
    shown: set[int] = set()
    certain = True
    while len(slots) < length:
        left = [_first_left(ranking, shown, teams) for ranking in rankings]
        if not all(left):
            break
        wanted = len({items[0] for items in left})
        if certain and wanted == 1:
            picks, slots_of_round = [Slot(left[0][0], BOTH)], teams
        else:
            # With fewer items than that left, it would depend on the order who comes away empty-handed.
            slots_of_round = teams if wanted == teams else min(map(len, left))
            picks = _round(left, min(slots_of_round, length - len(slots)), coins)
            certain = certain and wanted == teams
        slots += picks
        shown.update(slot.item for slot in picks)
        if slots_of_round < teams:
            break
    return (*slots, *uncredited(rankings, slots, length))


def _round(left: list[list[int]], size: int, coins: Coins) -> list[Slot]:
    picked: dict[int, int] = {}
    for team in coins.shuffled(len(left))[:size]:
        picked[next(item for item in left[team] if item not in picked)] = team
    return [Slot(item, team) for item, team in picked.items()]


def _first_left(ranking: Sequence[int], shown: set[int], count: int) -> list[int]:
    return list(islice((item for item in ranking if item not in shown), count))
