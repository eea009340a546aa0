"""Stickiness: the first assignment of a unit wins over every later draw."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

from router.ledger.records import AssignmentRow
from router.serving.assign import Assignment

REMEMBERED = 100_000
"""How many assignments a process keeps in memory, the latest used; about 30 MB."""


class AssignmentStore(Protocol):
    """What keeps first assignments for good: the ledger's writer."""

    async def assign(self, row: AssignmentRow) -> AssignmentRow:
        """Store a unit's first assignment durably and return the one that stands."""


class _First(NamedTuple):
    epoch: int
    number: int
    slots: int


class StickyAssignments:
    """First assignments, in memory or else in the ledger; they never change, so memory cannot be stale."""

    def __init__(self, store: AssignmentStore, clock: Callable[[], int], *, remembered: int = REMEMBERED) -> None:
        self._store = store
        self._clock = clock
        self._remembered = remembered
        self._memory: OrderedDict[tuple[int, str], _First] = OrderedDict()

    async def first(self, drawn: Assignment, unit: str) -> Assignment:
        """Return the unit's first assignment in the experiment: an earlier one, or `drawn`, which is durable then."""
        key = (drawn.experiment.id, unit)
        known = self._memory.get(key)
        if known is not None:
            self._memory.move_to_end(key)
            return Assignment(drawn.experiment, *known)
        row = AssignmentRow(*key, drawn.epoch, drawn.number, drawn.slots, self._clock())
        standing = await self._store.assign(row)
        first = _First(standing.epoch, standing.arm, standing.slots)
        # What comes back untouched was only spooled: the database, once it is back, may know an earlier assignment.
        if standing is not row:
            self._remember(key, first)
        return Assignment(drawn.experiment, *first)

    def _remember(self, key: tuple[int, str], first: _First) -> None:
        self._memory[key] = first
        if len(self._memory) > self._remembered:
            self._memory.popitem(last=False)
