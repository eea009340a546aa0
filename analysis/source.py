"""Where results are read from: the router's ledger, or the Delta tables exported from it into a lake."""

import os
import sqlite3
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import ibis
import ibis.expr.types as ir

from analysis import lake, postgresql, spark
from analysis.errors import SchemaMismatch, SourceNotFound, UnreadableSource
from analysis.schema import TABLES, typed

DEFAULT_DATABASE = "sqlite:///var/turnout.db"
DEFAULT_LAKE = "var/lake"
_SQLITE = "sqlite:///"
_CONFIG_FILE = Path("turnout.toml")


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise UnreadableSource(f"{name} cannot be read ({error}); it may be corrupted: restore it") from error


class Source(NamedTuple):
    """Six Ibis tables of one backend, with the columns of TABLES, and the words that say where they are."""

    name: str
    tables: Mapping[str, ir.Table]
    translated: Callable[[str], AbstractContextManager[None]]

    def reading(self) -> AbstractContextManager[None]:
        """Turn whatever the engine raises while it reads into a SourceError."""
        return self.translated(self.name)

    def rows(self, expression: ir.Table) -> list[dict[str, Any]]:
        """Run a query and return its rows."""
        with self.reading():
            rows: list[dict[str, Any]] = expression.to_pyarrow().to_pylist()
        return rows


def open_source(source: str | Path | None = None) -> Source:
    """Open a ledger, `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST:PORT/NAME`, or a lake folder.

    DuckDB reads a lake, and Spark reads it as `spark:PATH`. Without a source: the first of `default_sources`.

    Raises:
        SourceNotFound: If neither ledger nor exported tables are there, or what reads them is not installed.
        SourceUnavailable: If a database does not answer, or Spark does not start.
        UnreadableSource: If a file is corrupted or not what it should be.
        SchemaMismatch: If a table or column of the published schema is missing.
    """
    if source is None:
        return next(default_sources())
    if spark.is_address(str(source)):
        return _open_in_spark(spark.lake_of(str(source)))
    if "://" in str(source):
        return _open_ledger(str(source))
    return _open_lake(Path(source))


def default_sources() -> Iterator[Source]:
    """Yield the lake ($TURNOUT_LAKE, by default var/lake) if decisions were exported to it, then the ledger.

    That is $TURNOUT_DATABASE, by default sqlite:///var/turnout.db. Both may also stand in turnout.toml. Raises what
    `open_source` does, each when its turn comes.
    """
    folder = Path(_setting("lake", DEFAULT_LAKE))
    if (folder / "logs" / "decisions").is_dir():
        yield _open_lake(folder)
    yield _open_ledger(_setting("database", DEFAULT_DATABASE))


def _setting(name: str, default: str) -> str:
    if value := os.environ.get(f"TURNOUT_{name.upper()}"):
        return value
    try:
        return str(tomllib.loads(_CONFIG_FILE.read_text()).get(name, default))
    except FileNotFoundError:
        return default
    except (OSError, ValueError) as error:
        raise UnreadableSource(f"{_CONFIG_FILE} cannot be read: {error}; correct it or remove it") from error


def _open_ledger(url: str) -> Source:
    if url.startswith(_SQLITE):
        return _open_sqlite(Path(url.removeprefix(_SQLITE)))
    if postgresql.is_address(url):
        return _open_postgresql(url)
    raise SourceNotFound(
        f"source {postgresql.shown(url)!r} cannot be read; use {_SQLITE}PATH or {postgresql.ADDRESS} for a ledger, or "
        f"the path of a lake folder, or {spark.ADDRESS} to read that with Spark"
    )


def _open_sqlite(path: Path) -> Source:
    if not path.is_file():
        raise SourceNotFound(
            f"there is no ledger at {path}; start the router once (`turnout serve`), or set TURNOUT_DATABASE, or "
            "name another source"
        )
    name = f"ledger {path}"
    with _translated(name):
        # Read-only: a report must neither create a file nor hold a write lock on a router's ledger.
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        return Source(name, _ledger_tables(name, ibis.sqlite.from_connection(connection)), _translated)


def _open_postgresql(url: str) -> Source:
    name = f"ledger {postgresql.shown(url)}"
    with postgresql.translated(name):
        return Source(name, _ledger_tables(name, postgresql.connect(url)), postgresql.translated)


def _ledger_tables(name: str, backend: Any) -> Mapping[str, ir.Table]:
    missing = sorted(set(TABLES) - set(backend.list_tables()))
    if missing:
        raise SchemaMismatch(f"{name} has no table {missing[0]!r}; create it with `turnout db upgrade`")
    return {table: typed(name, table, backend.table(table)) for table in TABLES}


def _open_lake(folder: Path) -> Source:
    logs = lake.logs_of(folder)
    return Source(f"lake {logs}", lake.read_tables(logs, lake.duckdb_reader()), lake.translated)


def _open_in_spark(folder: Path) -> Source:
    logs = lake.logs_of(folder)
    name = f"lake {logs} in Spark"
    with spark.translated(name):
        return Source(name, lake.read_tables(logs, spark.reader()), spark.translated)
