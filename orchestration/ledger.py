"""Reading the router's ledger in Arrow tables, by UTC day of the decision."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from sqlalchemy import Column, Connection, Float, Integer, LargeBinary, Table, Text, func, make_url, select
from sqlalchemy.exc import DatabaseError

from orchestration.errors import LedgerUnavailable
from router.errors import CannotStart
from router.ledger import schema
from router.ledger.database import for_reading, open_database

CONTROL = (schema.experiments, schema.arms, schema.epochs)
"""Small tables that are read as a whole."""
_TIME_BYTES = 6  # a decision id begins with its time in milliseconds
_DAY_MS = 86_400_000
_ARROW = {Integer: pa.int64(), Text: pa.string(), Float: pa.float64(), LargeBinary: pa.binary()}


class Ledger:
    """The ledger at a database address; every call reads one consistent state of it."""

    def __init__(self, database: str):
        self.database = database

    def control(self) -> dict[str, pa.Table]:
        """Experiments, arms and epochs by table name."""
        with self._reading() as connection:
            return {table.name: _read(connection, table) for table in CONTROL}

    def traffic(self, day: date) -> dict[str, pa.Table]:
        """Decisions of a UTC day, and every outcome of theirs that has arrived by now, however late."""
        with self._reading() as connection:
            return {
                "decisions": _read(connection, schema.decisions, schema.decisions.c.id, day),
                "outcomes": _read(connection, schema.outcomes, schema.outcomes.c.decision_id, day),
            }

    def days(self) -> list[date]:
        """Every UTC day from the first decision to the last; empty without decisions."""
        decided = schema.decisions.c.id
        with self._reading() as connection:
            first, last = connection.execute(select(func.min(decided), func.max(decided))).one()
        if first is None:
            return []
        start, end = _day_of(first), _day_of(last)
        return [start + timedelta(days=n) for n in range((end - start).days + 1)]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        path = Path(make_url(self.database).database or "")
        if not path.is_file():
            raise LedgerUnavailable(f"there is no ledger at {path}: start the router once, or set TURNOUT_DATABASE")
        try:
            engine = open_database(self.database)
            try:
                with for_reading(engine).connect() as connection:
                    yield connection
            finally:
                engine.dispose()
        except (CannotStart, DatabaseError) as error:
            raise LedgerUnavailable(f"ledger {path} cannot be read: {error}") from error


def _read(connection: Connection, table: Table, key: Column[bytes] | None = None, day: date | None = None) -> pa.Table:
    query = select(table)
    if key is not None and day is not None:
        # A range of the primary key, so that a day is found without reading the others.
        query = query.where(key >= _first_id(day), key < _first_id(day + timedelta(days=1)))
    return _arrow(table, connection.execute(query).all())


def _arrow(table: Table, rows: Sequence[Sequence[object]]) -> pa.Table:
    types = [next(arrow for kind, arrow in _ARROW.items() if isinstance(c.type, kind)) for c in table.columns]
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    return pa.table(arrays, names=[column.name for column in table.columns])


def _first_id(day: date) -> bytes:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return (int(start.timestamp()) * 1000).to_bytes(_TIME_BYTES, "big")


def _day_of(decision_id: bytes) -> date:
    days, _ = divmod(int.from_bytes(decision_id[:_TIME_BYTES], "big"), _DAY_MS)
    return date(1970, 1, 1) + timedelta(days=days)
