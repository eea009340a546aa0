"""What starts training again, why, and what keeps it from starting at every look."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from models import Registry, publish
from models.manifest import DatasetVersion
from models.recipe import logistic
from orchestration.automation.attributes import ENDPOINT_TAG
from orchestration.automation.retraining import REASON_TAG, held_back, retraining_definitions
from orchestration.candidates.checks import BEFORE_ROLLOUT
from orchestration.definitions import build
from orchestration.endpoints import flight_delay
from orchestration.endpoints.declaration import Retraining
from router.settings import Settings

ENDPOINT = flight_delay.ENDPOINT._replace(recipes=(logistic(),), experiments=(), rollout=None, retraining=Retraining())
TRAIN = ENDPOINT.data.train.name
JOB = "flight_delay_retraining"


@dg.op
def nothing() -> None: ...


@dg.job(name=JOB)
def training() -> None:
    """A run of that name, which need not do what it says."""
    nothing()


@dg.job(name="flight_choice_retraining")
def other() -> None:
    nothing()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One candidate, trained on content `a`."""
    return train(tmp_path_factory.mktemp("staging"), "a")


def train(folder: Path, content: str, version: int = 3) -> Registry:
    """A registry with a candidate that has just learned from this content."""
    made = Registry(folder)
    rows = pd.DataFrame({"distance": np.arange(20.0)})
    fitted = LogisticRegression().fit(rows, np.arange(20) > 9)
    datasets = {TRAIN: DatasetVersion(version, content)}
    publish(fitted, rows, name="flight-delay-logistic", registry=made, datasets=datasets)
    return made


def look(
    instance: dg.DagsterInstance, staging: Registry, retraining: Retraining = ENDPOINT.retraining
) -> dg.RunRequest | dg.SkipReason:
    """What the sensor says."""
    (sensor,) = retraining_definitions(ENDPOINT._replace(retraining=retraining)).sensors or ()
    assert isinstance(sensor, dg.SensorDefinition)
    found = sensor(dg.build_sensor_context(instance, resources={"staging": staging}))
    assert isinstance(found, dg.RunRequest | dg.SkipReason)
    return found


def cut(instance: dg.DagsterInstance, content: str) -> None:
    event = dg.AssetMaterialization(TRAIN, tags={"dagster/data_version": content})
    instance.report_runless_asset_event(event)


def checked(instance: dg.DagsterInstance, asset: str, check: str, *, passed: bool, said: str) -> None:
    event = dg.AssetCheckEvaluation(asset_key=dg.AssetKey(asset), check_name=check, passed=passed, description=said)
    instance.report_runless_asset_event(event)


def started(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition = training,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS,
    tags: Mapping[str, str] | None = None,
) -> None:
    instance.create_run_for_job(job, tags=tags, status=status)


def skipped(found: object) -> str:
    assert isinstance(found, dg.SkipReason)
    return str(found.skip_message)


def reason(found: object) -> str:
    assert isinstance(found, dg.RunRequest)
    return found.tags[REASON_TAG]


def test_nothing_new_is_no_reason_and_nothing_trained_neither(
    instance: dg.DagsterInstance, staging: Registry, tmp_path: Path
) -> None:
    nothing = "no rows that candidates have not learned from, or none of the declared reasons"
    assert skipped(look(instance, staging)) == nothing
    cut(instance, "a")
    assert skipped(look(instance, staging)) == nothing
    cut(instance, "b")
    assert skipped(look(instance, Registry(tmp_path / "none"))) == nothing


def test_new_data_are_named_with_who_learned_from_which(instance: dg.DagsterInstance, staging: Registry) -> None:
    cut(instance, "b")
    found = look(instance, staging)
    assert reason(found) == (
        f"new data: {TRAIN} has other rows than candidates learned from: flight-delay-logistic from version 3"
    )
    assert isinstance(found, dg.RunRequest)
    assert found.run_key == "b after version 3"
    cut(instance, "c")
    later = look(instance, staging)
    assert isinstance(later, dg.RunRequest)
    assert later.run_key == "c after version 3"
    assert skipped(look(instance, staging, Retraining(on_new_data=False))).startswith("no rows that")


WITHOUT_NEW_DATA = Retraining(on_new_data=False)


@pytest.mark.parametrize(
    ("kind", "asset", "check"),
    [("drift", "flight_delay_drift", "no_drift"), ("decay", "flight_delay_live_quality", "no_decay")],
)
def test_failed_check_since_the_last_training_is_a_reason(
    instance: dg.DagsterInstance, staging: Registry, kind: str, asset: str, check: str
) -> None:
    cut(instance, "b")
    checked(instance, asset, check, passed=True, said="all is well")
    assert skipped(look(instance, staging, WITHOUT_NEW_DATA)).startswith("no rows that")
    checked(instance, asset, check, passed=False, said="2 of 20 drifted: wind, late")
    assert reason(look(instance, staging, WITHOUT_NEW_DATA)) == f"{kind}: 2 of 20 drifted: wind, late"
    none = Retraining(on_new_data=False, on_drift=False, on_decay=False)
    assert skipped(look(instance, staging, none)).startswith("no rows that")
    trained = train(staging.root.parent / f"trained-after-{kind}", "a")
    assert skipped(look(instance, trained, WITHOUT_NEW_DATA)).startswith("no rows that")


def test_drift_is_no_reason_to_learn_the_same_again(instance: dg.DagsterInstance, staging: Registry) -> None:
    cut(instance, "a")
    for _ in range(2):
        checked(instance, "flight_delay_drift", "no_drift", passed=False, said="late drifted")
        assert skipped(look(instance, staging)).startswith("no rows that")


def test_another_look_at_the_same_drift_is_no_new_evidence(instance: dg.DagsterInstance, staging: Registry) -> None:
    cut(instance, "b")
    checked(instance, "flight_delay_drift", "no_drift", passed=False, said="late drifted")
    first = look(instance, staging, WITHOUT_NEW_DATA)
    checked(instance, "flight_delay_drift", "no_drift", passed=False, said="late drifted")
    again = look(instance, staging, WITHOUT_NEW_DATA)
    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert again.run_key == first.run_key


def test_rows_that_come_back_are_new_evidence(instance: dg.DagsterInstance, staging: Registry, tmp_path: Path) -> None:
    cut(instance, "b")
    first = look(instance, staging)
    later = look(instance, train(tmp_path, "c", version=5))
    assert isinstance(first, dg.RunRequest)
    assert isinstance(later, dg.RunRequest)
    assert (first.run_key, later.run_key) == ("b after version 3", "b after version 5")


def test_check_within_the_second_of_the_training_is_after_it(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    cut(instance, "b")
    time.sleep(1 - time.time() % 1)
    trained = train(tmp_path, "a")
    checked(instance, "flight_delay_drift", "no_drift", passed=False, said="late drifted")
    assert reason(look(instance, trained, WITHOUT_NEW_DATA)) == "drift: late drifted"


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_training_that_failed_is_tried_again_once_it_cooled(
    instance: dg.DagsterInstance, staging: Registry, status: dg.DagsterRunStatus
) -> None:
    cut(instance, "b")
    keys = []
    for _ in range(3):
        found = look(instance, staging, Retraining(cooldown_s=0))
        assert isinstance(found, dg.RunRequest)
        started(instance, status=status, tags=found.tags)
        keys.append(found.run_key)
        assert skipped(look(instance, staging)).startswith("waits until ")
    assert keys == ["b after version 3", "b after version 3, attempt 2", "b after version 3, attempt 3"]


def test_training_that_succeeded_is_not_repeated(instance: dg.DagsterInstance, staging: Registry) -> None:
    cut(instance, "b")
    first = look(instance, staging, Retraining(cooldown_s=0))
    assert isinstance(first, dg.RunRequest)
    started(instance, tags=first.tags)
    again = look(instance, staging, Retraining(cooldown_s=0))
    assert isinstance(again, dg.RunRequest)
    # Dagster starts no second run for a key.
    assert again.run_key == first.run_key


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_training_under_way_keeps_others_away_however_long_it_takes(
    instance: dg.DagsterInstance, staging: Registry, status: dg.DagsterRunStatus
) -> None:
    cut(instance, "b")
    started(instance, status=status)
    assert skipped(look(instance, staging, Retraining(cooldown_s=0))).startswith("training is under way; new data: ")


def test_reasons_of_one_look_are_told_together(instance: dg.DagsterInstance, staging: Registry) -> None:
    cut(instance, "b")
    checked(instance, "flight_delay_drift", "no_drift", passed=False, said="late drifted")
    assert reason(look(instance, staging)).endswith("from version 3; drift: late drifted")


def test_one_start_keeps_others_away_for_a_while(instance: dg.DagsterInstance, staging: Registry) -> None:
    cut(instance, "b")
    started(instance, other)
    assert isinstance(look(instance, staging), dg.RunRequest)
    started(instance)
    message = skipped(look(instance, staging))
    assert message.startswith("waits until ")
    assert message.endswith("flight-delay-logistic from version 3")
    assert isinstance(look(instance, staging, Retraining(cooldown_s=0)), dg.RunRequest)
    later = datetime.now(UTC) + timedelta(seconds=86_401)
    assert held_back(ENDPOINT, instance, later) is None


def test_schedule_starts_training_with_its_own_reason(tmp_path: Path) -> None:
    endpoint = ENDPOINT._replace(retraining=Retraining(cron="0 4 * * 1"))
    (schedule,) = retraining_definitions(endpoint).schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    # Schedules know an instance by its reference, which one in memory does not have.
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, dg.build_schedule_context(instance) as context:
        assert reason(schedule(context)) == "schedule: 0 4 * * 1"
        started(instance)
        assert skipped(schedule(context)).startswith("waits until ")


def test_job_cuts_the_periods_and_trains_with_all_checks(tmp_path: Path) -> None:
    settings = Settings(database=f"sqlite:///{tmp_path}/turnout.db", registry=tmp_path, lake=tmp_path)
    job = build(settings, [ENDPOINT]).resolve_job_def(JOB)
    assert job.tags[ENDPOINT_TAG] == "flight-delay"
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == {
        TRAIN,
        ENDPOINT.data.validation.name,
        "flight_delay_logistic_candidate",
        "flight_delay_logistic",
    }
    assert {key.name for key in job.asset_layer.asset_graph.asset_check_keys} >= set(BEFORE_ROLLOUT)
