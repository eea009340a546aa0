"""Inserting decisions with few statements, because every statement costs a fight for the interpreter lock."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.sqlite import insert

from router.ledger import schema
from router.ledger.records import DecisionRow

Row = TypeVar("Row")

_LARGEST_CHUNK = 64


def insert_decisions(connection: Connection, rows: Sequence[DecisionRow]) -> None:
    """Insert the rows, 64 to a statement.

    One statement of many rows releases and retakes the interpreter lock once; `executemany` does so for every row and
    then waits for the event loop to let go of it.
    """
    for chunk in chunks(rows):
        statement = _insert_statement(schema.decisions, len(chunk))
        connection.exec_driver_sql(statement, tuple(chain.from_iterable(chunk)))


def claim_key(connection: Connection, endpoint: str, key: str, decision_id: bytes) -> bytes:
    """Bind a client's idempotency key to a decision; return the decision that it is bound to, maybe an earlier one."""
    table = schema.idempotency_keys
    claim = insert(table).values(endpoint=endpoint, key=key, decision_id=decision_id).on_conflict_do_nothing()
    if connection.execute(claim).rowcount == 1:
        return decision_id
    bound = table.select().where(table.c.endpoint == endpoint, table.c.key == key)
    return bytes(connection.execute(bound).mappings().one()["decision_id"])


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
