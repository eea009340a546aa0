"""Opening the ledger's database, with its durability settings, and bringing its tables up to date."""

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExceptionContext
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from router.errors import CannotStart, LedgerUnavailable

HEAD = "0004"
"""The newest migration; known without importing Alembic, so that a start needs it only when there is work."""

READ_ONLY = "read_only"

COPY = "copy"
"""How a statement begins that copies rows from us into a table of PostgreSQL."""

ANSWER_S = 15.0
"""How long a server may take over a transaction of the control plane."""

BUSY_S = 10.0
"""How long a transaction waits for another process that writes the same SQLite file."""

# What PostgreSQL says of a row that it will never take, such as one too large for an index.
_TOO_MUCH = "54"

# What a server says that takes no writes at all, such as a standby after a failover.
_READ_ONLY_SERVER = "25006"

# What it says while somebody restores a backup or grants rights anew: table, schema or right are not there.
_NOT_THERE = {"42P01", "3F000", "42501"}

_MIGRATIONS = Path(__file__).parent / "migrations"

_POSTGRESQL_SESSION = {
    # A commit that was acknowledged is on disk, whatever the server's default.
    "synchronous_commit": "on",
    # A router that vanishes in mid-transaction must not keep its locks until TCP gives up on it.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "10s",
    "timezone": "UTC",
}
_POSTGRESQL_CONNECTION = {
    "application_name": "turnout",
    "connect_timeout": 3,
    "tcp_user_timeout": 5000,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "options": " ".join(f"-c {name}={value}" for name, value in _POSTGRESQL_SESSION.items()),
}


def open_database(url: str) -> Engine:
    """Return an engine on the ledger at `url`, whose every commit survives power loss.

    `url` is `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST:PORT/NAME`.

    Raises:
        CannotStart: The database does not answer, the folder cannot be written or the file is no SQLite database.
    """
    parsed = _parsed(url)
    try:
        engine = _postgresql(parsed) if parsed.get_backend_name() == "postgresql" else _sqlite(parsed)
        with for_reading(engine).connect() as connection:
            connection.execute(text("select 1"))
    except (OSError, DBAPIError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        raise CannotStart(
            f"cannot open the ledger {shown(parsed)}: {reason}; set TURNOUT_DATABASE or mend the database"
        ) from error
    return engine


@contextmanager
def upgraded(url: str) -> Iterator[Engine]:
    """Open the ledger, its tables up to date, for as long as the block lasts."""
    engine = open_database(url)
    try:
        upgrade(engine)
        yield engine
    finally:
        engine.dispose()


def shown(url: str | URL) -> str:
    """Return a database address as people may see it, without its password."""
    parsed = make_url(url)
    hidden = {name: "hidden" for name in parsed.query if "password" in name}
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)


def is_postgresql(bind: Engine | Connection) -> bool:
    """Return whether the ledger is in PostgreSQL."""
    return bind.dialect.name == "postgresql"


def for_reading(engine: Engine) -> Engine:
    """Return the same database for transactions that only read and so never wait for a writer."""
    return engine.execution_options(**{READ_ONLY: True})


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run one transaction; raises LedgerUnavailable when the database cannot be reached, locked or written."""
    try:
        with engine.connect() as connection, _deadline(connection), connection.begin():
            yield connection
    except SQLAlchemyError as error:
        if not is_away(error):
            raise
        raise LedgerUnavailable(f"the ledger does not answer ({reason_of(error)}); try again in a moment") from error


@contextmanager
def _deadline(connection: Connection) -> Iterator[None]:
    """Hang up on a server that keeps a transaction waiting: a frozen one raises nothing by itself."""
    if not is_postgresql(connection):
        yield
        return
    timer = threading.Timer(ANSWER_S, _hang_up, (connection.connection.driver_connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(driver_connection: Any) -> None:
    # The thread that waits on the socket sees it end; the connection may be gone already.
    with suppress(Exception), socket.socket(fileno=os.dup(driver_connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def is_away(error: Exception) -> bool:
    """Return whether an error says that the database could not be reached, locked or written, whatever was asked."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if _state(error).startswith(_TOO_MUCH):
        return False
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout)


def is_unfit(error: Exception) -> bool:
    """Return whether the database is away or cannot take rows now, whichever they are: waiting may help."""
    return is_away(error) or _state(error) in _NOT_THERE


def _state(error: Exception) -> str:
    """Return PostgreSQL's code for an error; empty where there is none."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")


def reason_of(error: Exception) -> str:
    """Return what the driver said, in one line."""
    said = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(said).split())


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
            if is_postgresql(connection):
                # Replicas that start together upgrade one after the other.
                connection.execute(text("select pg_advisory_xact_lock(hashtext('turnout upgrade'))"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise CannotStart(f"the ledger is at revision {current}, newer than this router knows ({HEAD})") from error
    except (OperationalError, ProgrammingError) as error:
        raise CannotStart(f"cannot write the ledger {shown(engine.url)}: {reason_of(error)}") from error


def revision(engine: Engine) -> str | None:
    """Return the migration that the database is at, or None before the first."""
    with for_reading(engine).connect() as connection:
        try:
            return connection.execute(text("select version_num from alembic_version")).scalar()
        except (OperationalError, ProgrammingError):
            return None


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # What SQLAlchemy says may quote a part of the password.
        raise CannotStart(
            "TURNOUT_DATABASE cannot be read as an address; write @ : / and % of its password as %40 %3A %2F and %25"
        ) from None


def _sqlite(url: URL) -> Engine:
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, hide_parameters=True)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin)
    return engine


def _postgresql(url: URL) -> Engine:
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError as error:
        raise CannotStart("a ledger in PostgreSQL needs pip install 'turnout[postgresql]'") from error
    # No ping before use: on a frozen server it would hang where no deadline reaches. A restart of the server costs one
    # poll an error, which empties the pool. Rows are nobody's business, so errors do not print them.
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        connect_args=_POSTGRESQL_CONNECTION,
        pool_timeout=5,
        pool_size=8,
    )
    event.listen(engine, "handle_error", _leave_read_only_server)
    event.listen(engine, "do_executemany", _copy)
    return engine


def _copy(cursor: Any, statement: str, rows: Sequence[tuple[Any, ...]], _: object) -> bool:
    """Carry out `copy .. from stdin`, whose rows are no parameters; leave anything else to SQLAlchemy."""
    if not statement.startswith(COPY):
        return False
    with cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
    return True


def _leave_read_only_server(context: ExceptionContext) -> None:
    # Its connections are of no use; new ones may lead to the server that takes writes now.
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY_SERVER:
        context.is_disconnect = True


def _configure_sqlite(dbapi_connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # Transactions begin where SQLAlchemy says, not where the driver guesses.
    if isinstance(dbapi_connection, sqlite3.Connection):
        dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"pragma busy_timeout = {round(BUSY_S * 1000)}")
    _write_ahead(cursor)
    cursor.execute("pragma synchronous = full")
    cursor.close()


def _write_ahead(cursor: DBAPICursor) -> None:
    # A new file is read before it is switched, and who holds a read lock is refused at once, whatever the timeout:
    # of two replicas that start together, one would end here.
    ends = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= ends:
                raise
            time.sleep(0.01)
        else:
            return


def _begin(connection: Connection) -> None:
    # A transaction that reads before it writes would fail, not wait, when another process wrote in between.
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("begin" if read_only else "begin immediate")
