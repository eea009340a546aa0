"""Real databases for tests: a SQLite file, or a PostgreSQL database of the test's own that is dropped afterwards.

`TESTS_POSTGRES` names the server. `TESTS_REQUIRE` lists what must be there (CI sets it): what is missing then
fails, instead of being skipped with the reason.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

BACKENDS = ("sqlite", "postgresql")
SERVER = os.environ.get("TESTS_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")


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
    require("postgresql", _server_problem())
    name = f"turnout_test_{uuid.uuid4().hex}"
    _run(f"create database {name} template template0")
    try:
        yield make_url(SERVER).set(database=name).render_as_string(hide_password=False)
    finally:
        _run(f"drop database {name} with (force)")


@cache
def _server_problem() -> str | None:
    try:
        _run("select 1")
    except OperationalError as error:
        return f"no server at {make_url(SERVER).render_as_string()} ({error.orig})"
    return None


def _run(statement: str) -> None:
    engine = create_engine(
        SERVER, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args={"connect_timeout": 3}
    )
    with engine.connect() as connection:
        connection.execute(text(statement))
