"""Whether the statistics are what the outcomes add up to, a minute of decisions at a time."""

import math
from collections.abc import Mapping
from itertools import chain, groupby
from typing import NamedTuple

from sqlalchemy import Connection, Table, select

from router.ledger import schema
from router.ledger.contributions import ITEMS, NOTHING, Moments
from router.ledger.counted import first_minute
from router.verification.findings import Findings
from router.verification.reading import INTEGER, NUMBER, TEXT, Kinds, of_experiment, stream

TOLERANCE = 1e-9
"""How far sums may be off, relative to what was ever added to them: corrections leave a residue of rounding."""

_KINDS: Kinds = {
    "minute": INTEGER,
    "experiment_id": INTEGER,
    "arm": INTEGER,
    "metric": TEXT,
    "span": INTEGER,
    "shard": INTEGER,
    "count": INTEGER,
    "sum": NUMBER,
    "sum_squares": NUMBER,
}


class Statistic(NamedTuple):
    """A statistic of one minute of decisions, or of the hour or day that it was added up to, all shards together."""

    minute: int
    experiment_id: int
    arm: int
    metric: str

    def __str__(self) -> str:
        return f"of experiment {self.experiment_id} arm {self.arm} metric {self.metric} minute {self.minute}"


class _Sums:
    """What outcomes add up to, and how large the numbers were on the way."""

    __slots__ = ("n", "scale", "squared_scale", "squares", "total")

    def __init__(self) -> None:
        self.n, self.total, self.squares, self.scale, self.squared_scale = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, moments: Moments, scale: float) -> None:
        self.n += moments.n
        self.total += moments.total
        self.squares += moments.squares
        self.scale += scale
        self.squared_scale += scale * scale

    def agree(self, stored: Moments) -> bool:
        return (
            self.n == stored.n
            and abs(self.total - stored.total) <= TOLERANCE * self.scale
            and abs(self.squares - stored.squares) <= TOLERANCE * self.squared_scale
        )


class Spans:
    """Which minutes have been added up to hours or days: they can be compared only so."""

    def __init__(self, connection: Connection, table: Table) -> None:
        query = select(table.c.minute, table.c.span).where(table.c.span > 1).distinct()
        known = {(minute, span) for minute, span in connection.execute(query)}
        self._spans = sorted({span for _, span in known}, reverse=True)
        self._known = known

    def start(self, minute: int) -> int:
        """Return the minute with which the longest span that holds this minute begins."""
        for span in self._spans:
            if (first := minute - minute % span) != minute and (first, span) in self._known:
                return int(first)
        return minute


class Statistics:
    """Adds outcomes up again, in the order of their decisions, and compares each minute once it is complete.

    `decided` is how many items the decisions of a minute had, which need not be added up in any order.
    """

    def __init__(
        self,
        connection: Connection,
        findings: Findings,
        decided: Mapping[Statistic, Moments],
        only: int | None = None,
    ) -> None:
        self._spans = Spans(connection, schema.statistics)
        first = oldest_minute(connection)
        self._first = self._spans.start(int(first)) if first < math.inf else first
        self._decided: dict[Statistic, Moments] = {}
        for statistic, moments in decided.items():
            key = statistic._replace(minute=self._spans.start(statistic.minute))
            self._decided[key] = self._decided.get(key, NOTHING) + moments
        self._decided_stored: dict[Statistic, Moments] = {}
        statement = f"select {', '.join(_KINDS)} from statistics{of_experiment(only, 'statistics')} order by minute"  # noqa: S608
        chunks = findings.sound("statistics", stream(connection, statement), _KINDS, lambda row: str(row[:6]))
        self._minutes = groupby(chain.from_iterable(chunks), key=lambda row: self._spans.start(row[0]))
        self._stored = self._next_stored()
        self._rebuilt: dict[Statistic, _Sums] = {}
        self._minute = -1
        self._findings = findings
        self.forgotten: set[int] = set()
        """Experiments that had decisions which the ledger has no longer; known once all have been compared."""

    def add(self, statistic: Statistic, moments: Moments, scale: float) -> None:
        """Add what an item contributes; `scale` is how much was ever added or taken away on its behalf."""
        statistic = statistic._replace(minute=self._spans.start(statistic.minute))
        if statistic.minute != self._minute:
            self._compare_until(statistic.minute)
            self._minute = statistic.minute
        self._rebuilt.setdefault(statistic, _Sums()).add(moments, scale)

    def complete(self) -> None:
        """Compare all that is left."""
        self._compare_until(math.inf)
        for statistic in sorted({*self._decided, *self._decided_stored}):
            found, there = self._decided.get(statistic, NOTHING), self._decided_stored.get(statistic, NOTHING)
            if found != there:
                self._findings.fail("statistics", str(statistic), "sums", _shown(found), _shown(there))

    def _compare_until(self, before: float) -> None:
        """Compare every minute before this one."""
        while self._stored is not None and self._stored[0] < before:
            minute, stored = self._stored
            if minute > self._minute:
                self._compare_rebuilt({})
            if minute < self._first and not (minute == self._minute and self._rebuilt):
                self._findings.older += len(stored)
                self.forgotten |= {statistic.experiment_id for statistic in stored}
            elif minute == self._minute:
                self._compare_rebuilt(stored)
            else:
                self._compare(stored, {})
            self._stored = self._next_stored()
        self._compare_rebuilt({})

    def _next_stored(self) -> tuple[int, dict[Statistic, Moments]] | None:
        minute, rows = next(self._minutes, (0, None))
        if rows is None:
            return None
        stored: dict[Statistic, Moments] = {}
        for row in rows:
            statistic = Statistic(minute, *row[1:4])
            mine = self._decided_stored if statistic.metric == ITEMS and minute >= self._first else stored
            mine[statistic] = mine.get(statistic, NOTHING) + row[6:]
        return minute, stored

    def _compare_rebuilt(self, stored: Mapping[Statistic, Moments]) -> None:
        self._compare(stored, self._rebuilt)
        self._rebuilt = {}

    def _compare(self, stored: Mapping[Statistic, Moments], rebuilt: Mapping[Statistic, _Sums]) -> None:
        for statistic in sorted({*stored, *rebuilt}):
            sums, there = rebuilt.get(statistic, _Sums()), stored.get(statistic, NOTHING)
            # A row of zeros, which a retraction leaves, says what no row says.
            if not sums.agree(there):
                expected = _shown(Moments(sums.n, sums.total, sums.squares))
                self._findings.fail("statistics", str(statistic), "sums", expected, _shown(there))


def oldest_minute(connection: Connection) -> float:
    """Return the minute of the oldest decision that the ledger still has; of none, that is never."""
    first = first_minute(connection)
    return math.inf if first is None else first


def _shown(moments: Moments) -> str:
    return f"count {moments.n}, sum {moments.total:.12g}, sum of squares {moments.squares:.12g}"
