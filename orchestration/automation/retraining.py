"""Starts the training of an endpoint's candidates for a reason that stays with the run: by evidence, or by the clock.

One start keeps others away for the declared time and until it has ended, whatever their reasons, so that no run
follows every look. The same evidence starts another run only after one that failed.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from models import Registry
from orchestration.automation.attributes import ENDPOINT_TAG
from orchestration.automation.reasons import reasons
from orchestration.automation.runs import under_way
from orchestration.candidates.names import Candidate
from orchestration.endpoints.declaration import Endpoint

REASON_TAG = "turnout/reason"
EVIDENCE_TAG = "turnout/evidence"
_INTERVAL_S = 60


def retraining_definitions(endpoint: Endpoint) -> dg.Definitions:
    """The job that trains and registers every candidate, the sensor, and the schedule if one is declared."""
    job = _job(endpoint)
    cron = endpoint.retraining.cron
    return dg.Definitions(
        jobs=[job], sensors=[_sensor(endpoint, job)], schedules=[_schedule(endpoint, job, cron)] if cron else []
    )


def _job(endpoint: Endpoint) -> UnresolvedAssetJobDefinition:
    periods = [each.name for each in (endpoint.data.train, endpoint.data.validation) if each.definition is None]
    candidates = [Candidate(endpoint, recipe) for recipe in endpoint.recipes]
    names = [name for one in candidates for name in (one.trained_key, one.key)]
    return dg.define_asset_job(
        _job_name(endpoint),
        selection=dg.AssetSelection.assets(*periods, *names),
        description=f"Cuts the periods of `{endpoint.name}` anew, then trains, checks and registers every candidate.",
        tags={ENDPOINT_TAG: endpoint.name},
    )


def _sensor(endpoint: Endpoint, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{endpoint.key}_retraining_reasons",
        job=job,
        description="Starts training when the training data have changed, when live traffic drifted, or when the "
        "champion is worse live than it was on validation; the run's tag `turnout/reason` says why.",
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def look(context: dg.SensorEvaluationContext, staging: dg.ResourceParam[Registry]) -> dg.RunRequest | dg.SkipReason:
        found = list(reasons(endpoint, context.instance, staging))
        if not found:
            return dg.SkipReason("no rows that candidates have not learned from, or none of the declared reasons")
        sentence = "; ".join(f"{each.kind}: {each.sentence}" for each in found)
        if waits := held_back(endpoint, context.instance):
            return dg.SkipReason(f"{waits}; {sentence}")
        context.log.info(sentence)
        evidence = found[0].evidence
        tags = {REASON_TAG: sentence, EVIDENCE_TAG: evidence}
        return dg.RunRequest(run_key=_run_key(endpoint, evidence, context.instance), tags=tags)

    return look


def _schedule(endpoint: Endpoint, job: UnresolvedAssetJobDefinition, cron: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{endpoint.key}_retraining_schedule",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        description=f"Starts training at {cron}, unless it was started lately.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def due(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if waits := held_back(endpoint, context.instance):
            return dg.SkipReason(waits)
        return dg.RunRequest(tags={REASON_TAG: f"schedule: {cron}"})

    return due


def held_back(endpoint: Endpoint, instance: dg.DagsterInstance, now: datetime | None = None) -> str | None:
    """Why training cannot start now, whatever the reasons; None when it can."""
    if under_way(instance, _job_name(endpoint)):
        return "training is under way"
    started = instance.get_run_records(dg.RunsFilter(job_name=_job_name(endpoint)), limit=1)
    if not started:
        return None
    until = started[0].create_timestamp.astimezone(UTC) + timedelta(seconds=endpoint.retraining.cooldown_s)
    if until <= (now or datetime.now(UTC)):
        return None
    return f"waits until {until:%Y-%m-%d %H:%M} UTC, for training was started lately"


def _run_key(endpoint: Endpoint, evidence: str, instance: dg.DagsterInstance) -> str:
    """One key, so one run, for the same evidence, and another for each run on it that failed."""
    over = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    filters = dg.RunsFilter(job_name=_job_name(endpoint), tags={EVIDENCE_TAG: evidence}, statuses=over)
    failed = instance.get_runs_count(filters)
    return f"{evidence}, attempt {failed + 1}" if failed else evidence


def _job_name(endpoint: Endpoint) -> str:
    return f"{endpoint.key}_retraining"
