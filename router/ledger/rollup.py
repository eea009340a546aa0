"""Old minutes of the statistics become hours, and old hours days: a year of traffic stays a few thousand rows.

A row is added up once it is twelve times as old as the row that it becomes part of is long. So how much it counts by
its age, and when the window of its last decision closes, hardly changes.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select, text

from router.ledger import schema
from router.ledger.database import is_postgresql, transaction
from router.ledger.regressions import Sums, add_regressions, read_sums
from router.ledger.statements import lock_outcomes
from router.ledger.statistics import MS_PER_MINUTE, Statistic

TEN, HOUR, DAY = 10, 60, 1440
"""In minutes."""


class Step(NamedTuple):
    """Rows of `before` minutes that are older than `after` minutes become rows of `span` minutes."""

    before: int
    span: int
    after: int


STEPS = (Step(1, TEN, 12 * TEN), Step(TEN, HOUR, 12 * HOUR), Step(HOUR, DAY, 12 * DAY))


def roll_up(engine: Engine, now_ms: int) -> None:
    """Add up what is old enough; a late outcome opens a minute anew, which the next call adds to its hour."""
    now = now_ms // MS_PER_MINUTE
    for step in STEPS:
        oldest_kept = (now - step.after) // step.span * step.span
        with transaction(engine) as connection:
            lock_outcomes(connection)
            for statement in _statements(connection, step):
                connection.execute(text(statement), {"before": step.before, "end": oldest_kept})
            _roll_up_regressions(connection, step, oldest_kept)


def _statements(connection: Connection, step: Step) -> Iterator[str]:
    start = f"minute - minute % {step.span}"
    keys = "experiment_id, arm, metric"
    old = "span = :before and minute < :end"
    key = f"{keys}, minute, span, shard"
    columns = f"{key}, count, sum, sum_squares"
    sums = "sum(count), sum(sum), sum(sum_squares)"
    added = ", ".join(f"{name} = statistics.{name} + excluded.{name}" for name in ("count", "sum", "sum_squares"))
    insert = f"insert into statistics ({columns}) select {keys}, {start}, {step.span}, 0, {sums} from"
    group = f"group by {keys}, {start} on conflict (experiment_id, arm, metric, minute, span, shard) do update set"
    if is_postgresql(connection):
        # At once: what another process adds to a minute meanwhile is either moved with it or opens it anew. What is
        # locked stays until the next call: its holder may be about to wait for the lock of the outcomes.
        yield (
            f"with free as (select {key} from statistics where {old} for update skip locked), "  # noqa: S608
            f"moved as (delete from statistics where ({key}) in (select {key} from free) returning *) "
            f"{insert} moved {group} {added}"
        )
    else:
        yield f"{insert} statistics where {old} {group} {added}"
        yield f"delete from statistics where {old}"  # noqa: S608 (our own names)


def _roll_up_regressions(connection: Connection, step: Step, end: int) -> None:
    """Only whoever holds the lock of the outcomes writes these."""
    table = schema.regressions
    old = (table.c.span == step.before, table.c.minute < end)
    keys = (table.c.experiment_id, table.c.arm, table.c.metric)
    changes: dict[Statistic, Sums] = {}
    query = select(*keys, table.c.minute, table.c.count, table.c.sums).where(*old)
    for experiment_id, arm, metric, minute, count, sums in connection.execute(query):
        key = Statistic(experiment_id, arm, metric, minute - minute % step.span)
        added = read_sums(count, sums)
        changes[key] = changes[key] + added if key in changes else added
    connection.execute(table.delete().where(*old))
    add_regressions(connection, changes, step.span)
