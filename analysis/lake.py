"""The Delta tables that logs are exported to: the files that they consist of, and DuckDB as their reader."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import deltalake
import duckdb
import ibis
import ibis.expr.types as ir
from deltalake.exceptions import DeltaError, TableNotFoundError

from analysis.errors import SourceNotFound, UnreadableSource
from analysis.schema import TABLES, typed

_BEFORE_VERSIONS = {"version": 0, "counted": True}
"""What outcomes were, without saying so, on days that were exported before they had versions."""

_NEWER_TABLES = {"shadow_predictions"}
"""What a lake lacks until logs are exported again: there was nothing to write."""


class Files(NamedTuple):
    """What a Delta table consists of now; nothing, if no row was ever written."""

    paths: list[str]
    columns: str
    """Names and types as Delta and Spark write them in JSON."""


Reader = Callable[[str, Files], ir.Table]
"""Makes a table of an engine from a table's name and files."""


def logs_of(lake: Path) -> Path:
    """Return the folder of the exported logs.

    Raises:
        SourceNotFound: Nothing was exported.
    """
    logs = lake / "logs"
    if not logs.is_dir():
        raise SourceNotFound(
            f"there are no exported logs at {logs}; materialize the asset group 'logs', or name the ledger "
            "(sqlite:///PATH) as the source"
        )
    return logs


def read_tables(logs: Path, read: Reader) -> Mapping[str, ir.Table]:
    """Return every table of the published schema, as an engine reads it.

    Raises:
        SourceNotFound: A table was never exported.
        UnreadableSource: A table's log or files are damaged.
        SchemaMismatch: A column is missing.
    """
    return {table: _read_table(logs / table, read) for table in TABLES}


def _read_table(path: Path, read: Reader) -> ir.Table:
    name = f"Delta table {path}"
    with translated(name):
        rows = typed(name, path.name, read(path.name, _files(name, path)))
    return rows.fill_null(_BEFORE_VERSIONS) if path.name == "outcomes" else rows


def _files(name: str, path: Path) -> Files:
    # Engines read Delta itself only with an extension that they download.
    try:
        table = deltalake.DeltaTable(path)
    except TableNotFoundError:
        if path.name in _NEWER_TABLES:
            return Files([], "")
        raise SourceNotFound(f"{name} does not exist; materialize the asset group 'logs'") from None
    return Files([unquote(uri) for uri in table.file_uris()], table.schema().to_json())


def duckdb_reader() -> Reader:
    """Return a reader of a new DuckDB in memory."""
    backend = ibis.duckdb.connect()

    def read(table: str, files: Files) -> ir.Table:
        if not files.paths:
            return backend.create_table(table, schema=ibis.schema(TABLES[table]), temp=True)
        return backend.read_parquet(files.paths, table_name=table, union_by_name=True)

    return read


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn what Delta and DuckDB raise into an UnreadableSource of that name."""
    try:
        yield
    except (DeltaError, duckdb.Error) as error:
        first_line = str(error).partition("\n")[0]
        raise UnreadableSource(
            f"{name} cannot be read ({first_line}); it may be corrupted: export the logs again"
        ) from error
