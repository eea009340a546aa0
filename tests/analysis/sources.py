"""Generated ledgers, written to an engine and opened as reports open them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analysis.source import Source, open_source
from tests.analysis.ledgers import Ledger
from tests.databases import database


def in_sqlite(ledger: Ledger, folder: Path) -> Source:
    return open_source(ledger.write_sqlite(folder / "ledger.db"))


@contextmanager
def opened(engine: str, ledger: Ledger, folder: Path) -> Iterator[Source]:
    """The ledger in a database, or as the lake's tables for DuckDB."""
    if engine == "duckdb":
        yield open_source(ledger.write_lake(folder / "lake"))
        return
    with database(engine, folder) as url:
        yield open_source(ledger.write(url))
