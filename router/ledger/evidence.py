"""Additive evidence: sums of values and weights by groups of units, which is all that a verdict needs of the past.

A row belongs to an arm and a statistic. Where a metric has a default, its decisions count when their windows have
closed; rows then belong to the minute of the decision until that is past, and to minute 0 from then on.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, compress
from typing import NamedTuple

import msgspec
import numpy as np
from sqlalchemy import ColumnElement, Connection, bindparam, delete, select

from analysis.statistics.unit_groups import Sums, group_of, sums_of_each
from router.documents import AnyMetric, Experiment
from router.ledger import schema
from router.ledger.contributions import Moments
from router.ledger.records import DecisionRow
from router.ledger.statements import insert_missing, replace, select_for_update
from router.ledger.statistics import OUTCOMES_SHARD, Statistic

FAILED = "decisions/failed"
"""Decisions that the champion answered because their arm did not; the value is 1."""

SLOW = "decisions/slow"
"""Decisions whose arm took longer than the experiment's `slow_ms`; the value is 1."""

BEFORE = "decisions/before"
"""Marks an experiment that had decisions before there was evidence: what they add is missing."""

ANY_MINUTE = 0
"""The minute of what counts at once, or whose windows have closed."""

_FLOATS = "<f8"

ArmSums = Mapping[tuple[int, str], Sums]
"""Sums by arm and statistic."""

Reading = Mapping[str, ArmSums]
"""The same by metric, each with the decisions that count for it."""


class Key(NamedTuple):
    """Whose values a row adds up."""

    experiment_id: int
    arm: int
    metric: str
    minute: int


class Whose(NamedTuple):
    """The same, in all minutes together."""

    experiment_id: int
    arm: int
    metric: str


Row = tuple[int, float, float, float, float]
"""One decision's addition: its group of units and weight, and so many values with this total and sum of squares."""


class Evidence:
    """Collects what a transaction adds."""

    def __init__(self) -> None:
        self._rows: dict[Key, list[Row]] = defaultdict(list)

    def decided(
        self,
        experiment: Experiment,
        drawn: Statistic,
        rows: Sequence[DecisionRow],
        items: Sequence[int],
        weight: float,
    ) -> None:
        """Add decisions of one arm and minute, whatever comes of them, and which of them failed or were slow.

        `drawn` is the statistic that counts their `items`, and `weight` what each of them counts.
        """
        counting = self._rows[Key(*drawn) if longest_window_s(experiment) else Key(*drawn[:3], ANY_MINUTE)]
        groups = [group_of(row.unit) for row in rows]
        counting.extend([(group, weight, 1, n, n * n) for group, n in zip(groups, items, strict=True)])
        for metric, events in (
            (FAILED, [row.fallback is not None for row in rows]),
            (SLOW, [is_slow(experiment, row.latency_ms) for row in rows]),
        ):
            if any(events):
                key = Key(*drawn[:2], metric, ANY_MINUTE)
                self._rows[key].extend((group, weight, 1, 1, 1) for group in compress(groups, events))

    def observed(self, statistic: Statistic, metric: AnyMetric, unit: str, weight: float, changed: Moments) -> None:
        """Add what outcomes changed in a statistic."""
        key = Key(*statistic) if has_default(metric) else Key(*statistic[:3], ANY_MINUTE)
        self._rows[key].append((group_of(unit), weight, *changed))

    def sums(self) -> dict[Key, Sums]:
        """Return what was added, by key."""
        if not self._rows:
            return {}
        every = self._rows.values()
        columns = zip(*chain.from_iterable(every), strict=True)
        return dict(zip(self._rows, sums_of_each([len(rows) for rows in every], *columns), strict=True))


def is_slow(experiment: Experiment, latency_ms: float | None) -> bool:
    """Return whether an arm took longer than the experiment says."""
    return bool(experiment.slow_ms and latency_ms and latency_ms > experiment.slow_ms)


def longest_window_s(experiment: Experiment) -> int:
    """Return how long after a decision its last default is due; 0 where no metric has a default."""
    return max((metric.window_s for metric in experiment.metrics if has_default(metric)), default=0)


def has_default(metric: object) -> bool:
    """Return whether decisions that nothing came of count too."""
    return getattr(metric, "default", None) is not None


def add_evidence(connection: Connection, changes: Mapping[Key, Sums], shard: int) -> None:
    """Add to the sums, in one order everywhere, so that two transactions never wait for each other."""
    keys = sorted(key for key, sums in changes.items() if sums.vector.any())
    if not keys:
        return
    stored = _locked(connection, keys, shard)
    rows = [(*key, shard, _written(Sums(stored[key].vector + changes[key].vector))) for key in keys]
    replace(connection, schema.evidence, rows)


def read_evidence(
    connection: Connection, experiment_id: int, metrics: Collection[str], before_minute: int
) -> dict[tuple[int, str], Sums]:
    """Return the sums of some statistics of an experiment, of decisions before a minute, by arm and statistic."""
    table = schema.evidence
    query = select(table.c.arm, table.c.metric, table.c.sums).where(
        table.c.experiment_id == experiment_id, table.c.metric.in_(sorted(metrics)), table.c.minute < before_minute
    )
    found: dict[tuple[int, str], Sums] = defaultdict(Sums)
    for arm, metric, sums in connection.execute(query):
        found[arm, metric] = found[arm, metric] + read_evidence_sums(sums)
    return found


def read_rows(connection: Connection, whose: Whose) -> list[tuple[int, Sums]]:
    """Return the rows of an arm and a statistic, with the minute of each."""
    table = schema.evidence
    query = select(table.c.minute, table.c.sums).where(*_of(whose))
    return [(minute, read_evidence_sums(sums)) for minute, sums in connection.execute(query)]


def remove_rows(connection: Connection, owners: Iterable[Whose]) -> None:
    """Remove the rows of arms and statistics."""
    for whose in owners:
        connection.execute(delete(schema.evidence).where(*_of(whose)))


def close_minutes(connection: Connection, experiment_id: int, before_minute: int) -> None:
    """Add minutes whose windows have all closed to what counts anyway; the caller holds the lock of the outcomes.

    What is locked stays until the next call: its holder may be about to wait for the lock of the outcomes.
    """
    table = schema.evidence
    keys = ("arm", "metric", "minute", "shard")
    query = (
        select(*(table.c[name] for name in keys), table.c.sums)
        .where(
            table.c.experiment_id == experiment_id,
            table.c.minute > ANY_MINUTE,
            table.c.minute < before_minute,
        )
        .with_for_update(skip_locked=True)
    )
    changes: dict[Key, Sums] = defaultdict(Sums)
    closed = []
    for *row, sums in connection.execute(query):
        key = Key(experiment_id, row[0], row[1], ANY_MINUTE)
        changes[key] = changes[key] + read_evidence_sums(sums)
        closed.append({f"old_{name}": value for name, value in zip(keys, row, strict=True)})
    if closed:
        # These alone: a decision that another process counts meanwhile opens its minute anew.
        old = (table.c[name] == bindparam(f"old_{name}") for name in keys)
        connection.execute(delete(table).where(table.c.experiment_id == experiment_id, *old), closed)
        add_evidence(connection, changes, OUTCOMES_SHARD)


def read_evidence_sums(content: bytes) -> Sums:
    """Return the sums that a row holds."""
    return Sums(np.frombuffer(content, _FLOATS).astype(np.float64))


def dump_reading(reading: Reading) -> bytes:
    """Return a reading as bytes, to be kept."""
    rows = [
        (name, arm, statistic, _written(sums))
        for name, every in reading.items()
        for (arm, statistic), sums in every.items()
    ]
    return msgspec.msgpack.encode(rows)


def load_reading(content: bytes) -> Reading:
    """Return the reading that was kept."""
    found: dict[str, dict[tuple[int, str], Sums]] = defaultdict(dict)
    for name, arm, statistic, sums in msgspec.msgpack.decode(content, type=list[tuple[str, int, str, bytes]]):
        found[name][arm, statistic] = read_evidence_sums(sums)
    return found


def _of(whose: Whose) -> tuple[ColumnElement[bool], ...]:
    return tuple(schema.evidence.c[name] == value for name, value in whose._asdict().items())


def _locked(connection: Connection, keys: Sequence[Key], shard: int) -> dict[Key, Sums]:
    """Return the sums of these keys, which nobody else writes until the transaction ends.

    They have to be there before they can be locked, since two processes may share a shard; in between, a minute may be
    closed.
    """
    empty = _written(Sums())
    found = _stored(connection, keys, shard)
    while missing := [key for key in keys if key not in found]:
        insert_missing(connection, schema.evidence, [(*key, shard, empty) for key in missing])
        found |= _stored(connection, missing, shard)
    return found


def _stored(connection: Connection, keys: Sequence[Key], shard: int) -> dict[Key, Sums]:
    found: dict[Key, Sums] = {}
    for experiment_id, minute in sorted({(key.experiment_id, key.minute) for key in keys}):
        rows = select_for_update(connection, schema.evidence, experiment_id=experiment_id, minute=minute, shard=shard)
        found |= {Key(*row[:4]): read_evidence_sums(row[-1]) for row in rows}
    return found


def _written(sums: Sums) -> bytes:
    return sums.vector.astype(_FLOATS).tobytes()
