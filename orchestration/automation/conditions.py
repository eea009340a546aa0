"""When Dagster materializes an asset by itself. Nothing is made for being missing; it takes one of these:

- raw data: each partition that comes up; what changes outside is read nightly besides, as far back as rows come late;
- what is made of them: when the content of what it is made from changes, never behind a blocking check that failed;
- a candidate: when its code changes and somebody had it trained before. That it learns anew from newer data has a
  reason, so sensors see to that;
- a registered version, and its rollout: when what it comes from was made and all its checks have passed, the first
  time too: who has a candidate trained that declares a rollout has asked for all of it;
- reports: when logs were exported that differ from those before.
"""

from datetime import timedelta
from typing import Any

import dagster as dg
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG, SENSOR_NAME_TAG

from orchestration.datasets.declaration import Data, Dataset, Period

Condition = dg.AutomationCondition[dg.AssetKey]

READ_AGAIN = "0 3 * * *"
"""When what changes outside is read again, in UTC."""
_DAYS_AGAIN = timedelta(days=14)
"""The present day and thirteen before it."""
_MONTHS_AGAIN = timedelta(days=92)
"""The present month and two before it, as no three months are longer and no four as short."""

# Its types tell conditions of assets from those of checks, and then do not let one be put into the other.
_On: Any = dg.AutomationCondition
_IDLE = ~_On.any_deps_in_progress() & ~_On.in_progress()
_READY = ~_On.any_deps_missing() & _IDLE
_CHANGED = _On.any_deps_match(_On.data_version_changed()).with_label("any_deps_changed_content")
_EVERY_CHECK_PASSED = _On.all_deps_match(
    _On.all_checks_match(_On.check_passed() | _On.will_be_requested()).with_label("all_checks_passed")
).with_label("all_deps_checks_passed")

RAW: Condition = (_On.newly_missing().since_last_handled() & _IDLE).with_label("new_partition")
DERIVED: Condition = (
    (_On.newly_missing() | _CHANGED).since_last_handled() & _READY & _On.all_deps_blocking_checks_passed()
).with_label("new_content")
# Partitions that have no rows outside were perhaps never made, and are nothing to wait for.
SO_FAR: Condition = (_CHANGED.since_last_handled() & _IDLE & _On.all_deps_blocking_checks_passed()).with_label(
    "new_content_so_far"
)
CANDIDATE: Condition = (
    _On.code_version_changed().since_last_handled() & ~_On.missing() & _READY & _On.all_deps_blocking_checks_passed()
).with_label("new_code")
REGISTERED: Condition = (
    _On.any_deps_updated().since_last_handled() & _READY & _On.all_deps_blocking_checks_passed()
).with_label("new_candidate")
ROLLOUT: Condition = (_On.any_deps_updated().since_last_handled() & _READY & _EVERY_CHECK_PASSED).with_label(
    "new_version"
)
# Most days of the logs are empty, so that a missing partition says nothing.
REPORT: Condition = (_CHANGED.since_last_handled() & _IDLE).with_label("new_logs")


def of_dataset(dataset: Dataset, data: Data) -> Condition:
    """The condition of a dataset, by where it comes from."""
    if dataset.outside:
        return _outside(_DAYS_AGAIN if isinstance(data.partitions, dg.DailyPartitionsDefinition) else _MONTHS_AGAIN)
    return DERIVED if dataset.inputs else RAW


def of_period(period: Period, data: Data) -> Condition:
    """The condition of a period: what is cut out of a whole table that grows outside takes the rows that there are."""
    grows = any(dataset.outside and dataset.partitioned for dataset in data.datasets)
    return SO_FAR if grows and not period.partitions else DERIVED


def _outside(again: timedelta) -> Condition:
    """Each partition as it comes up, and nightly the newest ones, as far back as `again` reaches."""
    due = (_On.newly_missing() | _On.cron_tick_passed(READ_AGAIN)).since_last_handled()
    condition: Condition = (due & _On.in_latest_time_window(again) & ~_On.in_progress()).with_label(
        "new_partition_or_time_to_read_again"
    )
    return condition


def is_automatic(run: dg.DagsterRun) -> bool:
    """Whether a sensor started the run rather than somebody."""
    return AUTOMATION_CONDITION_TAG in run.tags or SENSOR_NAME_TAG in run.tags


def sensor() -> dg.AutomationConditionSensorDefinition:
    """The sensor that looks at all conditions; Dagster's own is stopped until somebody starts it."""
    return dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Materializes what its condition says: new partitions, new content, new versions, new logs.",
    )
