"""A folder of CSV and Parquet files as one table: all files in it, so that a new file means new rows."""

import os
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from orchestration.errors import SourceUnavailable
from orchestration.sources.types import MISSING, is_text, require_columns, typed
from orchestration.sources.wanted import Wanted

SUFFIXES = (".csv", ".csv.gz", ".parquet")
_SEPARATORS = (",", ";", "\t", "|")


class Files(NamedTuple):
    """Every CSV and Parquet file in a folder and the folders below it, or one file.

    A file may lack columns that are nullable, such as those that came up later.
    """

    path: str

    @property
    def code(self) -> tuple[Any, ...]:
        """The path."""
        return (self.path,)

    def rows(self, wanted: Wanted) -> pd.DataFrame:
        """The rows of all files; they are read as a whole, and once for all partitions while no file changes."""
        state = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files_of(Path(self.path)))
        rows = _read_all(state, wanted._replace(span=None))
        return rows if wanted.span is None else rows[wanted.span.has(rows)].reset_index(drop=True)


def files_of(path: Path) -> list[Path]:
    """The files to read, in the order of their names; SourceUnavailable when there are none."""
    if not path.exists():
        raise SourceUnavailable(f"{path} does not exist (seen from {Path.cwd()}): correct the path")
    found = sorted(file for file in ([path] if path.is_file() else path.rglob("*")) if _is_data(file))
    if not found:
        raise SourceUnavailable(f"{path} has no file that ends in {', '.join(SUFFIXES)}: correct the path")
    return found


def read(file: Path, texts: Iterable[str] | None) -> pd.DataFrame:
    """One file; in a CSV these columns, or all, are texts as they stand there."""
    try:
        return _read_parquet(file) if file.suffix == ".parquet" else _read_csv(file, texts)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceUnavailable(f"{file} cannot be read: {reason}; correct the file, or take it away") from error


def _is_data(file: Path) -> bool:
    return file.is_file() and file.name.endswith(SUFFIXES) and not file.name.startswith((".", "_"))


def _read_parquet(file: Path) -> pd.DataFrame:
    # Whole numbers stay whole beside gaps.
    rows = pd.read_parquet(file, dtype_backend="numpy_nullable")
    # An index with a name is a column that somebody moved there.
    return rows.reset_index([name for name in rows.index.names if name is not None]).rename(columns=str)


def _read_csv(file: Path, texts: Iterable[str] | None) -> pd.DataFrame:
    head = pd.read_csv(file, sep="\x01", nrows=0, dtype=str, encoding="utf-8-sig")
    separator = max(_SEPARATORS, key=str(head.columns[0]).count)
    names = pd.read_csv(file, sep=separator, nrows=0, encoding="utf-8-sig").columns
    as_text = set(names) if texts is None else set(texts)
    rows = pd.read_csv(
        file,
        sep=separator,
        encoding="utf-8-sig",
        dtype={name: "str" for name in names if name in as_text},
        keep_default_na=False,
        # "NA" may be Namibia.
        na_values={name: [""] if name in as_text else list(MISSING) for name in names},
        low_memory=False,
    )
    if not isinstance(rows.index, pd.RangeIndex):
        raise ValueError("its rows have more values than the header has names")
    return rows


@lru_cache(maxsize=1)
def _read_all(state: tuple[tuple[Path, int, int], ...], wanted: Wanted) -> pd.DataFrame:
    texts = [name for name, kind in wanted.types if is_text(kind)]
    tables: list[pd.DataFrame] = []
    found: dict[str, None] = {}
    for file, _, _ in state:
        rows = read(file, texts)
        found |= dict.fromkeys(rows.columns)
        tables.append(typed(rows, wanted.types, str(file), wanted.nullable))
    require_columns(dict(wanted.types), found, os.path.commonpath([file for file, _, _ in state]))
    return pd.concat(tables, ignore_index=True)
