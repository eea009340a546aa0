"""How old assets may be before Dagster warns, and then says that they are stale."""

from datetime import timedelta

import dagster as dg

from orchestration.datasets.declaration import Data, Dataset

_DAY = timedelta(days=1)
_MONTH = timedelta(days=31)

LOGS = dg.FreshnessPolicy.time_window(fail_window=1.5 * _DAY, warn_window=1.1 * _DAY)
"""Every day has its export, be it of no traffic."""
RESULTS = dg.FreshnessPolicy.time_window(fail_window=2.5 * _DAY, warn_window=1.5 * _DAY)


def of_dataset(dataset: Dataset, data: Data) -> dg.FreshnessPolicy | None:
    """The policy of raw data, which nothing but the outside makes; what is made of them follows by itself."""
    if dataset.inputs:
        return None
    if dataset.outside:
        return dg.FreshnessPolicy.time_window(fail_window=2.5 * _DAY, warn_window=1.5 * _DAY)
    if data.partitions is None or not dataset.partitioned:
        return None
    period = _DAY if isinstance(data.partitions, dg.DailyPartitionsDefinition) else _MONTH
    return dg.FreshnessPolicy.time_window(fail_window=2 * period, warn_window=1.2 * period)
