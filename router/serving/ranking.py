"""From scores to lists: in the order of one model's scores, or mixed from the rankings of several."""

from collections.abc import Sequence
from typing import NamedTuple

from router.documents import Interleave
from router.interleaving.coins import Coins
from router.interleaving.credit import slot_credits
from router.interleaving.draw import interleave
from router.ledger.decided import Draw


class Listed(NamedTuple):
    """The candidates to show, best first, by their index in the request, and how several rankings were mixed."""

    shown: Sequence[int]
    draw: Draw | None = None


def ranking(scores: Sequence[float]) -> list[int]:
    """Return the candidates' indices, highest score first; of equal ones the earlier candidate comes first."""
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def ranked(scores: Sequence[float], length: int | None) -> Listed:
    """Return the best candidates of one model, or all of them."""
    return Listed(ranking(scores)[:length])


def mixed(
    interleaving: Interleave, seed: str, value: str, scores: Sequence[Sequence[float]], length: int | None
) -> Listed:
    """Return a list that mixes the rankings of all arms; `scores` are [arms, candidates].

    The same seed (the experiment's name) and value (the unit, or the decision's nonce in hexadecimal) give the same
    list, here and wherever the log is verified.
    """
    most = min(interleaving.length, len(scores[0]), length or interleaving.length)
    rankings = [ranking(each) for each in scores]
    slots = interleave(interleaving.method, rankings, most, Coins(seed, value))
    credits_ = slot_credits(interleaving.method, rankings, slots)
    draw = Draw(tuple(map(tuple, scores)), tuple(slot.team for slot in slots), credits_)
    return Listed([slot.item for slot in slots], draw)
