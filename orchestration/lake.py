"""The lake: Delta tables in a folder, where writing the same content makes no new version."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from orchestration.content import canonical, content_hash
from orchestration.errors import LakeUnwritable, SchemaConflict, TableBusy, TableCorrupted, TableMissing

_WAITS_S = (0.0, 0.1, 0.3, 1.0, 2.0)
"""Before each attempt to write what others write too."""


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
        for wait_s in _WAITS_S:
            time.sleep(wait_s)
            table = self._open(name)
            if table and new_hash == self._present_hash(table, name, partition, new.column_names):
                return Version(table.version(), new_hash)
            try:
                self._write(name, new, partition)
                return Version(DeltaTable(self.path(name)).version(), new_hash)
            except CommitFailedError:  # another run has written in between
                continue
        raise TableBusy(
            f"{_label(name, partition)} was written by other runs each of {len(_WAITS_S)} times that it was tried: "
            "materialize it again once they have ended"
        )

    def remove_replaced(self, name: str, hours: int) -> None:
        """Delete files whose rows were replaced so many hours ago; versions before that cannot be read any more."""
        table = self._existing(name)
        try:
            table.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False)
        except (DeltaError, OSError) as error:
            path = self.path(name)
            raise LakeUnwritable(
                f"cannot delete replaced files of table {name} in {path}: {_first_line(error)}"
            ) from error

    def read(self, name: str, partition: Partition | None = None, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Rows of the table, or of one partition, without the partition column; TableMissing when none."""
        found = self._rows(self._existing(name), name, partition)
        if partition and not found.num_rows:
            raise TableMissing(f"{_label(name, partition)} was never written: materialize it first")
        selected = found.select(columns) if columns is not None else found
        frame: pd.DataFrame = selected.to_pandas()
        return frame

    def read_version(
        self, name: str, number: int, columns: Sequence[str] | None = None, expected: str | None = None
    ) -> pd.DataFrame:
        """Rows as they were at a version of the table, which models and reports may be older than; TableMissing.

        `expected` is the hash that they have to have: a table that was deleted and made anew counts from 0 again.
        """
        self._existing(name)
        try:
            table = DeltaTable(self.path(name), version=number)
        except (DeltaError, OSError, ValueError) as error:
            raise TableMissing(f"table {name} has no version {number} any more: {_first_line(error)}") from error
        found = self._rows(table, name, None)
        if expected is not None and content_hash(found) != expected:
            raise TableMissing(
                f"version {number} of table {name} holds other rows than those with the content hash {expected}, which "
                f"are gone: {self.path(name)} was deleted and made anew. Put the old folder back, or train again on "
                "what it holds now"
            )
        frame: pd.DataFrame = (found.select(columns) if columns is not None else found).to_pandas()
        return frame

    def holds(self, name: str, data: pd.DataFrame, partition: Partition | None = None) -> bool:
        """Whether the table, or one partition of it, has exactly these rows already."""
        table, wanted = self._open(name), canonical(data)
        if table is None:
            return False
        return content_hash(wanted) == self._present_hash(table, name, partition, wanted.column_names)

    def has_rows(self, name: str, partition: Partition | None = None) -> bool:
        """Whether the table, or one partition of it, was written and is not empty."""
        table = self._open(name)
        return table is not None and self._rows(table, name, partition).num_rows > 0

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
            _refuse_other_partitions(table, name, self.path(name), partition)
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

    def _write(self, name: str, rows: pa.Table, partition: Partition | None) -> None:
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
                # A new table too: another run may be the first to write it.
                predicate=f"{partition.column} = '{partition.value}'",
                schema_mode="merge",
            )
        except CommitFailedError:
            raise
        except OSError as error:
            raise LakeUnwritable(f"cannot write {_label(name, partition)} to {path}: {_first_line(error)}") from error
        except DeltaError as error:
            raise SchemaConflict(
                f"{_label(name, partition)} cannot be written to {path}: {_first_line(error)}. If a column "
                "changed its type, delete that folder and materialize the table again"
            ) from error


def _refuse_other_partitions(table: DeltaTable, name: str, path: Path, partition: Partition | None) -> None:
    parted = table.metadata().partition_columns
    if partition and partition.column not in parted:
        raise SchemaConflict(
            f"table {name} is divided by {', '.join(parted) or 'nothing'}, not by {partition.column}: if its "
            f"partitions were changed, delete {path} and materialize it again"
        )


def _corrupted(name: str, path: Path, error: Exception) -> TableCorrupted:
    return TableCorrupted(f"table {name} is damaged; delete {path} and materialize it again: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _label(name: str, partition: Partition | None) -> str:
    return f"table {name}" + (f", {partition.column} {partition.value}" if partition else "")
