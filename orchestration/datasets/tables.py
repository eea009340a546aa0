"""Reading and describing the tables behind dataset assets."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from orchestration.datasets.declaration import Dataset, Inputs
from orchestration.lake import Lake, Partition, Version


def month_of(key: str) -> Partition | None:
    """The lake's partition for a month that starts on the day `key`; none for an undivided table."""
    return Partition("month_start", key) if key else None


def read_months(lake: Lake, table: str, months: Sequence[str]) -> pd.DataFrame:
    """The table's rows of these months, in this order."""
    return pd.concat([lake.read(table, month_of(month)) for month in months], ignore_index=True)


def read_inputs(
    lake: Lake, dataset: Dataset, datasets: Mapping[str, Dataset], months: Sequence[str], month: str
) -> Inputs:
    """What the dataset is built from for one month; earlier ones of `months` are read where wanted."""
    frames = {}
    for name, back in dataset.inputs:
        source = datasets[name]
        position = months.index(month) if source.monthly else 0
        wanted = months[max(0, position - back) : position + 1] if source.monthly else [""]
        frames[name] = read_months(lake, source.table, wanted)
    return frames


def described(frame: pd.DataFrame, version: Version, counts: Mapping[str, int], *, partitioned: bool) -> dict[str, Any]:
    """Metadata of a dataset's materialization: size, columns, version, and the first rows."""
    columns = [dg.TableColumn(str(name), str(kind)) for name, kind in frame.dtypes.items()]
    return {
        "dagster/partition_row_count" if partitioned else "dagster/row_count": len(frame),
        "dagster/column_schema": dg.TableSchema(columns),
        **counts,
        "delta_version": version.number,
        "content_hash": version.content_hash,
        "first_rows": dg.MetadataValue.md(markdown_table(frame.head(3).T.reset_index(names="column"))),
    }


def markdown_table(frame: pd.DataFrame) -> str:
    """The frame as a Markdown table."""
    rows = [frame.columns, ["---"] * len(frame.columns), *frame.astype(object).to_numpy()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows)
