"""Writes the file of a new endpoint: whole, or not at all."""

import keyword
import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from orchestration import endpoints
from orchestration.endpoints.discovery import discover
from orchestration.errors import CannotScaffold
from orchestration.scaffolding.columns import Column, Columns, columns_of
from orchestration.scaffolding.origin import Origin
from orchestration.scaffolding.text import Partitioning, file_text
from orchestration.sources.types import require_once, typed

FOLDER = Path(endpoints.__file__).parent
"""Where endpoints are declared."""
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
# Rollouts are named after the endpoint, the recipe and the version.
_LONGEST = 32
_FEWEST_MONTHS, _MOST_MONTHS = 2, 60


class Written(NamedTuple):
    """A new endpoint's file, and what it says of the columns."""

    endpoint: str
    file: Path
    columns: Columns
    partitioning: Partitioning | None


def write_endpoint(name: str, origin: Origin, label: str, time: str | None = None) -> Written:
    """Declare an endpoint for these rows in a new file.

    Raises:
        CannotScaffold: The name, the label or the rows do not do, or the file is there already.
        SourceInvalid: Two columns have the same name.
        EndpointBroken: Another file cannot be imported.
    """
    file = file_of(name)
    _refuse_taken(name)
    require_once(origin.rows, origin.name)
    columns = columns_of(origin.rows, label, time, as_written=origin.as_written)
    partitioning = _partitioning(origin, columns.time)
    _write_once(file, file_text(name, origin.text, columns, partitioning))
    return Written(name, file, columns, partitioning)


def file_of(name: str) -> Path:
    """Where an endpoint of that name is declared, if it can be."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(name):
        raise CannotScaffold(
            f"{name!r} is no name for an endpoint: use 1 to {_LONGEST} small letters and digits, with single - or _ "
            "between them, beginning with a letter, such as shop-visits"
        )
    file = FOLDER / f"{name.replace('-', '_')}.py"
    if file.exists():
        raise CannotScaffold(f"{file} is there already: choose another name, or move it away")
    return file


def _refuse_taken(name: str) -> None:
    """The file's data are named like the endpoint."""
    for other in discover():
        if other.data.name == name.replace("-", "_"):
            raise CannotScaffold(
                f"{name!r} is the name of data of the endpoint {other.name} already: choose another name"
            )


def _partitioning(origin: Origin, time: Column | None) -> Partitioning | None:
    """By month, where that makes a handful of partitions or the source asks for it."""
    if origin.bounded and time is None:
        raise CannotScaffold("the query takes :start and :end, but no column of it is a time without gaps: select one")
    if time is None or origin.bounded is False:
        return None
    times = typed(origin.rows[[time.name]], [(time.name, "datetime64[us, UTC]")], "the source")[time.name]
    first, last = times.min(), times.max()
    months = (last.year - first.year) * 12 + last.month - first.month + 1
    # Months to come are not read yet.
    if not origin.bounded and (not _FEWEST_MONTHS < months <= _MOST_MONTHS or last > pd.Timestamp.now("UTC")):
        return None
    return Partitioning("month", f"{first:%Y-%m}-01")


def _write_once(file: Path, text: str) -> None:
    """Link the complete file into place, which fails when another one got there first."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8") as whole:
            whole.write(text)
            whole.flush()
            os.link(whole.name, file)
            file.chmod(0o644)
    except FileExistsError:
        raise CannotScaffold(f"{file} is there already: choose another name, or move it away") from None
    except OSError as error:
        raise CannotScaffold(f"{file} cannot be written: {error.strerror}") from error
