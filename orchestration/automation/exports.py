"""Keeps the exported logs up to date: days with new decisions soon, and days whose outcomes came late.

A day is due while the ledger has other rows of it than its newest export. So one that failed is due again, and no day
is asked for while a run of it is under way.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG, SENSOR_NAME_TAG

from orchestration import logs
from orchestration.automation.retraining import REASON_TAG
from orchestration.automation.runs import under_way
from orchestration.errors import LedgerUnavailable
from orchestration.ledger import Ledger

_NAME = "ledger_export"
_INTERVAL_S = 60
_PAUSE = timedelta(minutes=10)
"""Between exports of one day, since each writes all that the day has so far."""
_NEWEST_DAYS = 2
_LATEST_OUTCOMES_DAYS = 90
"""Outcomes of older decisions are exported when somebody materializes their day."""
_DAILY = "10 0 * * *"
_TABLES = logs.logged_experiments.key
_TRAFFIC = logs.logged_traffic.key


def export_definitions() -> dg.Definitions:
    """The sensor, and the schedule that exports and proves once a day, whatever has changed."""
    return dg.Definitions(sensors=[_sensor()], schedules=[_schedule()])


def _sensor() -> dg.SensorDefinition:
    @dg.sensor(
        name=_NAME,
        target=[logs.logged_experiments, logs.logged_traffic],
        description=f"Exports days of the ledger that differ from their export: the last {_NEWEST_DAYS} at each look, "
        f"and once an hour those of the last {_LATEST_OUTCOMES_DAYS} whose outcomes came late; each at most every "
        f"{_PAUSE.seconds // 60} minutes.",
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def ledger_export(
        context: dg.SensorEvaluationContext, ledger: dg.ResourceParam[Ledger]
    ) -> dg.SensorResult | dg.SkipReason:
        now = datetime.now(UTC)
        hour = f"{now:%Y-%m-%d %H}"
        try:
            found = due(ledger, context.instance, now, newest_only=context.cursor == hour)
        except LedgerUnavailable as error:
            return dg.SkipReason(str(error))
        if not found:
            return dg.SensorResult(cursor=hour, skip_reason="no day differs from its export and may be exported now")
        return dg.SensorResult(run_requests=_requests(found, context.instance), cursor=hour)

    return ledger_export


def _schedule() -> dg.ScheduleDefinition:
    @dg.schedule(
        name="ledger_daily",
        target=[logs.logged_experiments, logs.logged_traffic],
        cron_schedule=_DAILY,
        execution_timezone="UTC",
        description="Exports the day that has ended, and proves every decision of the ledger.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def ledger_daily(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
        ended = context.scheduled_execution_time.astimezone(UTC).date() - timedelta(days=1)
        tags = {REASON_TAG: f"schedule: {_DAILY}"}
        tables = dg.RunRequest(asset_selection=[_TABLES], tags=tags)
        # What a run under way does not read any more differs afterwards, and is the sensor's.
        if ended.isoformat() in _partitions_under_way(context.instance, _TRAFFIC):
            return [tables]
        return [tables, dg.RunRequest(asset_selection=[_TRAFFIC], partition_key=ended.isoformat(), tags=tags)]

    return ledger_daily


def due(ledger: Ledger, instance: dg.DagsterInstance, now: datetime, *, newest_only: bool = False) -> dict[str, str]:
    """Days to export now, each with the reason: those that differ, unless a run is under way or was just started."""
    days = [day for day in ledger.days() if day > now.date() - timedelta(days=_LATEST_OUTCOMES_DAYS)]
    waiting = _partitions_under_way(instance, _TRAFFIC) | _started_since(instance, now - _PAUSE)
    looked = [day for day in days[-_NEWEST_DAYS if newest_only else 0 :] if day.isoformat() not in waiting]
    # Without decisions there was no traffic, or its month was dropped from the ledger and is nowhere but in its export.
    marks = {day.isoformat(): mark for day, mark in ledger.marks(looked).items() if not mark.startswith("0 ")}
    exported = {day: _exported_mark(instance, day) for day in marks}
    return {
        day: "not exported yet" if exported[day] is None else "outcomes or decisions came since"
        for day, mark in marks.items()
        if exported[day] != mark
    }


def _exported_mark(instance: dg.DagsterInstance, day: str) -> str | None:
    """The mark of what was exported last; none without any export, and empty for one that did not tell."""
    newest = instance.fetch_materializations(dg.AssetRecordsFilter(_TRAFFIC, asset_partitions=[day]), limit=1).records
    if not newest or newest[0].asset_materialization is None:
        return None
    mark = newest[0].asset_materialization.metadata.get(logs.MARK)
    return str(mark.value) if mark else ""


def _partitions_under_way(instance: dg.DagsterInstance, asset: dg.AssetKey) -> set[str | None]:
    """The partitions of an asset for which a run waits or goes on, whoever started it."""
    runs = [run for run in under_way(instance) if asset in (run.asset_selection or ())]
    return {run.tags.get(PARTITION_NAME_TAG) for run in runs}


def _started_since(instance: dg.DagsterInstance, since: datetime) -> set[str | None]:
    """Days for which the sensor has started a run, whatever became of it."""
    runs = instance.get_runs(dg.RunsFilter(tags={SENSOR_NAME_TAG: _NAME}, created_after=since))
    return {run.tags.get(PARTITION_NAME_TAG) for run in runs}


def _requests(days: Mapping[str, str], instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """A run per day, and one for the small tables; to prove the whole ledger each time would cost too much."""
    tables: dict[str, Any] = {"asset_selection": [_TABLES], "asset_check_keys": []}
    said = f"{len(days)} days differ"
    first = [] if _partitions_under_way(instance, _TABLES) else [dg.RunRequest(tags={REASON_TAG: said}, **tables)]
    return first + [
        dg.RunRequest(partition_key=day, asset_selection=[_TRAFFIC], tags={REASON_TAG: reason})
        for day, reason in days.items()
    ]
