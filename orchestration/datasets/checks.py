"""The blocking checks of datasets: the declared schema holds, no feature knows the future, each row is there once."""

from typing import Any

import dagster as dg
import pandas as pd
import pandera.pandas as pa

from orchestration.datasets.declaration import Data, Dataset, Period, Rewind
from orchestration.datasets.leakage import leaking_columns, sample_days
from orchestration.datasets.tables import by_name, markdown_table, part_of, read_inputs
from orchestration.lake import Lake


def schema_check(dataset: Dataset, data: Data) -> dg.AssetChecksDefinition:
    """Blocks what is downstream of rows that break the dataset's schema."""

    @dg.asset_check(
        asset=dataset.name,
        name="schema",
        blocking=True,
        description="Every column has its type and keeps its limits.",
    )
    def schema(context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        part = part_of(data.partitions, _key(context))
        if dataset.outside and not lake.has_rows(dataset.table, part):
            return dg.AssetCheckResult(passed=True, metadata={"rows": 0})
        frame = lake.read(dataset.table, part)
        try:
            dataset.schema.validate(frame, lazy=True)
        except pa.errors.SchemaErrors as errors:
            cases = errors.failure_cases[["column", "check", "failure_case", "index"]]
            columns = ", ".join(sorted(set(cases["column"].astype(str))))
            return dg.AssetCheckResult(
                passed=False,
                description=f"{len(cases)} violations in {columns}",
                metadata={"violations": dg.MetadataValue.md(markdown_table(cases.head(20)))},
            )
        return dg.AssetCheckResult(passed=True, metadata={"rows": len(frame)})

    return schema


def leakage_check(dataset: Dataset, rewind: Rewind, data: Data) -> dg.AssetChecksDefinition:
    """Blocks what is downstream of a feature that changes when the future is removed."""

    @dg.asset_check(
        asset=dataset.name,
        name="leakage",
        blocking=True,
        description="Days rebuilt from what was known when they began have exactly the same features.",
    )
    def leakage(context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        found: dict[str, int] = {}
        days = []
        for key in [_key(context)] if _key(context) else lake.partitions(dataset.table):
            frame = lake.read(dataset.table, part_of(data.partitions, key))
            inputs = read_inputs(lake, dataset, data, key)
            sampled = sample_days(frame, rewind)
            found |= leaking_columns(dataset, frame, inputs, key, sampled)
            days += sampled
        return dg.AssetCheckResult(
            passed=not found,
            description=f"changed without the future: {', '.join(found)}" if found else None,
            metadata={"days": [day.strftime("%Y-%m-%d") for day in days], "rows_changed_by_column": found},
        )

    return leakage


def row_key_check(period: Period, data: Data) -> dg.AssetChecksDefinition:
    """Blocks what is downstream of a row that stands twice, maybe to be learned from and judged on.

    Partitions are read one at a time: a row whose time moves to another one is in both until the old one is read again.
    """
    source = by_name(data.datasets)[data.features_from]

    @dg.asset_check(
        asset=period.name,
        name="row_key",
        blocking=True,
        description=f"`{data.row_key}` tells apart all rows of {source.name} that models learn from or are judged on.",
    )
    def row_key(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        used = {*data.train.partitions, *data.validation.partitions}
        parts = [part for part in lake.partitions(source.table) if part in used] if used else [""]
        keys = pd.concat([_row_keys(lake, data, period, part) for part in parts], ignore_index=True)
        twice = keys[keys.duplicated()].unique().tolist()
        if not twice:
            return dg.AssetCheckResult(passed=True, metadata={"rows": len(keys)})
        found = keys.isin(twice[:1])
        where = [p for p in lake.partitions(source.table) if _row_keys(lake, data, period, p).isin(twice[:1]).any()]
        return dg.AssetCheckResult(
            passed=False,
            description=f"{data.row_key} {twice[0]!r} is no key: {source.name} has {found.sum()} rows with it"
            f"{', in ' * bool(where)}{', '.join(where)}. If the row moved at its source, materialize "
            "those partitions again, as `turnout materialize` does; if it is there twice, correct the source, or "
            "declare another row_key",
            metadata={"rows": len(keys), "keys_that_stand_twice": len(twice)},
        )

    return row_key


def _row_keys(lake: Lake, data: Data, period: Period, partition: str) -> "pd.Series[Any]":
    """Keys of the rows that a period could have, of one partition or of all."""
    columns = dict.fromkeys((data.row_key, *period.required))
    table = by_name(data.datasets)[data.features_from].table
    rows = lake.read(table, part_of(data.partitions, partition), list(columns))
    keys: pd.Series[Any] = rows.dropna(subset=list(period.required))[data.row_key]
    return keys


def _key(context: dg.AssetCheckExecutionContext) -> str:
    """The partition that the run is about, or nothing when the check is run by itself on the whole table."""
    return context.partition_key if context.has_partition_key else ""
