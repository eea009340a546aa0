"""Cuts the time since an experiment's first decision into periods: each about a sixteenth of the time that has passed.

So a burst of a minute and a test of months both have enough of them, with ends that were known in advance whenever the
result is read. Only integers are involved, so that every engine puts a decision into the same period.
"""

from typing import NamedTuple

import ibis
import ibis.expr.types as ir

_SHORTEST_MS = 250
_PARTS = 16


class Periods(NamedTuple):
    """Periods of decisions from `start_ms` to `end_ms`, the times of the first and of the last one, numbered from 0."""

    start_ms: int
    end_ms: int

    def number_of(self, decided_ms: ir.Value) -> ir.Value:
        """Return the number of the period of a decision, as an expression for the engine."""
        passed = decided_ms - self.start_ms
        cases = []
        first, width, until = 0, _SHORTEST_MS, 2 * _PARTS * _SHORTEST_MS
        while until <= self.end_ms - self.start_ms:
            cases.append((passed < until, _quotient(passed, width) + first))
            first, width, until = first + _PARTS, 2 * width, 2 * until
        last = _quotient(passed, width) + first
        return ibis.cases(*cases, else_=last) if cases else last

    def number(self, at_ms: int) -> int:
        """Return the number of the period of a moment."""
        first, width = 0, _SHORTEST_MS
        while at_ms - self.start_ms >= 2 * _PARTS * width:
            first, width = first + _PARTS, 2 * width
        return first + (at_ms - self.start_ms) // width

    def end_of(self, number: int) -> int:
        """Return when a period ends, in milliseconds since 1970: the start of the next one."""
        octave = max((number + 1) // _PARTS - 1, 0)
        return self.start_ms + (number + 1 - _PARTS * octave) * (_SHORTEST_MS << octave)


def _quotient(passed: ir.Value, width: int) -> ir.Value:
    # Engines disagree on how integers are divided, unless nothing remains.
    return ((passed - passed % width) / width).cast("int64")
