"""Columns as a source has them, in the types that the schema declares."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from orchestration.errors import SourceInvalid

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
"""How files write that a number, a time or a truth value is not known; a text is missing only where it is empty."""
_WORDS = {"true": 1, "t": 1, "yes": 1, "y": 1, "1": 1, "false": 0, "f": 0, "no": 0, "n": 0, "0": 0}


def typed(
    rows: pd.DataFrame, types: Iterable[tuple[str, str]], origin: str, optional: Collection[str] = ()
) -> pd.DataFrame:
    """The declared columns in their types; others are left out, and those of `optional` that are not there are gaps.

    Raises:
        SourceInvalid: A column is missing, or a value of it has another type.
    """
    wanted = dict(types)
    require_columns((name for name in wanted if name not in optional), rows.columns, origin)
    require_once(rows[[name for name in wanted if name in rows.columns]], origin)
    there = rows.reindex(columns=list(wanted))
    return pd.DataFrame({name: _column(there[name], kind, origin) for name, kind in wanted.items()})


def require_columns(wanted: Iterable[str], found: Collection[str], origin: str) -> None:
    """Raise SourceInvalid for wanted columns that were not found."""
    if missing := [name for name in wanted if name not in found]:
        raise SourceInvalid(
            f"{origin} has no column {', '.join(map(repr, missing))}, only {', '.join(map(str, found))}: "
            "correct the source, or the schema"
        )


def require_once(rows: pd.DataFrame, origin: str) -> None:
    """Raise SourceInvalid for columns of the same name."""
    for name in rows.columns[rows.columns.duplicated()]:
        raise SourceInvalid(
            f"{origin} has the column {name!r} twice, so that it is unclear which is meant: give one another name"
        )


def is_text(kind: str) -> bool:
    """Whether values of the type are texts."""
    return kind == "str"


def is_time(kind: str) -> bool:
    """Whether values of the type are moments."""
    return kind.startswith("datetime64")


def truth(column: pd.Series) -> pd.Series:
    """The column with yes and no, true and false, in numbers, if it has nothing else."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.astype("Int64" if column.hasnans else "int64")
    words = column.dropna().map(lambda value: str(value).lower())
    if pd.api.types.is_numeric_dtype(column.dtype) or not set(words) <= set(_WORDS):
        return column
    return words.map(_WORDS).reindex(column.index)


def _column(column: pd.Series, kind: str, origin: str) -> pd.Series:
    convert: Callable[[pd.Series, str], pd.Series] = _texts if is_text(kind) else _times if is_time(kind) else _numbers
    try:
        return convert(column, kind)
    except (ValueError, TypeError, OverflowError) as error:
        raise SourceInvalid(
            f"{origin}: column {column.name!r} does not hold {kind} only: {str(error).splitlines()[0]}; "
            "correct the source, or the type in the schema"
        ) from error


def _texts(column: pd.Series, _: str) -> pd.Series:
    texts = column.astype("str") if isinstance(column.dtype, pd.StringDtype) else _written(column)
    # A model is served the empty text where a category is missing.
    return texts.mask(texts == "")


def _written(column: pd.Series) -> pd.Series:
    """Each value as a text that does not depend on the others: pandas writes 1 as 1.0 beside a gap or a fraction."""
    return column.astype("object").map(_text, na_action="ignore").astype("str")


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _times(column: pd.Series, kind: str) -> pd.Series:
    texts = not pd.api.types.is_datetime64_any_dtype(column.dtype)
    moments = pd.to_datetime(column, utc=True, format="ISO8601" if texts else None)
    wanted: Any = pd.api.types.pandas_dtype(kind)
    return moments.dt.tz_convert(getattr(wanted, "tz", None)).astype(wanted)


def _numbers(column: pd.Series, kind: str) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise ValueError("these are times")
    numbers = pd.to_numeric(truth(column))
    if kind == "bool" and not numbers.isin([0, 1]).all():
        raise ValueError("a value is missing, or neither true nor false; as float it may be missing")
    converted = numbers.astype(np.dtype(kind))
    if converted.dtype.kind in "iu" and (odd := numbers[converted != numbers]).size:
        raise ValueError(f"such as {odd.iloc[0]}")
    return converted
