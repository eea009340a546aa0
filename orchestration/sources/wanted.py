"""What is asked of a source: columns in their types and, where it is read in parts, a span of time."""

from typing import Any, NamedTuple, Protocol

import pandas as pd

from orchestration.errors import SourceInvalid


class Span(NamedTuple):
    """From a moment in UTC up to, and without, another."""

    time: str
    """Column that says when a row was."""
    start: pd.Timestamp
    end: pd.Timestamp

    def __str__(self) -> str:
        return f"from {self.start:%Y-%m-%d} to before {self.end:%Y-%m-%d}"

    def has(self, rows: pd.DataFrame) -> "pd.Series[bool]":
        """Which of the rows lie in it."""
        times = rows[self.time]
        naive = times.dt.tz_localize(None) if times.dt.tz is not None else times
        return (naive >= self.start) & (naive < self.end)


class Wanted(NamedTuple):
    """The columns with their types, as pandas names them, and the span, or all rows."""

    types: tuple[tuple[str, str], ...]
    span: Span | None = None
    nullable: frozenset[str] = frozenset()
    """Columns whose values may be missing."""


class Source(Protocol):
    """Gives the rows that are wanted, in the types that are wanted."""

    @property
    def code(self) -> tuple[Any, ...]:
        """What decides the rows, apart from the data themselves."""

    def rows(self, wanted: Wanted) -> pd.DataFrame:
        """The rows; raises SourceUnavailable and SourceInvalid."""


def require_span(rows: pd.DataFrame, span: Span | None, origin: str, remedy: str) -> pd.DataFrame:
    """The rows, when all of them lie in the span that was asked for: half an answer would go unnoticed."""
    if span is not None and (outside := int((~span.has(rows)).sum())):
        found = rows.loc[~span.has(rows), span.time].iloc[0]
        raise SourceInvalid(
            f"{origin}, asked for {span.time!r} {span}, gave {outside} of {len(rows)} rows outside, such as {found}: "
            f"{remedy}"
        )
    return rows
