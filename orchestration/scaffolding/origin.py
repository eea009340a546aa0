"""Where a new endpoint's rows come from: read once to see what they hold, and how that stands in the file."""

import inspect
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from orchestration.errors import CannotScaffold, SourceUnavailable
from orchestration.scaffolding import sample
from orchestration.scaffolding.text import WIDTH, SourceText, quoted
from orchestration.sources.address import holds_password, shown
from orchestration.sources.files import files_of, read
from orchestration.sources.query import Query

_ALL_TIME = {"start": pd.Timestamp("1900-01-01").to_pydatetime(), "end": pd.Timestamp("2200-01-01").to_pydatetime()}


class Origin(NamedTuple):
    """Rows as their source has them, and the source as the file will have it."""

    name: str
    rows: pd.DataFrame
    text: SourceText
    as_written: bool = False
    """Whether all columns are texts of CSV files, whatever they mean."""
    bounded: bool | None = None
    """Whether the source has to be read by partition, or must not be; None when both will do."""


def from_files(path: Path) -> Origin:
    """Every CSV and Parquet file of a folder, or one file."""
    found = files_of(path)
    kinds = {file.suffix == ".parquet" for file in found}
    if len(kinds) > 1:
        raise CannotScaffold(f"{path} has CSV and Parquet files, whose types differ: give a folder with one of both")
    rows = pd.concat([read(file, None) for file in found], ignore_index=True)
    absolute, here = path.resolve(), Path.cwd()
    shown = absolute.relative_to(here) if absolute.is_relative_to(here) else absolute
    return Origin(str(path), rows, SourceText(f"Files({quoted(shown.as_posix())})"), as_written=not kinds.pop())


def from_query(url: str, file: Path) -> Origin:
    """The rows of a query."""
    try:
        text = file.read_text(encoding="utf-8").strip().removesuffix(";")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotScaffold(f"the query {file} cannot be read: {error}; correct --query") from error
    query = "\n".join(line.rstrip() for line in text.splitlines())
    _refuse_password(url)
    bounded = ":start" in query and ":end" in query
    rows = Query(url, query).answer(_ALL_TIME if bounded else {})
    literal = query.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    too_wide = "  # noqa: E501" if max(map(len, literal.splitlines()), default=0) > WIDTH else ""
    before = f'QUERY = """\n{literal}\n"""{too_wide}\n'
    source = SourceText(f"Query({quoted(url)}, QUERY)", before=before)
    return Origin(f"the query on {shown(url)}", rows, source, bounded=bounded)


def from_sample() -> Origin:
    """Made-up rows, and the function that makes them."""
    before = inspect.getsource(sample.visits)
    imports = ("import numpy as np", "import pandas as pd")
    source = SourceText(f"Function({sample.visits.__name__})", imports, f"\n{before}\n")
    return Origin("the sample", sample.visits(), source, bounded=False)


def _refuse_password(url: str) -> None:
    try:
        written_out = holds_password(url)
    except SourceUnavailable as error:
        raise CannotScaffold(f"--sql: {error}") from error
    if written_out:
        raise CannotScaffold(
            "the address holds a password, which would stand in the file: write ${NAME} in its place, in single quotes "
            "against the shell, and set the environment variable NAME"
        )
