"""Inserting decisions with few statements, because every statement costs a fight for the interpreter lock."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, groupby
from operator import itemgetter
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects.sqlite import insert

from router.ledger import schema
from router.ledger.records import DecisionRow

Row = TypeVar("Row")


class Claim(NamedTuple):
    """A client's idempotency key and the decision that was made for it just now."""

    endpoint: str
    key: str
    decision_id: bytes


_LARGEST_CHUNK = 64


def insert_decisions(connection: Connection, rows: Sequence[DecisionRow]) -> None:
    """Insert the rows, 64 to a statement.

    One statement of many rows releases and retakes the interpreter lock once; `executemany` does so for every row and
    then waits for the event loop to let go of it.
    """
    for chunk in chunks(rows):
        statement = _insert_statement(schema.decisions, len(chunk))
        connection.exec_driver_sql(statement, tuple(chain.from_iterable(chunk)))


def claim_keys(connection: Connection, claims: Sequence[Claim]) -> dict[tuple[str, str], bytes]:
    """Bind clients' idempotency keys to decisions; return what each is bound to, which may be an earlier decision."""
    if not claims:
        return {}
    table = schema.idempotency_keys
    columns = (table.c.endpoint, table.c.key, table.c.decision_id)
    claiming = insert(table).on_conflict_do_nothing().returning(*columns)
    bound = {(endpoint, key): id_ for endpoint, key, id_ in connection.execute(claiming, [c._asdict() for c in claims])}
    known = sorted({(claim.endpoint, claim.key) for claim in claims} - bound.keys())
    # SQLite would scan the table for a list of pairs.
    for endpoint, pairs in groupby(known, key=itemgetter(0)):
        for chunk in chunks([key for _, key in pairs]):
            query = select(*columns).where(table.c.endpoint == endpoint, table.c.key.in_(chunk))
            bound.update({(endpoint, key): id_ for endpoint, key, id_ in connection.execute(query)})
    return bound


def stored_decisions(connection: Connection, ids: Iterable[bytes]) -> dict[bytes, DecisionRow]:
    """Return the decisions with these ids."""
    table = schema.decisions
    found: dict[bytes, DecisionRow] = {}
    for chunk in chunks(sorted(ids)):
        for row in connection.execute(select(table).where(table.c.id.in_(chunk))):
            found[row[0]] = DecisionRow(*row)
    return found


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut rows into chunks whose sizes are powers of two, so that few different statements are ever prepared."""
    start, size = 0, _LARGEST_CHUNK
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size


@cache
def _insert_statement(table: Table, rows: int) -> str:
    columns = [column.name for column in table.columns]
    placeholders = f"({', '.join('?' * len(columns))})"
    # Only names from our own schema are put into the text.
    return f"insert into {table.name} ({', '.join(columns)}) values {', '.join([placeholders] * rows)}"  # noqa: S608
