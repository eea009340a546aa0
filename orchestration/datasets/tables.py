"""Reading and describing the tables behind dataset assets."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from orchestration.datasets.declaration import Data, Dataset, Inputs
from orchestration.lake import Lake, Partition, Version


def month_of(key: str) -> Partition | None:
    """The lake's partition for a month that starts on the day `key`; none for an undivided table."""
    return Partition("month_start", key) if key else None


def part_of(partitions: dg.TimeWindowPartitionsDefinition | None, key: str) -> Partition | None:
    """The lake's partition with this key; none for an undivided table."""
    return Partition("day", key) if key and isinstance(partitions, dg.DailyPartitionsDefinition) else month_of(key)


def read_partitions(lake: Lake, table: str, data: Data, keys: Sequence[str]) -> pd.DataFrame:
    """The table's rows of these partitions, in this order."""
    return pd.concat([lake.read(table, part_of(data.partitions, key)) for key in keys], ignore_index=True)


def read_inputs(lake: Lake, dataset: Dataset, data: Data, key: str) -> Inputs:
    """What the dataset is built from for one partition; earlier ones are read where wanted."""
    datasets, keys = by_name(data.datasets), data.keys
    frames = {}
    for name, back in dataset.inputs:
        source = datasets[name]
        position = keys.index(key) if source.partitioned else 0
        wanted = keys[max(0, position - back) : position + 1] if source.partitioned else [""]
        frames[name] = read_partitions(lake, source.table, data, wanted)
    return frames


def by_name(datasets: Sequence[Dataset]) -> dict[str, Dataset]:
    """The datasets by their names."""
    return {dataset.name: dataset for dataset in datasets}


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
