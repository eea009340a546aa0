"""Where results are read from: the router's ledger, or the Delta tables exported from it into a lake."""

import os
import sqlite3
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

import deltalake
import duckdb
import ibis
import ibis.expr.types as ir
from deltalake.exceptions import DeltaError, TableNotFoundError

from analysis import postgresql
from analysis.errors import SchemaMismatch, SourceNotFound, UnreadableSource

DEFAULT_DATABASE = "sqlite:///var/turnout.db"
DEFAULT_LAKE = "var/lake"
_SQLITE = "sqlite:///"
_CONFIG_FILE = Path("turnout.toml")

TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "experiments": {
            "id": "int64",
            "name": "string",
            "endpoint": "string",
            "state": "string",
            "revision": "int64",
            "document": "string",
            "created_ms": "int64",
            "started_ms": "int64",
            "ended_ms": "int64",
        },
        "arms": {"experiment_id": "int64", "arm": "int64", "name": "string", "model": "string"},
        "epochs": {
            "experiment_id": "int64",
            "epoch": "int64",
            "runs": "string",
            "traffic": "int64",
            "reason": "string",
            "published_ms": "int64",
            "basis": "string",
        },
        "decisions": {
            "id": "binary",
            "decided_ms": "int64",
            "endpoint": "string",
            "experiment_id": "int64",
            "epoch": "int64",
            "arm": "int64",
            "propensity": "float64",
            "unit": "string",
            "model": "string",
            "served_model": "string",
            "fallback": "string",
            "context": "string",
            "inputs": "string",
            "predictions": "string",
            "shown": "string",
            "draw": "string",
        },
        "outcomes": {
            "decision_id": "binary",
            "metric": "string",
            "item": "int64",
            "outcome_id": "string",
            "version": "int64",
            "value": "float64",
            "prediction": "float64",
            "experiment_id": "int64",
            "arm": "int64",
            "counted": "boolean",
            "occurred_ms": "int64",
            "received_ms": "int64",
        },
        "shadow_predictions": {
            "decision_id": "binary",
            "model": "string",
            "predictions": "string",
            "error": "string",
            "latency_ms": "float64",
            "recorded_ms": "int64",
        },
    }
)
"""The columns that docs/ledger.md promises, as Ibis types, by table."""


_BEFORE_VERSIONS = {"version": 0, "counted": True}
"""What outcomes were, without saying so, on days that were exported before they had versions."""

_NEWER_TABLES = {"shadow_predictions"}
"""What a lake lacks until logs are exported again: there was nothing to write."""


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except (DeltaError, duckdb.Error, sqlite3.Error) as error:
        first_line = str(error).partition("\n")[0]
        raise UnreadableSource(
            f"{name} cannot be read ({first_line}); it may be corrupted: restore it, or export the logs again"
        ) from error


class Source(NamedTuple):
    """Six Ibis tables of one backend, with the columns of TABLES, and the words that say where they are."""

    name: str
    tables: Mapping[str, ir.Table]
    translated: Callable[[str], AbstractContextManager[None]] = _translated

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

    Without a source: the first of `default_sources`.

    Raises:
        SourceNotFound: If neither ledger nor exported tables are there.
        SourceUnavailable: If a database does not answer.
        UnreadableSource: If a file is corrupted or not what it should be.
        SchemaMismatch: If a table or column of the published schema is missing.
    """
    if source is None:
        return next(default_sources())
    if "://" in str(source):
        return _open_ledger(str(source))
    return _open_lake(Path(source))


def default_sources() -> Iterator[Source]:
    """Yield the lake ($TURNOUT_LAKE, by default var/lake) if decisions were exported to it, then the ledger.

    That is $TURNOUT_DATABASE, by default sqlite:///var/turnout.db. Both may also stand in turnout.toml. Raises what
    `open_source` does, each when its turn comes.
    """
    lake = Path(_setting("lake", DEFAULT_LAKE))
    if (lake / "logs" / "decisions").is_dir():
        yield _open_lake(lake)
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
        "the path of a lake folder"
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
        return Source(name, _ledger_tables(name, ibis.sqlite.from_connection(connection)))


def _open_postgresql(url: str) -> Source:
    name = f"ledger {postgresql.shown(url)}"
    with postgresql.translated(name):
        return Source(name, _ledger_tables(name, postgresql.connect(url)), postgresql.translated)


def _ledger_tables(name: str, backend: Any) -> Mapping[str, ir.Table]:
    missing = sorted(set(TABLES) - set(backend.list_tables()))
    if missing:
        raise SchemaMismatch(f"{name} has no table {missing[0]!r}; create it with `turnout db upgrade`")
    return {table: _typed(name, table, backend.table(table)) for table in TABLES}


def _open_lake(lake: Path) -> Source:
    logs = lake / "logs"
    name = f"lake {logs}"
    if not logs.is_dir():
        raise SourceNotFound(
            f"there are no exported logs at {logs}; materialize the asset group 'logs', or name the ledger "
            f"({_SQLITE}PATH) as the source"
        )
    backend = ibis.duckdb.connect()
    with _translated(name):
        return Source(name, {table: _delta_table(backend, logs / table) for table in TABLES})


def _delta_table(backend: Any, path: Path) -> ir.Table:
    name = f"Delta table {path}"
    with _translated(name):
        try:
            # DuckDB reads Delta itself only with an extension that it downloads.
            files = deltalake.DeltaTable(path).file_uris()
        except TableNotFoundError:
            if path.name in _NEWER_TABLES:
                return backend.create_table(path.name, schema=ibis.schema(TABLES[path.name]), temp=True)
            raise SourceNotFound(f"{name} does not exist; materialize the asset group 'logs'") from None
        if not files:
            return backend.create_table(path.name, schema=ibis.schema(TABLES[path.name]), temp=True)
        rows = _typed(name, path.name, backend.read_parquet(files, table_name=path.name, union_by_name=True))
        return rows.fill_null(_BEFORE_VERSIONS) if path.name == "outcomes" else rows


def _typed(name: str, table: str, rows: ir.Table) -> ir.Table:
    expected = TABLES[table]
    missing = [column for column in expected if column not in rows.columns]
    if missing:
        raise SchemaMismatch(
            f"{name} has no column {missing[0]!r} in {table!r}; it was written by another version of Turnout: "
            "upgrade it (`turnout db upgrade`) or export the logs again"
        )
    kept = rows.select(*expected)
    casts = {
        column: dtype
        for column, dtype in expected.items()
        if kept[column].type().copy(nullable=True) != ibis.dtype(dtype)
    }
    return kept.cast(casts) if casts else kept
