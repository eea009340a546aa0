"""Reading again what has been counted already: outcomes with their decisions, a range of minutes at a time."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import Connection, select

from router.ledger import schema
from router.ledger.contributions import Stated
from router.ledger.decided import Decided, read_predictions
from router.ledger.records import Item, decided_ms
from router.ledger.statistics import MS_PER_MINUTE

_TIME_BYTES = 6
_CHUNK = 1000


class Range(NamedTuple):
    """Decisions of an experiment that were made in these minutes, the last one excluded, and an outcome's name."""

    experiment_id: int
    outcome: str
    first: int
    end: int


class Counted(NamedTuple):
    """What is counted of an item."""

    about: Item
    arm: int
    decided: Decided
    statements: dict[tuple[str, int], Stated]


def read_counted(connection: Connection, wanted: Range) -> Iterator[Counted]:
    """Yield what is counted of the decisions of a range, by item, in the order of the decisions."""
    table, decisions = schema.outcomes, schema.decisions
    start, end = ((minute * MS_PER_MINUTE).to_bytes(_TIME_BYTES) for minute in wanted[2:])
    said = (*Item._fields, "arm", "outcome_id", "version", *Stated._fields)
    query = (
        select(*(table.c[name] for name in said), *(decisions.c[name] for name in Decided._fields))
        .join(decisions, decisions.c.id == table.c.decision_id)
        .where(
            table.c.decision_id >= start,
            table.c.decision_id < end,
            table.c.experiment_id == wanted.experiment_id,
            table.c.metric == wanted.outcome,
            table.c.counted,
        )
        .order_by(table.c.decision_id, table.c.item)
        .execution_options(yield_per=_CHUNK)
    )
    for about, rows in groupby(connection.execute(query), key=itemgetter(0, 1, 2)):
        statements: dict[tuple[str, int], Stated] = {}
        for row in rows:
            statements[row[4], row[5]] = Stated(*row[6 : 6 + len(Stated._fields)])
        predictions, *others = row[6 + len(Stated._fields) :]
        yield Counted(Item(*about), row[3], Decided(read_predictions(predictions), *others), statements)


def first_minute(connection: Connection) -> int | None:
    """Return the minute of the oldest decision: what older ones left behind, when their month was dropped, stays."""
    # PostgreSQL has no minimum of bytes.
    first = connection.scalar(select(schema.decisions.c.id).order_by(schema.decisions.c.id).limit(1))
    return decided_ms(first) // MS_PER_MINUTE if isinstance(first, bytes) else None
