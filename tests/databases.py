"""Real databases for tests: a SQLite file, or a PostgreSQL database of the test's own that is dropped afterwards.

`TESTS_POSTGRES` names a server; without it the one of this machine is used, or a cluster of the tests' own where none
runs. `TESTS_REQUIRE` lists what must be there (CI sets it): what is missing then fails, instead of being skipped with
the reason. Neither name begins as the router's settings do, which are refused when they are unknown.
"""

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from router.ledger.database import upgraded
from tests import clusters

BACKENDS = ("sqlite", "postgresql")

_NAMED = os.environ.get("TESTS_POSTGRES")
_USUAL = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"


def require(what: str, problem: str | None) -> None:
    """Skip the test, or fail it where it is required, when there is a problem with what it needs."""
    if problem is None:
        return
    if what in os.environ.get("TESTS_REQUIRE", "").split():
        pytest.fail(f"{what} is required here: {problem}")
    pytest.skip(f"needs {what}: {problem}")


@contextmanager
def database(backend: str, folder: Path) -> Iterator[str]:
    """Yield the address of a new, empty database."""
    if backend == "sqlite":
        yield f"sqlite:///{folder}/ledger.db"
        return
    server, problem = _server()
    require("postgresql", problem)
    name = f"turnout_test_{uuid.uuid4().hex}"
    _run(server, f"create database {name} template template0")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        _run(server, f"drop database {name} with (force)")


def put_empty_ledger(file: Path) -> None:
    """Put a ledger without any row into a SQLite file: to copy it is quicker than to make its tables again."""
    shutil.copyfile(_empty_ledger(), file)


@cache
def _empty_ledger() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with upgraded(f"sqlite:///{folder}/ledger.db"):
        pass
    return folder / "ledger.db"


@cache
def _server() -> tuple[str, str | None]:
    """Return the address of a server that answers, or why there is none."""
    server = _NAMED or _USUAL
    try:
        _run(server, "select 1")
    except OperationalError as error:
        problem = f"no server at {make_url(server).render_as_string()} ({error.orig})"
    else:
        return server, None
    if _NAMED or clusters.problem():
        return server, f"{problem}; {clusters.problem() or 'start it'}"
    stack = ExitStack()
    atexit.register(stack.close)
    own = make_url(stack.enter_context(clusters.cluster()).url)
    return own.set(drivername="postgresql+psycopg").render_as_string(hide_password=False), None


def _run(server: str, statement: str) -> None:
    engine = create_engine(
        server, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args={"connect_timeout": 3}
    )
    with engine.connect() as connection:
        connection.execute(text(statement))
