"""Cuts the time since an experiment's first decision into periods that are short beside the time that has passed.

Between a sixteenth and a sixty-fourth of it: so a burst of a minute and a test of months both have enough periods, with
ends that were known in advance whenever the result is read. Only integers are involved, so that every engine puts a
decision into the same period.
"""

from collections.abc import Iterator
from typing import NamedTuple

import ibis
import ibis.expr.types as ir

_SHORTEST_MS = 250
_LEVEL = 64
"""Periods of one width, after which the next ones are four times as wide, and the first of those 16 are in the past."""
_WIDER = 4


class Periods(NamedTuple):
    """Periods of decisions from `start_ms` to `end_ms`, the times of the first and of the last one, numbered from 0."""

    start_ms: int
    end_ms: int

    def number_of(self, decided_ms: ir.Value) -> ir.Value:
        """Return the number of the period of a decision, as an expression for the engine."""
        passed = decided_ms - self.start_ms
        *narrower, (first, widest) = self._levels()
        if not narrower:
            return _quotient(passed, ibis.literal(widest)) + first
        ends = [passed < _LEVEL * width for _, width in narrower]
        width = ibis.cases(*zip(ends, (width for _, width in narrower), strict=True), else_=widest)
        skipped = ibis.cases(*zip(ends, (first for first, _ in narrower), strict=True), else_=first)
        return _quotient(passed, width) + skipped

    def number(self, at_ms: int) -> int:
        """Return the number of the period of a moment."""
        passed = at_ms - self.start_ms
        first, width = next(level for level in _levels() if passed < _LEVEL * level[1])
        return first + passed // width

    def end_of(self, number: int) -> int:
        """Return when a period ends, in milliseconds since 1970: the start of the next one."""
        first, width = next(level for level in _levels() if number < level[0] + _LEVEL)
        return self.start_ms + (number + 1 - first) * width

    def _levels(self) -> list[tuple[int, int]]:
        levels = []
        for first, width in _levels():
            levels.append((first, width))
            if self.end_ms - self.start_ms < _LEVEL * width:
                break
        return levels


def _levels() -> Iterator[tuple[int, int]]:
    """Yield the width of each level, and what its quotients lack to the number of the period."""
    first, width = 0, _SHORTEST_MS
    while True:
        yield first, width
        first, width = first + _LEVEL - _LEVEL // _WIDER, _WIDER * width


def _quotient(passed: ir.Value, width: ir.Value) -> ir.Value:
    # Engines disagree on how integers are divided, unless nothing remains.
    return ((passed - passed % width) / width).cast("int64")
