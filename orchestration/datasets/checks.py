"""The blocking checks of datasets: the declared schema holds, and no feature knows the future."""

from collections.abc import Mapping, Sequence

import dagster as dg
import pandera.pandas as pa

from orchestration.datasets.declaration import Dataset, Rewind
from orchestration.datasets.leakage import leaking_columns, sample_days
from orchestration.datasets.tables import markdown_table, month_of, read_inputs
from orchestration.lake import Lake


def schema_check(dataset: Dataset) -> dg.AssetChecksDefinition:
    """Blocks what is downstream of rows that break the dataset's schema."""

    @dg.asset_check(
        asset=dataset.name,
        name="schema",
        blocking=True,
        description="Every column has its type and keeps its limits.",
    )
    def schema(context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        frame = lake.read(dataset.table, month_of(_month(context)))
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


def leakage_check(
    dataset: Dataset, rewind: Rewind, datasets: Mapping[str, Dataset], months: Sequence[str]
) -> dg.AssetChecksDefinition:
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
        for month in [_month(context)] if _month(context) else lake.partitions(dataset.table):
            frame = lake.read(dataset.table, month_of(month))
            inputs = read_inputs(lake, dataset, datasets, months, month)
            sampled = sample_days(frame, rewind)
            found |= leaking_columns(dataset, frame, inputs, month, sampled)
            days += sampled
        return dg.AssetCheckResult(
            passed=not found,
            description=f"changed without the future: {', '.join(found)}" if found else None,
            metadata={"days": [day.strftime("%Y-%m-%d") for day in days], "rows_changed_by_column": found},
        )

    return leakage


def _month(context: dg.AssetCheckExecutionContext) -> str:
    """The month that the run is about, or nothing when the check is run by itself on the whole table."""
    return context.partition_key if context.has_partition_key else ""
