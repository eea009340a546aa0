"""The lake: Delta tables in a folder, where writing the same content makes no new version."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from orchestration.content import canonical, content_hash
from orchestration.errors import LakeUnwritable, SchemaConflict, TableCorrupted, TableMissing


class Version(NamedTuple):
    """A state of a table: its Delta commit number, and the hash of the content that was written."""

    number: int
    content_hash: str


class Partition(NamedTuple):
    """One part of a table that is written as a whole, such as the month of a data set."""

    column: str
    value: str


class Lake:
    """Delta tables below one folder; a table's name is its path there, such as `logs/decisions`."""

    def __init__(self, root: Path):
        self.root = root

    def path(self, name: str) -> Path:
        """Folder of the table."""
        return self.root / name

    def write_if_changed(self, name: str, data: pd.DataFrame | pa.Table, partition: Partition | None = None) -> Version:
        """Replace the table, or one partition of it, unless it already holds exactly these rows."""
        new = canonical(data)
        new_hash = content_hash(new)
        table = self._open(name)
        if table and new_hash == self._present_hash(table, name, partition, new.column_names):
            return Version(table.version(), new_hash)
        self._write(name, new, partition, exists=table is not None)
        return Version(DeltaTable(self.path(name)).version(), new_hash)

    def read(self, name: str, partition: Partition | None = None, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Rows of the table, or of one partition, without the partition column; TableMissing when none."""
        found = self._rows(self._existing(name), name, partition)
        if partition and not found.num_rows:
            raise TableMissing(f"{_label(name, partition)} was never written: materialize it first")
        selected = found.select(columns) if columns is not None else found
        frame: pd.DataFrame = selected.to_pandas()
        return frame

    def partitions(self, name: str) -> list[str]:
        """Values of the partition column for which the table has rows, sorted."""
        return sorted({value for entry in self._existing(name).partitions() for value in entry.values()})

    def version(self, name: str) -> Version:
        """The table's present version, hashed from the rows that are really there."""
        table = self._existing(name)
        rows = self._rows(table, name, None)
        return Version(table.version(), content_hash(rows))

    def _existing(self, name: str) -> DeltaTable:
        table = self._open(name)
        if table is None:
            raise TableMissing(f"table {name} was never written: materialize it first")
        return table

    def _open(self, name: str) -> DeltaTable | None:
        try:
            return DeltaTable(self.path(name))
        except TableNotFoundError:
            return None
        except (DeltaError, OSError, ValueError) as error:
            raise _corrupted(name, self.path(name), error) from error

    def _rows(self, table: DeltaTable, name: str, partition: Partition | None) -> pa.Table:
        filters = [(partition.column, "=", partition.value)] if partition else None
        try:
            rows = table.to_pyarrow_table(filters=filters)
            parted = table.metadata().partition_columns
        except (DeltaError, OSError, ValueError) as error:
            raise _corrupted(name, self.path(name), error) from error
        return canonical(rows.drop_columns(parted))

    def _present_hash(self, table: DeltaTable, name: str, partition: Partition | None, columns: list[str]) -> str:
        rows = self._rows(table, name, partition)
        # A column that an older declaration had, and other partitions still hold, is empty here.
        gone = [c for c in rows.column_names if c not in columns and rows[c].null_count == rows.num_rows]
        return content_hash(rows.drop_columns(gone))

    def _write(self, name: str, rows: pa.Table, partition: Partition | None, *, exists: bool) -> None:
        path = self.path(name)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if partition is None:
                write_deltalake(path, rows, mode="overwrite", schema_mode="overwrite")
                return
            column = pa.array([partition.value] * rows.num_rows, pa.string())
            write_deltalake(
                path,
                rows.append_column(partition.column, column),
                mode="overwrite",
                partition_by=[partition.column],
                predicate=f"{partition.column} = '{partition.value}'" if exists else None,
                schema_mode="merge" if exists else None,
            )
        except OSError as error:
            raise LakeUnwritable(f"cannot write {_label(name, partition)} to {path}: {_first_line(error)}") from error
        except DeltaError as error:
            raise SchemaConflict(
                f"{_label(name, partition)} cannot be written to {path}: {_first_line(error)}. If a column "
                "changed its type, delete that folder and materialize the table again"
            ) from error


def _corrupted(name: str, path: Path, error: Exception) -> TableCorrupted:
    return TableCorrupted(f"table {name} is damaged; delete {path} and materialize it again: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _label(name: str, partition: Partition | None) -> str:
    return f"table {name}" + (f", {partition.column} {partition.value}" if partition else "")
