"""What the columns of a user's rows are good for, judged by what they hold."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from orchestration.datasets.tables import month_of
from orchestration.errors import CannotScaffold
from orchestration.sources.names import same_but_for_capitals
from orchestration.sources.types import MISSING, truth
from router.documents.base import Name

Kind = Literal["number", "boolean", "category", "time"]
_MOST_CATEGORIES = 100
_FEWEST_OF_A_CLASS = 20
_KEY = re.compile(r"(^|_)(id|key|uuid|guid|number|nr|no)$", re.IGNORECASE)
_NAMELESS = re.compile(r"Unnamed: \d+|__index_level_\d+__")
# Which of them is the month, nobody can tell for sure.
_DATE = re.compile(r"(\d{4}[./-]\d\d?[./-]\d\d?|\d\d?[./-]\d\d?[./-]\d{4}|\d\d[/-]\d\d[/-]\d\d)(\D.*)?")
_MONTH = getattr(month_of("any"), "column", "")
# msgspec takes no such names of fields.
_UNSPEAKABLE = re.compile(r'["\\\x00-\x1f]')
_PADDED = re.compile(r"-?0\d+")
_KINDS: dict[str, Kind] = {
    "boolean": "boolean",
    "integer": "number",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
    "datetime": "time",
    "datetime64": "time",
    "date": "time",
}


class Column(NamedTuple):
    """A column of the schema."""

    name: str
    kind: Kind
    nullable: bool
    unique: bool = False


class Columns(NamedTuple):
    """The columns by what they are used for."""

    label: Column
    features: tuple[Column, ...]
    row_key: Column | None
    time: Column | None
    left_out: dict[str, str]
    """Columns that are not used, and why."""
    rows: int
    rate: float
    """Share of label 1 among rows with a label."""


def columns_of(rows: pd.DataFrame, label: str, time: str | None = None, *, as_written: bool) -> Columns:
    """Sort the columns by use; `as_written` says that all are texts of a CSV, whatever they mean.

    `time` names the column that says when a row was; by default it is the first time without gaps.

    Raises:
        CannotScaffold: The label is missing, or has not two values, or no column could be a feature.
    """
    rate = _rate(rows, label)
    misnamed = dict(_misnamed(rows, label))
    used = [name for name in rows.columns if name != label and name not in misnamed]
    kinds = {str(name): _kind(rows[name], as_written) for name in used}
    found = [Column(name, kind, _gaps(rows[name], kind)) for name, kind in kinds.items() if kind is not None]
    row_key = next((each for each in found if _is_key(rows[each.name], each)), None)
    moment = _time(found, time)
    rest = [each for each in found if each not in (row_key, moment)]
    left_out = {
        **misnamed,
        **{name: _unusable(rows[name]) for name, kind in kinds.items() if kind is None},
        **dict(_unfit(rows, rest)),
    }
    features = tuple(each for each in rest if each.name not in left_out)
    if not features:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "there is no other column"
        raise CannotScaffold(f"no column could help to predict {label!r} ({reasons}): give rows with such columns")
    return Columns(
        Column(label, "number", _gaps(rows[label], "number")),
        features,
        Column(row_key.name, "category", nullable=False, unique=True) if row_key else None,
        moment,
        left_out,
        len(rows),
        rate,
    )


def _rate(rows: pd.DataFrame, label: str) -> float:
    if label not in rows.columns:
        raise CannotScaffold(f"there is no column {label!r}, only {', '.join(map(str, rows.columns))}: correct --label")
    if label == _MONTH:
        raise CannotScaffold(f"the lake needs the name {label!r} itself: rename that column in the source")
    try:
        msgspec.convert(label, Name)
    except msgspec.ValidationError:
        raise CannotScaffold(
            f"outcomes will be named like the label, for which {label!r} will not do: rename that column in the "
            "source, to small letters, digits, - and _, such as "
            f"{re.sub('[^a-z0-9]+', '_', label.lower()).strip('_')[:63] or 'label'}"
        ) from None
    values = truth(_known(rows[label]).dropna())
    numbers = pd.to_numeric(values, errors="coerce")
    if not numbers.isin([0, 1]).all():
        odd = ", ".join(map(str, sorted(set(map(str, values)))[:4]))
        raise CannotScaffold(
            f"the label {label!r} holds {odd}: labels are 0 and 1, yes and no, or true and false; derive such a column "
            "first. For numbers to predict, train elsewhere and publish with models.publish"
        )
    counts = {value: int((numbers == value).sum()) for value in (0, 1)}
    for value, count in counts.items():
        if count < _FEWEST_OF_A_CLASS:
            raise CannotScaffold(
                f"{count} of {len(rows)} rows have {label!r} = {value}; models are trained on at least "
                f"{_FEWEST_OF_A_CLASS} of each: give more rows"
            )
    return counts[1] / len(numbers)


def _misnamed(rows: pd.DataFrame, label: str) -> Iterator[tuple[str, str]]:
    """Columns that cannot be used under the names that they have."""
    alike = same_but_for_capitals((label, *rows.columns))
    for name in rows.columns:
        if _NAMELESS.fullmatch(name):
            yield name, "has no name, as a row number that pandas wrote"
        elif name in alike:
            yield name, f"differs from {alike[name]!r} in capitals only: give it another name"
        elif _UNSPEAKABLE.search(name):
            yield name, "requests cannot carry quotes, backslashes and line breaks in its name: give it another one"
        elif name.lower() == _MONTH:
            yield name, "a name that the lake needs itself: give it another one"


def _time(found: list[Column], named: str | None) -> Column | None:
    times = [each for each in found if each.kind == "time" and not each.nullable]
    if named is None:
        return times[0] if times else None
    for each in times:
        if each.name == named:
            return each
    others = ", ".join(each.name for each in times) or "none"
    raise CannotScaffold(
        f"{named!r} is no column of times without gaps, written as 2025-01-31 or 2025-01-31T12:30:00Z; such are: "
        f"{others}. Correct --time"
    )


def _kind(column: pd.Series, as_written: bool) -> Kind | None:
    values = column.astype("object") if isinstance(column.dtype, pd.CategoricalDtype) else column
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    if inferred != "string":
        return _KINDS.get(inferred)
    known = _known(column).dropna()
    if known.empty:
        return None
    if as_written and set(truth(known)) <= {0, 1}:
        return "number" if set(known) <= {"0", "1"} else "boolean"
    if as_written and _are_numbers(known):
        return "number"
    return "time" if _are_times(known) else "category"


def _known(column: pd.Series) -> pd.Series:
    """The column without the words that files write for what is not known."""
    return column.mask(column.isin(MISSING)) if pd.api.types.infer_dtype(column, skipna=True) == "string" else column


def _gaps(column: pd.Series, kind: Kind) -> bool:
    found = (column == "") if kind == "category" else _known(column).isna()
    return bool((found | column.isna()).any())


def _are_numbers(texts: pd.Series) -> bool:
    # 007 is a name.
    return not texts.map(lambda text: bool(_PADDED.fullmatch(text))).any() and bool(
        pd.to_numeric(texts, errors="coerce").notna().all()
    )


def _are_times(texts: pd.Series) -> bool:
    dashed = texts.str.contains("-", regex=False).all()
    return bool(dashed and pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True).notna().all())


def _is_key(values: pd.Series, column: Column) -> bool:
    named = column.kind in ("number", "category") and bool(_KEY.search(column.name))
    return named and not column.nullable and values.is_unique


def _unusable(column: pd.Series) -> str:
    found = pd.api.types.infer_dtype(column, skipna=True)
    return "nothing but gaps" if _known(column).dropna().empty else f"holds {found} values"


def _unfit(rows: pd.DataFrame, columns: list[Column]) -> Iterator[tuple[str, str]]:
    """Columns that would teach a model nothing, or something that does not come again."""
    for column in columns:
        different = rows[column.name].nunique()
        if column.kind == "time":
            yield column.name, "a time; derive numbers from it, such as the hour"
        elif column.kind == "number" and _has_infinite(rows[column.name]):
            yield column.name, "holds infinite numbers"
        elif column.kind == "category" and _like_dates(rows[column.name]):
            yield column.name, "looks like dates: write them as 2025-01-31"
        elif different == 1 and not column.nullable:
            yield column.name, "always the same"
        elif column.kind == "category" and different > _MOST_CATEGORIES:
            yield column.name, f"{different:,} different texts"


def _has_infinite(numbers: pd.Series) -> bool:
    return bool(np.isinf(pd.to_numeric(_known(numbers)).dropna().astype(float)).any())


def _like_dates(texts: pd.Series) -> bool:
    return all(_DATE.fullmatch(text) for text in texts.dropna().unique() if text)
