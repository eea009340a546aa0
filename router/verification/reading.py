"""Reading a whole ledger at one moment, a chunk of rows at a time, without keeping a writer waiting."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from router.errors import LedgerUnavailable
from router.ledger.database import for_reading, is_away, is_postgresql, reason_of

Row = tuple[Any, ...]

_CHUNK = 8192
_cursors = count()

_POSTGRESQL = (
    # The router's own transactions never idle; here, who reads the failures may take a while.
    "idle_in_transaction_session_timeout = '10min'",
    # Every row will be read, so the whole query's time counts and not its first row's.
    "cursor_tuple_fraction = 1",
)

INTEGER = frozenset({int})
NUMBER = frozenset({float})
TEXT = frozenset({str})
BYTES = frozenset({bytes})
TRUTH = frozenset({bool, int})
OPTIONAL = frozenset({type(None)})
_NAMES = {int: "an integer", float: "a number", str: "text", bytes: "bytes", bool: "true or false", type(None): "null"}

Kinds = dict[str, frozenset[type]]
"""The columns of a query, and what they may hold: SQLite lets any column hold anything."""


class Odd(NamedTuple):
    """A row with a value that its column cannot hold."""

    row: Row
    column: str
    expected: str
    found: object


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose every query sees the ledger at one moment, however long the reading takes.

    Raises:
        LedgerUnavailable: The database does not answer.
    """
    if is_postgresql(engine):
        engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    try:
        with for_reading(engine).begin() as connection:
            if is_postgresql(connection):
                for setting in _POSTGRESQL:
                    connection.execute(text(f"set local {setting}"))
            yield connection
    except SQLAlchemyError as error:
        if not is_away(error):
            raise
        raise LedgerUnavailable(f"the ledger does not answer ({reason_of(error)}); try again in a moment") from error


def stream(connection: Connection, statement: str) -> Iterator[Sequence[Row]]:
    """Yield a query's rows in chunks, none of them kept, as the driver returns them: SQLAlchemy's rows cost as much.

    Raises:
        LedgerUnavailable: The database stopped answering, or holds text that is no UTF-8.
    """
    driver: Any = connection.dialect.loaded_dbapi
    with closing(_cursor(connection)) as cursor:
        try:
            cursor.execute(statement)
            while rows := cursor.fetchmany(_CHUNK):
                yield rows
        except driver.Error as error:
            raise LedgerUnavailable(f"the ledger cannot be read on ({reason_of(error)})") from error


def _cursor(connection: Connection) -> Any:
    """Return a cursor whose rows stay in the database until they are fetched."""
    driver_connection: Any = connection.connection.driver_connection
    if is_postgresql(connection):
        return driver_connection.cursor(f"verification_{next(_cursors)}")
    return driver_connection.cursor()


def split_odd(rows: Sequence[Row], kinds: Kinds) -> tuple[Sequence[Row], list[Odd]]:
    """Return the rows whose values are of their columns' kinds, and the others."""
    columns = zip(*rows, strict=True)
    if all(set(map(type, column)) <= allowed for column, allowed in zip(columns, kinds.values(), strict=True)):
        return rows, []
    odd = [found for row in rows if (found := _oddity(row, kinds)) is not None]
    marked = {id(found.row) for found in odd}
    return [row for row in rows if id(row) not in marked], odd


def _oddity(row: Row, kinds: Kinds) -> Odd | None:
    for value, (column, allowed) in zip(row, kinds.items(), strict=True):
        if type(value) not in allowed:
            return Odd(row, column, " or ".join(_NAMES[kind] for kind in sorted(allowed, key=str)), value)
    return None


def of_experiment(experiment_id: int | None, table: str) -> str:
    """Return the condition that keeps the rows of one experiment, or of all for None."""
    return "" if experiment_id is None else f" where {table}.experiment_id = {experiment_id:d}"


def count_rows(connection: Connection, tables: Iterable[str]) -> int:
    """Return how many rows these tables have together."""
    statements = (text(f"select count(*) from {table}") for table in tables)  # noqa: S608 (our own names)
    return sum(connection.execute(statement).scalar_one() for statement in statements)
