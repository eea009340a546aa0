"""Which runs are under way, so that no second one is started for the same."""

from collections.abc import Sequence

import dagster as dg

_OVER = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
UNDER_WAY = frozenset(dg.DagsterRunStatus) - _OVER - {dg.DagsterRunStatus.MANAGED}
"""Of runs that wait or go on; Dagster never learns how those end that something else manages."""


def under_way(instance: dg.DagsterInstance, job: str | None = None) -> Sequence[dg.DagsterRun]:
    """Runs of a job, or all, that wait or go on."""
    return instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(UNDER_WAY)))
