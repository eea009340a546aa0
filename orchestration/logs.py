"""The router's ledger as Delta tables, where reports, Spark or your own SQL read it without touching the router."""

from collections.abc import Mapping
from datetime import date
from hashlib import sha256

import dagster as dg
import pyarrow as pa

from orchestration.lake import Lake, Partition, Version
from orchestration.ledger import Ledger

# The present day is exported too, as far as it has got; exporting a day again brings its late outcomes.
DAYS = dg.DailyPartitionsDefinition(start_date="2025-01-01", end_offset=1)
_GROUP = "logs"
_KINDS = {"sqlite", "deltalake"}

LEDGER = dg.AssetSpec(
    "ledger",
    description="The router's ledger. The router writes it all the time, so what reads it is never seen to be stale: "
    "materialize the logs when you want them newer.",
    group_name=_GROUP,
    kinds={"sqlite"},
)


@dg.asset(
    group_name=_GROUP,
    kinds=_KINDS,
    deps=[LEDGER],
    description="Experiments, their arms and their epochs: the tables logs/experiments, logs/arms and logs/epochs.",
)
def logged_experiments(ledger: dg.ResourceParam[Ledger], lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """Copies the small tables as a whole."""
    return _exported(ledger.control(), lake, None)


@dg.asset(
    group_name=_GROUP,
    kinds=_KINDS,
    deps=[LEDGER],
    partitions_def=DAYS,
    description="Decisions of a UTC day, and the outcomes of these decisions: the tables logs/decisions and "
    "logs/outcomes. Late outcomes go to the day of their decision.",
)
def logged_traffic(
    context: dg.AssetExecutionContext, ledger: dg.ResourceParam[Ledger], lake: dg.ResourceParam[Lake]
) -> dg.MaterializeResult[None]:
    """Copies one day; the day has to fit in memory."""
    day = context.partition_key
    return _exported(ledger.traffic(date.fromisoformat(day)), lake, Partition("day", day))


def _exported(tables: Mapping[str, pa.Table], lake: Lake, partition: Partition | None) -> dg.MaterializeResult[None]:
    versions = {name: lake.write_if_changed(f"logs/{name}", rows, partition) for name, rows in tables.items()}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(_joined(versions)),
        metadata={
            **{name: rows.num_rows for name, rows in tables.items()},
            **{f"{name}_delta_version": version.number for name, version in versions.items()},
        },
    )


def _joined(versions: Mapping[str, Version]) -> str:
    return sha256(" ".join(version.content_hash for version in versions.values()).encode()).hexdigest()
