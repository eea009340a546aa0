"""Whether an asset may be built upon: its blocking checks have passed for what it holds now.

Dagster stops what is downstream of a failed check in the same run only; the asset stays, and a later run would use it.
"""

from collections.abc import Iterable

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

_LOOKED_BACK = 500


def unproven(
    instance: dg.DagsterInstance, key: dg.AssetKey, checks: Iterable[dg.AssetCheckKey], partition: str | None = None
) -> list[dg.AssetCheckKey]:
    """Those of the checks that did not pass for the asset's last materialization; all of them when there is none."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(key, asset_partitions=[partition] if partition else None), limit=1
    ).records
    return [check for check in checks if not records or not _passed_for(instance, check, records[0].run_id)]


def _passed_for(instance: dg.DagsterInstance, check: dg.AssetCheckKey, run_id: str) -> bool:
    """Whether the check passed for what that run materialized."""
    history = instance.event_log_storage.get_asset_check_execution_history(
        check, limit=_LOOKED_BACK, status={AssetCheckExecutionRecordStatus.SUCCEEDED}
    )
    targets = (record.evaluation.target_materialization_data for record in history if record.evaluation)
    return any(target.run_id == run_id for target in targets if target)
