"""What an interleaved list consists of."""

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import NamedTuple

Rankings = Sequence[Sequence[int]]
"""For each ranker the indices of candidates, best first, none twice; all candidates, or only the best."""

BOTH = 254
"""The team of an item that speaks for no ranker: nobody gets credit for it."""


class Slot(NamedTuple):
    """One place in the list: the candidate's index, and the number of the ranker that it speaks for, or BOTH."""

    item: int
    team: int


def uncredited(rankings: Rankings, slots: Sequence[Slot], length: int) -> list[Slot]:
    """Return what fills the list up to `length` once a ranker has nothing left to pick: no ranker gets credit for it.

    The other rankers could pick on, but would get clicks that the exhausted one has no chance of.
    """
    missing = max(length - len(slots), 0)
    return [Slot(item, BOTH) for item in islice(_by_rank(rankings, {slot.item for slot in slots}), missing)]


def _by_rank(rankings: Rankings, shown: set[int]) -> Iterator[int]:
    """Yield what is not shown by its best rank in any ranking; ties go to the earlier ranker."""
    for rank in zip_longest(*rankings):
        for item in rank:
            if item is not None and item not in shown:
                shown.add(item)
                yield item
