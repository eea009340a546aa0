"""Reading the router's ledger in Arrow tables, by UTC day of the decision, and proving it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    Table,
    Text,
    func,
    make_url,
    select,
)
from sqlalchemy.exc import DatabaseError

from orchestration.errors import LedgerUnavailable
from router.decision_id import Signer
from router.errors import TurnoutError
from router.ledger import schema
from router.ledger.database import HEAD, open_database, reason_of, revision, shown
from router.settings import Settings
from router.verification import Summary, verify
from router.verification.reading import snapshot

CONTROL = (schema.experiments, schema.arms, schema.epochs)
"""Small tables that are read as a whole."""
_TIME_BYTES = 6  # a decision id begins with its time in milliseconds
_DAY_MS = 86_400_000
_ARROW = {
    Boolean: pa.bool_(),
    Integer: pa.int64(),
    Text: pa.string(),
    Float: pa.float64(),
    LargeBinary: pa.binary(),
}


class Ledger:
    """The ledger of these settings; every call reads one consistent state of it."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def control(self) -> dict[str, pa.Table]:
        """Experiments, arms and epochs by table name."""
        with self._reading() as connection:
            return {table.name: _read(connection, table) for table in CONTROL}

    def traffic(self, day: date) -> dict[str, pa.Table]:
        """Decisions of a UTC day, what shadows predicted, and every outcome that has arrived by now, however late."""
        shadows = schema.shadow_predictions
        with self._reading() as connection:
            return {
                "decisions": _read(connection, schema.decisions, schema.decisions.c.id, day),
                "outcomes": _read(connection, schema.outcomes, schema.outcomes.c.decision_id, day),
                "shadow_predictions": _read(connection, shadows, shadows.c.decision_id, day),
            }

    def days(self) -> list[date]:
        """Every UTC day from the first decision to the last; empty without decisions."""
        key = schema.decisions.c.id
        # PostgreSQL has no min and max of bytes, but finds both ends by the key.
        first, last = (select(key).order_by(order).limit(1) for order in (key.asc(), key.desc()))
        with self._reading() as connection:
            ends = [connection.execute(query).scalar() for query in (first, last)]
        if not all(ends):
            return []
        start, end = (_day_of(key) for key in ends if key)
        return [start + timedelta(days=n) for n in range((end - start).days + 1)]

    def marks(self, days: Sequence[date]) -> dict[date, str]:
        """For each of these days a mark of its decisions and of all that has come of them: another one, other rows.

        It begins with the number of decisions. Rows are never changed and never removed, so that their number and the
        time of the newest tell.
        """
        decisions, outcomes, shadows = schema.decisions, schema.outcomes, schema.shadow_predictions
        parts = (
            (decisions.c.id, func.count()),
            (outcomes.c.decision_id, func.count()),
            (outcomes.c.decision_id, func.max(outcomes.c.received_ms)),
            (shadows.c.decision_id, func.count()),
        )
        with self._reading() as connection:
            return {
                day: " ".join(
                    str(connection.execute(select(value).select_from(key.table).where(*_of(day, key))).scalar() or 0)
                    for key, value in parts
                )
                for day in days
            }

    def verify(self) -> Summary:
        """Re-derive every row from the signed ids, the epochs and the outcomes.

        Raises:
            CannotStart: The signing secrets are not known here.
            LedgerUnavailable: The ledger cannot be read.
        """
        with self._opened() as engine:
            signer = Signer(self._settings.secrets(make=False))
            with self._translated():
                return verify(engine, signer)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._opened() as engine, self._translated(), snapshot(engine) as connection:
            yield connection

    @contextmanager
    def _opened(self) -> Iterator[Engine]:
        url = make_url(self._settings.database)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise LedgerUnavailable(
                f"there is no ledger at {url.database}: start the router once, or set TURNOUT_DATABASE"
            )
        with self._translated():
            engine = open_database(self._settings.database)
        try:
            with self._translated():
                current = revision(engine)
            if current != HEAD:
                raise LedgerUnavailable(
                    f"ledger {shown(url)} is at revision {current or 'none'}, and this export reads {HEAD}: upgrade it "
                    "with `turnout db upgrade`, or use the export of its version"
                )
            yield engine
        finally:
            engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (TurnoutError, DatabaseError) as error:
            reason = reason_of(error) if isinstance(error, DatabaseError) else error
            raise LedgerUnavailable(f"ledger {shown(self._settings.database)} cannot be read: {reason}") from error


def _read(connection: Connection, table: Table, key: Column[bytes] | None = None, day: date | None = None) -> pa.Table:
    query = select(table)
    if key is not None and day is not None:
        # A range of the primary key, so that a day is found without reading the others, nor other months' partitions.
        query = query.where(*_of(day, key))
    return _arrow(table, connection.execute(query).all())


def _of(day: date, key: Column[bytes]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return key >= _first_id(day), key < _first_id(day + timedelta(days=1))


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
