"""Draws the interleaved list of one decision."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from router.interleaving.coins import Coins
from router.interleaving.optimised import optimised
from router.interleaving.probabilistic import probabilistic
from router.interleaving.slots import BOTH, Rankings, Slot
from router.interleaving.team_draft import team_draft

Method = Literal["team_draft", "probabilistic", "optimised"]
"""How rankings are interleaved."""

_DRAW: Mapping[Method, Callable[[Rankings, int, Coins], tuple[Slot, ...]]] = MappingProxyType(
    {"team_draft": team_draft, "probabilistic": probabilistic, "optimised": optimised}
)


def interleave(method: Method, rankings: Rankings, length: int, coins: Coins) -> tuple[Slot, ...]:
    """Return a list of `length` slots, or of all candidates if they are fewer.

    ValueError for a number of rankers that the method cannot interleave: it is 2, and more for team draft alone.
    """
    check_rankers(method, len(rankings))
    return _DRAW[method](rankings, length, coins)


def check_rankers(method: Method, rankers: int) -> None:
    """Raise ValueError unless the method can interleave that many rankers."""
    most = BOTH if method == "team_draft" else 2
    if not 2 <= rankers <= most:
        wanted = "at least 2" if method == "team_draft" else "exactly 2"
        raise ValueError(f"{method} interleaves {wanted} rankers, not {rankers}")
