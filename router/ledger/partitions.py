"""Monthly partitions on PostgreSQL of the tables that a decision id is the key of, by the time it begins with."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from router.ledger.database import is_postgresql, reason_of, transaction

PARTITIONED = ("decisions", "outcomes", "shadow_predictions")
MONTHS_AHEAD = 3

_TIME_BYTES = 6

_logger = logging.getLogger(__name__)


def ensure_partitions(engine: Engine, now_ms: int) -> None:
    """Create the partitions of this month and the next ones; does nothing on SQLite.

    Rows of other months go to the partition `.._rest`, so that nothing is ever refused for want of a partition; a
    month that has rows there stays there.
    """
    if not is_postgresql(engine):
        return
    try:
        _create_missing(engine, now_ms)
    except ProgrammingError as error:
        # Such as a role that may not create tables.
        _logger.warning("cannot make partitions (%s); rows go to the partitions .._rest", reason_of(error))


def _create_missing(engine: Engine, now_ms: int) -> None:
    with transaction(engine) as connection:
        connection.execute(text("select pg_advisory_xact_lock(hashtext('turnout partitions'))"))
        missing = [name for name in _wanted(now_ms) if not _exists(connection, name[0])]
        for partition, table, first, last in missing:
            if not _has_rows(connection, table, first, last):
                bounds = f"from ('\\x{first.hex()}') to ('\\x{last.hex()}')"
                connection.execute(text(f"create table {partition} partition of {table} for values {bounds}"))


def _wanted(now_ms: int) -> Iterator[tuple[str, str, bytes, bytes]]:
    """Yield name, table, first key and key after the last of every partition that should be there."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    for ahead in range(MONTHS_AHEAD):
        first, after = _month(now.year, now.month + ahead), _month(now.year, now.month + ahead + 1)
        for table in PARTITIONED:
            yield f"{table}_{first:%Y_%m}", table, _key(first), _key(after)


def _month(year: int, month: int) -> datetime:
    return datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=UTC)


def _key(time: datetime) -> bytes:
    return (int(time.timestamp()) * 1000).to_bytes(_TIME_BYTES)


def _exists(connection: Connection, partition: str) -> bool:
    return connection.execute(text("select to_regclass(:name)"), {"name": partition}).scalar() is not None


def _has_rows(connection: Connection, table: str, first: bytes, last: bytes) -> bool:
    key = "id" if table == "decisions" else "decision_id"
    statement = f"select 1 from {table}_rest where {key} >= :first and {key} < :last limit 1"  # noqa: S608
    return connection.execute(text(statement), {"first": first, "last": last}).first() is not None
