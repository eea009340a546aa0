"""The few places where SQLite and PostgreSQL are spoken to differently."""

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, LargeBinary, Table, any_, literal, text
from sqlalchemy.dialects import postgresql, sqlite

from router.ledger.database import is_postgresql

Row = TypeVar("Row")

_LARGEST_CHUNK = 64
_OUTCOMES_LOCK = 0x7475726E6F7574  # "turnout"


def insert_into(connection: Connection, table: Table) -> Any:
    """Return the database's own `insert`, which knows `on conflict`."""
    return postgresql.insert(table) if is_postgresql(connection) else sqlite.insert(table)


def insert_missing(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert the rows whose key is not there yet; `rows` have their values in the order of the table's columns.

    One statement of many rows releases and retakes the interpreter lock once; `executemany` does so for every row and
    then waits for the event loop to let go of it.
    """
    for statement, values in _inserting(connection, table, rows):
        connection.exec_driver_sql(statement, values)


def insert_returning(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> set[Any]:
    """Insert the rows whose key is not there yet, and return the first columns of those."""
    inserted: set[Any] = set()
    returning = f" returning {table.columns[0].name}"
    for statement, values in _inserting(connection, table, rows):
        inserted.update(connection.exec_driver_sql(statement + returning, values).scalars())
    return inserted


def lock_outcomes(connection: Connection) -> None:
    """Let no other process record outcomes until this transaction ends.

    What an outcome adds to the statistics depends on what is known about its item already, so two transactions must
    not look at the same time. SQLite has one writer at a time anyway.
    """
    if is_postgresql(connection):
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _OUTCOMES_LOCK})


def among(connection: Connection, column: Column[Any], values: Collection[Any]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions that together say that the column has one of the values; one condition for each statement.

    PostgreSQL takes any number as one array; SQLite has a limit, and keeps a statement prepared for each size.
    """
    if is_postgresql(connection):
        if values:
            yield column == any_(literal(sorted(values), postgresql.ARRAY(column.type)))
        return
    for chunk in chunks(sorted(values)):
        yield column.in_(chunk)


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut rows into chunks whose sizes are powers of two, so that few different statements are ever prepared."""
    start, size = 0, _LARGEST_CHUNK
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size


# Only names from our own schema are put into the texts below.


def _inserting(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    if not rows:
        return
    if is_postgresql(connection):
        # As one parameter: a quarter of the time that arrays of the columns take, and half that of a list of values.
        yield _populating(table), (_as_json(table, rows),)
        return
    for chunk in chunks(rows):
        yield _listing(table, len(chunk)), tuple(chain.from_iterable(chunk))


@cache
def _listing(table: Table, rows: int) -> str:
    columns = [column.name for column in table.columns]
    placeholders = f"({', '.join('?' * len(columns))})"
    values = ", ".join([placeholders] * rows)
    return f"insert into {table.name} ({', '.join(columns)}) values {values} on conflict do nothing"  # noqa: S608


@cache
def _populating(table: Table) -> str:
    columns = ", ".join(column.name for column in table.columns)
    rows = f"json_populate_recordset(null::{table.name}, %s)"
    return f"insert into {table.name} ({columns}) select {columns} from {rows} on conflict do nothing"  # noqa: S608


def _as_json(table: Table, rows: Sequence[tuple[Any, ...]]) -> str:
    names = [column.name for column in table.columns]
    binary = [column.name for column in table.columns if isinstance(column.type, LargeBinary)]
    documents = [dict(zip(names, row, strict=True)) for row in rows]
    for document in documents:
        for name in binary:
            document[name] = "\\x" + document[name].hex()
    return msgspec.json.encode(documents).decode()
