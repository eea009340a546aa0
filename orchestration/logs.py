"""The router's ledger as Delta tables, where reports, Spark or your own SQL read it without touching the router."""

from collections.abc import Mapping
from datetime import date
from hashlib import sha256

import dagster as dg
import pyarrow as pa

from orchestration.automation.freshness import LOGS
from orchestration.endpoints.declaration import DEFAULT_OWNERS
from orchestration.lake import Lake, Partition, Version
from orchestration.ledger import Ledger
from router.errors import CannotStart
from router.verification import Summary

# The present day is exported too, as far as it has got; exporting a day again brings its late outcomes.
DAYS = dg.DailyPartitionsDefinition(start_date="2025-01-01", end_offset=1)
MARK = "ledger_mark"
"""Metadata of a day's export: what the ledger had of that day, as `Ledger.marks` tells."""
_GROUP = "logs"
_SHOWN = 20
_KINDS = {"sql", "deltalake"}
_REPLACED_KEPT_H = 3
"""Hours for which who reads the logs may take; nobody asks for older versions, and the present day makes many."""

LEDGER = dg.AssetSpec(
    "ledger",
    description="The router's ledger. The router writes it all the time, so what reads it is never seen to be stale: "
    "materialize the logs when you want them newer.",
    group_name=_GROUP,
    kinds={"sql"},
    owners=DEFAULT_OWNERS,
)


@dg.asset(
    group_name=_GROUP,
    kinds=_KINDS,
    owners=DEFAULT_OWNERS,
    freshness_policy=LOGS,
    deps=[LEDGER],
    description="Experiments, their arms and their epochs: the tables logs/experiments, logs/arms and logs/epochs.",
)
def logged_experiments(ledger: dg.ResourceParam[Ledger], lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """Copies the small tables as a whole."""
    return _exported(ledger.control(), lake, None)


@dg.asset(
    group_name=_GROUP,
    kinds=_KINDS,
    owners=DEFAULT_OWNERS,
    freshness_policy=LOGS,
    deps=[LEDGER],
    partitions_def=DAYS,
    description="Decisions of a UTC day, their outcomes, and what shadows predicted: the tables "
    "logs/decisions, logs/outcomes and logs/shadow_predictions. Late outcomes go to the day of their decision.",
)
def logged_traffic(
    context: dg.AssetExecutionContext, ledger: dg.ResourceParam[Ledger], lake: dg.ResourceParam[Lake]
) -> dg.MaterializeResult[None]:
    """Copies one day; the day has to fit in memory."""
    day = date.fromisoformat(context.partition_key)
    # Before the rows are read: what comes in between is exported, and its mark says that it is not.
    mark = ledger.marks([day])[day]
    return _exported(ledger.traffic(day), lake, Partition("day", context.partition_key), {MARK: mark})


@dg.asset_check(
    asset=logged_experiments,
    description="Every decision follows from its signed id and its epoch, every epoch from the one before, and every "
    "statistic from the outcomes (`turnout verify-log`).",
)
def decisions_can_be_proved(ledger: dg.ResourceParam[Ledger]) -> dg.AssetCheckResult:
    """Verifies the whole ledger, whose epochs and statistics belong to no single day.

    It does not block: what an altered row makes of a result is seen best by looking at both.
    """
    try:
        found = ledger.verify()
    except CannotStart as error:
        return dg.AssetCheckResult(
            passed=False, severity=dg.AssetCheckSeverity.WARN, description=f"nothing was proved: {error}"
        )
    return dg.AssetCheckResult(
        passed=found.failures == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=finding(found),
        metadata={
            "failures": found.failures,
            "first_failures": dg.MetadataValue.md("\n".join(f"- `{failure}`" for failure in found.first[:_SHOWN])),
            "outcomes_waiting_for_their_decision": found.waiting,
            "outcomes_of_items_that_are_not_there": found.out_of_range,
            "seconds": found.seconds,
            **{f"checked_{table}": rows for table, rows in sorted(found.checked.items())},
        },
    )


def finding(found: Summary) -> str:
    """What a verification found, in a sentence."""
    decisions = found.checked.get("decisions", 0)
    if not found.failures:
        return f"{decisions:,} decisions re-derived, each as it was logged"
    return f"{found.failures:,} failures among {decisions:,} decisions and what follows from them; {found.first[0]}"


def _exported(
    tables: Mapping[str, pa.Table], lake: Lake, partition: Partition | None, metadata: Mapping[str, str] | None = None
) -> dg.MaterializeResult[None]:
    versions = {f"logs/{name}": lake.write_if_changed(f"logs/{name}", rows, partition) for name, rows in tables.items()}
    for table in versions:
        lake.remove_replaced(table, _REPLACED_KEPT_H)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(_joined(versions)),
        metadata={**{name: rows.num_rows for name, rows in tables.items()}, **(metadata or {})},
    )


def _joined(versions: Mapping[str, Version]) -> str:
    return sha256(" ".join(version.content_hash for version in versions.values()).encode()).hexdigest()
