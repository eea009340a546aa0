"""Adding up anew what a blunder left of a statistic.

A sum of sixteen digits that had a huge value added to it has lost the digits of the small ones, and taking that value
away again does not bring them back.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, func, select

from router.allocation.contextual import encode as encode_context
from router.documents import BinaryMetric
from router.ledger import schema
from router.ledger.contributions import NOTHING, Fold, Moments, contribution
from router.ledger.counted import Counted, Range, read_counted
from router.ledger.decided import context_of, credited_arms
from router.ledger.records import decided_ms
from router.ledger.regressions import Sums, add_regressions, sums_of
from router.ledger.rollup import STEPS
from router.ledger.statistics import OUTCOMES_SHARD, Statistic, add_statistics

LOSS = 1e6
"""Where the square of what is taken away is so many times what is left of all squares, ten digits are good at most."""


class Taken(NamedTuple):
    """The square of a value that a statistic no longer has, the outcome that it came from, and how that feeds it."""

    squares: float
    outcome: str
    fold: Fold


def note_taken(taken: MutableMapping[Statistic, Taken], statistic: Statistic, one: Taken) -> None:
    """Keep the largest value that is taken from each statistic; values of 0 and 1 cannot hide each other."""
    known = taken.get(statistic)
    if one.squares > (0.0 if known is None else known.squares) and not isinstance(one.fold.metric, BinaryMetric):
        taken[statistic] = one


def restore(connection: Connection, taken: Mapping[Statistic, Taken]) -> None:
    """Add up those statistics again that have lost digits; the caller holds the lock of the outcomes.

    It reads the outcomes of a minute, or of the hour or day that the minute is part of by now.
    """
    read: dict[Range, Sequence[Counted]] = {}
    for statistic, one in sorted(taken.items(), key=lambda each: each[0]):
        span = _longest_span(connection, statistic)
        first = statistic._replace(minute=statistic.minute - statistic.minute % span)
        left = _left(connection, first, span)
        # Neither is true of what is no number.
        if one.squares <= LOSS * abs(left.squares) or (left == NOTHING and not one.fold.features):
            continue
        wanted = Range(first.experiment_id, one.outcome, first.minute, first.minute + span)
        if left.n and wanted not in read:
            read[wanted] = list(read_counted(connection, wanted))
        _replace(connection, first, span, *_added(first, one.fold, read[wanted] if left.n else ()))


def _added(first: Statistic, fold: Fold, items: Iterable[Counted]) -> tuple[Moments, Sums | None]:
    """Return what the items add to a statistic and to its regressions."""
    moments, sums = NOTHING, None
    for about, arm, decided, statements in items:
        credit = credited_arms(arm, about.item, decided).get(first.arm)
        if credit is None:
            continue
        prediction, made_ms = decided.prediction(about.item), decided_ms(about.decision_id)
        added = contribution(fold.metric, statements, prediction, made_ms).scaled(credit)
        moments += added
        if fold.features:
            row = sums_of(encode_context(fold.features, context_of(decided)), *added)
            sums = row if sums is None else sums + row
    return moments, sums


def _replace(connection: Connection, first: Statistic, span: int, moments: Moments, sums: Sums | None) -> None:
    for table in (schema.statistics, schema.regressions):
        connection.execute(table.delete().where(*_within(table, first, span)))
    add_statistics(connection, {first: moments}, OUTCOMES_SHARD, span)
    if sums is not None:
        add_regressions(connection, {first: sums}, span)


def _longest_span(connection: Connection, statistic: Statistic) -> int:
    """Return how many minutes long the longest row is that the statistic's minute is part of."""
    table, minute = schema.statistics, statistic.minute
    starts = {(minute - minute % step.span, step.span) for step in STEPS}
    query = select(table.c.minute, table.c.span).where(
        *_of(table, statistic), table.c.minute.in_(sorted(start for start, _ in starts)), table.c.span > 1
    )
    return max((span for start, span in connection.execute(query) if (start, span) in starts), default=1)


def _left(connection: Connection, first: Statistic, span: int) -> Moments:
    table = schema.statistics
    sums = (func.coalesce(func.sum(table.c[name]), 0) for name in ("count", "sum", "sum_squares"))
    count, total, squares = connection.execute(select(*sums).where(*_within(table, first, span))).one()
    return Moments(int(count), float(total), float(squares))


def _of(table: Table, statistic: Statistic) -> tuple[Any, ...]:
    return tuple(table.c[name] == getattr(statistic, name) for name in ("experiment_id", "arm", "metric"))


def _within(table: Table, first: Statistic, span: int) -> tuple[Any, ...]:
    return (*_of(table, first), table.c.minute >= first.minute, table.c.minute < first.minute + span)
