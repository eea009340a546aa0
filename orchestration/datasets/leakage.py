"""Finds features that know the future: rebuild a day from what was known as it began, and compare exactly."""

from collections.abc import Sequence

import pandas as pd

from orchestration.datasets.declaration import Dataset, Inputs, Rewind

_SAMPLED_DAYS = 3


def sample_days(frame: pd.DataFrame, rewind: Rewind) -> list[pd.Timestamp]:
    """A few days of the frame, evenly spread, the last one included: always the same for the same frame."""
    days = sorted(frame[rewind.day].unique())
    step = max(1, len(days) // _SAMPLED_DAYS)
    return [pd.Timestamp(day) for day in days[::-1][::step][:_SAMPLED_DAYS]]


def leaking_columns(
    dataset: Dataset, frame: pd.DataFrame, inputs: Inputs, month: str, days: Sequence[pd.Timestamp]
) -> dict[str, int]:
    """Rows of these days that change once the future is removed, by column; empty when all is well."""
    rewind = dataset.rewind
    if rewind is None:
        return {}
    found: dict[str, int] = {}
    for day in days:
        rebuilt = dataset.build(rewind.inputs(inputs, day), month).frame
        for column, count in _differences(_of_day(frame, rewind, day), _of_day(rebuilt, rewind, day)).items():
            found[column] = found.get(column, 0) + count
    return found


def _of_day(frame: pd.DataFrame, rewind: Rewind, day: pd.Timestamp) -> pd.DataFrame:
    rows = frame[frame[rewind.day] == day].drop(columns=list(rewind.outcomes))
    return rows.set_index(rewind.key).sort_index()


def _differences(stored: pd.DataFrame, rebuilt: pd.DataFrame) -> dict[str, int]:
    if not stored.index.equals(rebuilt.index):
        return {str(stored.index.name): len(stored.index.symmetric_difference(rebuilt.index))}
    counts = {str(column): int((~_same(stored[column], rebuilt[column])).sum()) for column in stored.columns}
    return {column: count for column, count in counts.items() if count}


def _same(left: pd.Series, right: pd.Series) -> pd.Series:
    return (left == right) | (left.isna() & right.isna())
