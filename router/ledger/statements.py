"""The few places where SQLite and PostgreSQL are spoken to differently."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, LargeBinary, Table, func, literal, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from router.ledger.database import COPY, is_postgresql

Values = tuple[Any, ...]
"""A row: its values in the order of the table's columns."""

Row = TypeVar("Row", bound=Values)
Each = TypeVar("Each")

_LARGEST_CHUNK = 64
_STEP = 8
_COPIED = 8
"""So many rows are worth the further round trip that `copy` takes."""
_OR_NOTHING = " on conflict do nothing"
_OUTCOMES_LOCK = 0x7475726E6F7574  # "turnout"


def insert_into(connection: Connection, table: Table) -> Any:
    """Return the database's own `insert`, which knows `on conflict`."""
    return postgresql.insert(table) if is_postgresql(connection) else sqlite.insert(table)


def insert_missing(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    """Insert the rows whose key is not there yet; `rows` have their values in the order of the table's columns.

    One statement of many rows releases and retakes the interpreter lock once; `executemany` does so for every row and
    then waits for the event loop to let go of it.
    """
    for statement, values, _ in _inserts(connection, table, rows):
        connection.exec_driver_sql(statement, values)


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> Sequence[Row]:
    """Insert rows, none of which should be there yet, and return those that were not; as `copied` says."""
    return rows if copied(connection, table, rows) else insert_returning(connection, table, rows)


def copied(connection: Connection, table: Table, rows: Sequence[Values]) -> bool:
    """Copy rows into PostgreSQL if they are many, which takes half the time of both sides; return whether it did.

    Raises IntegrityError where one of many rows is there; few at a time are not copied, so that whoever repeats them
    one by one gets past those.
    """
    if not is_postgresql(connection) or len(rows) < _COPIED:
        return False
    # SQLAlchemy has no words for this: `database` carries it out.
    connection.exec_driver_sql(_copy_sql(table), rows)
    return True


def insert_returning(connection: Connection, table: Table, rows: Sequence[Row]) -> Sequence[Row]:
    """Insert the rows whose key, the first column, is not there yet, and return those; once in a transaction.

    Nearly always that is all of them, so they are not asked for: SQLite releases and retakes the interpreter lock for
    each row that it returns, and psycopg takes as long to read a row as to send it.
    """
    if is_postgresql(connection):
        return _insert_returning_on_postgresql(connection, table, rows)
    inserted: list[Row] = []
    for statement, values, chunk in _inserts(connection, table, rows):
        if _inserted(connection, table, values, len(chunk)):
            inserted += chunk
        else:
            inserted += _with_keys(chunk, connection.exec_driver_sql(f"{statement} returning {_key(table)}", values))
    return inserted


def select_by_key(
    connection: Connection, table: Table, names: Sequence[str], key: str, values: Collection[Any]
) -> Iterator[Sequence[Any]]:
    """Yield these columns of the rows whose key is among the values.

    The statements are made once for each size: on SQLite making them takes longer than running them. What comes back
    is what the driver makes of it, so that truth is 0 or 1 there.
    """
    if is_postgresql(connection):
        if values:
            yield from connection.exec_driver_sql(_select_by_key_sql(table, tuple(names), key, None), (sorted(values),))
        return
    for chunk in chunks(sorted(values)):
        yield from connection.exec_driver_sql(_select_by_key_sql(table, tuple(names), key, len(chunk)), tuple(chunk))


def select_for_update(connection: Connection, table: Table, **key: object) -> Iterable[Sequence[Any]]:
    """Return the rows of a part of the key, in the key's order, which nobody else writes until the transaction ends."""
    statement = _select_for_update_sql(table, tuple(key), is_postgresql(connection))
    return connection.exec_driver_sql(statement, tuple(key.values()))


def replace(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    """Insert a few rows, in place of those with the same keys."""
    others = [column.name for column in table.columns if not column.primary_key]
    _upsert(connection, table, rows, ", ".join(f"{name} = excluded.{name}" for name in others))


def add(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    """Insert a few rows, or add what is not their key to those with the same keys."""
    others = [column.name for column in table.columns if not column.primary_key]
    _upsert(connection, table, rows, ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in others))


def lock_outcomes(connection: Connection) -> None:
    """Let no other process record outcomes until this transaction ends.

    What an outcome adds to the statistics depends on what is known about its item already, so two transactions must
    not look at the same time. SQLite has one writer at a time anyway.
    """
    if is_postgresql(connection):
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _OUTCOMES_LOCK})


def equal_to_any(connection: Connection, column: Column[Any], values: Collection[Any]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions that together say that the column has one of the values; one condition for each statement.

    PostgreSQL takes any number as one array, which it joins with the table: compared one by one with the rows of a
    table that it thinks small, a thousand values take half a second. SQLite has a limit, and keeps a statement prepared
    for each size.
    """
    if is_postgresql(connection):
        if values:
            yield column.in_(select(func.unnest(literal(sorted(values), postgresql.ARRAY(column.type)))))
        return
    for chunk in chunks(sorted(values)):
        yield column.in_(chunk)


def chunks(rows: Sequence[Each]) -> Iterator[Sequence[Each]]:
    """Cut rows into chunks of few different sizes, so that few statements are ever prepared: 1 to 8, 16, 24 .. 64."""
    start = 0
    while left := len(rows) - start:
        size = min(left - left % _STEP or left, _LARGEST_CHUNK)
        yield rows[start : start + size]
        start += size


# Only names from our own schema are put into the texts below.


def _inserts(connection: Connection, table: Table, rows: Sequence[Row]) -> Iterator[tuple[str, Values, Sequence[Row]]]:
    if not rows:
        return
    if is_postgresql(connection):
        # As one parameter: a quarter of the time that arrays of the columns take, and half that of a list of values.
        yield _insert_json_sql(table), (_as_json(table, rows),), rows
        return
    for chunk in chunks(rows):
        yield _insert_sql(table, len(chunk), "?") + _OR_NOTHING, tuple(chain.from_iterable(chunk)), chunk


def _insert_returning_on_postgresql(connection: Connection, table: Table, rows: Sequence[Row]) -> Sequence[Row]:
    number = 0
    for statement, values, _ in _inserts(connection, table, rows):
        number = connection.exec_driver_sql(statement, values).rowcount
    if number == len(rows):
        return rows
    # Those whose rows this transaction has made, which has no savepoints: these have numbers of their own.
    made = f"{_select_by_key_sql(table, (_key(table),), _key(table), None)} and xmin = pg_current_xact_id()::xid"
    return _with_keys(rows, connection.exec_driver_sql(made, ([row[0] for row in rows],)))


def _with_keys(rows: Iterable[Row], keys: Iterable[Sequence[Any]]) -> list[Row]:
    """Return the rows with these keys, each once."""
    by_key = {row[0]: row for row in rows}
    return [by_key[key] for (key,) in keys]


def _key(table: Table) -> str:
    return str(table.columns[0].name)


def _inserted(connection: Connection, table: Table, values: Values, rows: int) -> bool:
    """Insert all of the rows, or none if one of them is there."""
    try:
        connection.exec_driver_sql(_insert_sql(table, rows, "?"), values)
    except IntegrityError:
        return False
    return True


def _upsert(connection: Connection, table: Table, rows: Sequence[Values], changes: str) -> None:
    keys = ", ".join(column.name for column in table.primary_key)
    for chunk in chunks(rows):
        statement = _insert_sql(table, len(chunk), "%s" if is_postgresql(connection) else "?")
        values = tuple(chain.from_iterable(chunk))
        connection.exec_driver_sql(f"{statement} on conflict ({keys}) do update set {changes}", values)


@cache
def _select_for_update_sql(table: Table, names: tuple[str, ...], for_update: bool) -> str:
    # SQLite has one writer at a time anyway.
    placeholder, ending = ("%s", " for update") if for_update else ("?", "")
    these = " and ".join(f"{name} = {placeholder}" for name in names)
    columns, keys = (", ".join(column.name for column in part) for part in (table.columns, table.primary_key))
    return f"select {columns} from {table.name} where {these} order by {keys}{ending}"  # noqa: S608


@cache
def _select_by_key_sql(table: Table, names: tuple[str, ...], key: str, values: int | None) -> str:
    """Return the statement for so many values, or for all in one array."""
    these = "select unnest(%s)" if values is None else ", ".join("?" * values)
    return f"select {', '.join(names)} from {table.name} where {key} in ({these})"  # noqa: S608


@cache
def _insert_sql(table: Table, rows: int, placeholder: str) -> str:
    columns = [column.name for column in table.columns]
    placeholders = f"({', '.join([placeholder] * len(columns))})"
    values = ", ".join([placeholders] * rows)
    return f"insert into {table.name} ({', '.join(columns)}) values {values}"  # noqa: S608


@cache
def _copy_sql(table: Table) -> str:
    return f"{COPY} {table.name} ({', '.join(column.name for column in table.columns)}) from stdin"


@cache
def _insert_json_sql(table: Table) -> str:
    columns = ", ".join(column.name for column in table.columns)
    rows = f"json_populate_recordset(null::{table.name}, %s)"
    return f"insert into {table.name} ({columns}) select {columns} from {rows}{_OR_NOTHING}"  # noqa: S608


def _as_json(table: Table, rows: Sequence[Values]) -> str:
    names = [column.name for column in table.columns]
    binary = [column.name for column in table.columns if isinstance(column.type, LargeBinary)]
    documents = [dict(zip(names, row, strict=True)) for row in rows]
    for document in documents:
        for name in binary:
            document[name] = "\\x" + document[name].hex()
    return msgspec.json.encode(documents).decode()
