"""Opening the ledger's database, with its durability settings, and bringing its tables up to date."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from router.errors import CannotStart, LedgerUnavailable

HEAD = "0001"
"""The newest migration; known without importing Alembic, so that a start needs it only when there is work."""

READ_ONLY = "read_only"

_MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str) -> Engine:
    """Return an engine on the SQLite file of `url`, whose every commit survives power loss.

    Raises:
        CannotStart: The folder cannot be written or the file is no SQLite database.
    """
    path = Path(make_url(url).database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url)
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        with for_reading(engine).connect() as connection:
            connection.execute(text("select count(*) from sqlite_master"))
    except (OSError, DatabaseError) as error:
        reason = error.orig if isinstance(error, DatabaseError) else error
        raise CannotStart(f"cannot open the ledger {path}: {reason}; set TURNOUT_DATABASE or mend the file") from error
    return engine


def for_reading(engine: Engine) -> Engine:
    """Return the same database for transactions that only read and so never wait for a writer."""
    return engine.execution_options(**{READ_ONLY: True})


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run one transaction; raises LedgerUnavailable when the database cannot be reached, locked or written."""
    try:
        with engine.begin() as connection:
            yield connection
    except OperationalError as error:
        raise LedgerUnavailable(f"the ledger does not answer ({error.orig}); try again in a moment") from error


def upgrade(engine: Engine) -> None:
    """Apply the migrations that this database lacks; a second call changes nothing.

    Raises:
        CannotStart: The database was written by a newer version of Turnout, or cannot be written.
    """
    current = revision(engine)
    if current == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise CannotStart(f"the ledger is at revision {current}, newer than this router knows ({HEAD})") from error
    except OperationalError as error:
        raise CannotStart(f"cannot write the ledger {engine.url.database}: {error.orig}") from error


def revision(engine: Engine) -> str | None:
    """Return the migration that the database is at, or None before the first."""
    with for_reading(engine).connect() as connection:
        try:
            return connection.execute(text("select version_num from alembic_version")).scalar()
        except OperationalError:
            return None


def _configure(dbapi_connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Transactions begin where SQLAlchemy says, not where the driver guesses.
    if isinstance(dbapi_connection, sqlite3.Connection):
        dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute("pragma busy_timeout = 10000")
    cursor.execute("pragma journal_mode = wal")
    cursor.execute("pragma synchronous = full")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads before it writes would fail, not wait, when another process wrote in between.
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("begin" if read_only else "begin immediate")
