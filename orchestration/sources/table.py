"""An endpoint's data in one step: a table of rows from a source, and its split into training and validation."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import dagster as dg
import pandas as pd

from orchestration.datasets.declaration import Built, Data, Dataset, Inputs, Period
from orchestration.datasets.tables import part_of
from orchestration.sources import split, types
from orchestration.sources.names import made_key, same_but_for_capitals
from orchestration.sources.split import Split
from orchestration.sources.wanted import Source, Span, Wanted

Every = Literal["month", "day"]
_STEPS = {"month": pd.DateOffset(months=1), "day": pd.DateOffset(days=1)}


def from_source(
    source: Source,
    *,
    name: str,
    schema: Any,
    label: str,
    row_key: str | None = None,
    time: str | None = None,
    every: Every | None = None,
    start: str | None = None,
    cluster: str | None = None,
    validation_share: float = 0.2,
) -> Data:
    """Data whose rows come from one source.

    `schema` (pandera) says which columns are kept and in which types, and blocks what breaks it. The rows that are last
    by `time` validate, or without it those that a hash of `row_key` picks. With `every` and `start` (such as
    "2025-01-01") the source is read by month or by day of `time`, in UTC, else as a whole. Intervals resample values of
    `cluster`, such as a customer or a day, or single rows.
    """
    kinds = types_of(schema)
    nullable = frozenset(str(name) for name, column in schema.columns.items() if column.nullable)
    _check_columns(kinds, (label, row_key, time, cluster))
    partitions = _partitions(time, every, start)
    if (part := part_of(partitions, "any")) and partitions and part.column in map(str.lower, dict(kinds)):
        raise ValueError(f"the lake needs the name {part.column!r} itself: rename that column in the source")
    key = row_key or made_key(dict(kinds))
    rows = Dataset(
        f"{name}_rows",
        f"Rows of `{name}` in the declared types, as its source has them ({type(source).__name__}).",
        _builder(source, Wanted(kinds, nullable=nullable), key, time, every),
        (*source.code, kinds, key, time, every, types, row_ids),
        partitioned=every is not None,
        outside=True,
        schema=schema,
    )
    columns = tuple(dict.fromkeys((key, *dict(kinds))))

    def period(part: Literal["train", "validation"], purpose: str) -> Period:
        which = f"last by `{time}`" if time else f"picked by a hash of `{key}`"
        split_off = f"{validation_share:.0%} of the rows with a label, {which}"
        description = f"{'All but' if part == 'train' else 'The'} {split_off}: {purpose}"
        dealt = Split(part, validation_share, key, time)
        return Period(f"{name}_{part}", description, (), columns, required=(label,), cut=dealt.of, code=(dealt, split))

    return Data(
        name=name,
        datasets=(rows,),
        partitions=partitions,
        features_from=rows.name,
        row_key=key,
        cluster=cluster or key,
        train=period("train", "models learn from them."),
        validation=period("validation", "models are judged on them."),
    )


def types_of(schema: Any) -> tuple[tuple[str, str], ...]:
    """The declared columns with the names of their types."""
    untyped = [name for name, column in schema.columns.items() if column.dtype is None]
    if untyped:
        raise ValueError(f"the schema gives no type for {', '.join(map(repr, untyped))}: such as pa.Column(float)")
    kinds = {str(name): str(column.dtype) for name, column in schema.columns.items()}
    return tuple((name, "str" if kind.startswith("string") else kind) for name, kind in kinds.items())


def row_ids(rows: pd.DataFrame) -> pd.Series:
    """A text for each row made from its values; rows that are alike are numbered."""
    hashes = pd.util.hash_pandas_object(rows, index=False)
    numbers = hashes.groupby(hashes).cumcount()
    texts = [f"{value:016x}-{number}" for value, number in zip(hashes, numbers, strict=True)]
    return pd.Series(texts, index=rows.index, dtype="str")


def _check_columns(kinds: Sequence[tuple[str, str]], named: Sequence[str | None]) -> None:
    if unknown := [name for name in named if name is not None and name not in dict(kinds)]:
        raise ValueError(f"the schema has no column {unknown[0]!r}, only {', '.join(dict(kinds))}")
    for name, other in same_but_for_capitals(dict(kinds)).items():
        raise ValueError(f"{other!r} and {name!r} differ in capitals only: rename one of these columns in the source")


def _builder(
    source: Source, wanted: Wanted, key: str, time: str | None, every: Every | None
) -> Callable[[Inputs, str], Built]:
    def build(_: Inputs, partition: str) -> Built:
        span = None
        if partition and time and every:
            start = pd.Timestamp(partition)
            span = Span(time, start, start + _STEPS[every])
        rows = source.rows(wanted._replace(span=span))
        return Built(rows if key in rows.columns else rows.assign(**{key: row_ids(rows)}))

    return build


def _partitions(time: str | None, every: Every | None, start: str | None) -> dg.TimeWindowPartitionsDefinition | None:
    if every is None:
        return None
    if time is None or start is None:
        raise ValueError(f'every="{every}" also needs time, a column, and start, such as "2025-01-01"')
    # The present month or day is read too, as far as it has got.
    if every == "day":
        return dg.DailyPartitionsDefinition(start_date=start, end_offset=1)
    return dg.MonthlyPartitionsDefinition(start_date=start, end_offset=1)
