"""Which days of the ledger are exported again, and when."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import create_engine, insert

from orchestration import logs
from orchestration.automation.exports import due, export_definitions
from orchestration.automation.retraining import REASON_TAG
from orchestration.automation.runs import UNDER_WAY
from orchestration.lake import Lake
from orchestration.ledger import Ledger
from router.ledger import schema
from router.settings import Settings
from tests.analysis.ledgers import DAY_MS
from tests.analysis.ledgers import Ledger as Generated
from tests.databases import BACKENDS, database
from tests.metrics import BRIER

TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=ago) for ago in (100, 3, 2, 1)]
OLDER, YESTERDAY = str(DAYS[1]), str(DAYS[3])
RECENT = set(map(str, DAYS[1:]))
LATE = "outcomes or decisions came since"


class Site:
    """A ledger with ten decisions on each of the days, and what comes late."""

    def __init__(self, url: str):
        self.ledger, self.engine = Ledger(Settings(database=url)), create_engine(url)
        self._generated, self._url = Generated(), url
        experiment = self._generated.add_experiment([BRIER])
        for day in DAYS:
            for number in range(10):
                at_ms = (day - date(1970, 1, 1)).days * DAY_MS + number
                self._generated.decide(experiment, number % 2, f"{day} {number}", at_ms)
        self._generated.write(url)

    def observe(self, day: date) -> None:
        known = {row["decision_id"] for row in self._generated.outcomes}
        of_day = (row for row in self._generated.decisions if row["unit"].startswith(str(day)))
        decision = next(row for row in of_day if row["id"] not in known)
        self._generated.observe(decision["id"], "late", 1.0, label=True, received_after_ms=5 * DAY_MS)
        with self.engine.begin() as connection:
            connection.execute(insert(schema.outcomes), [self._generated.outcomes[-1]])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="module", params=BACKENDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with database(request.param, tmp_path_factory.mktemp("ledger")) as url:
        site = Site(url)
        yield site
        site.engine.dispose()


def test_marks_change_with_what_comes_late_and_only_there(site: Site) -> None:
    before = site.ledger.marks(site.ledger.days())
    assert before[DAYS[1]].startswith("10 0 0 0")
    assert before[DAYS[1] + timedelta(days=-1)] == "0 0 0 0"
    site.observe(DAYS[1])
    after = site.ledger.marks(site.ledger.days())
    assert {day for day in after if after[day] != before[day]} == {DAYS[1]}


def export(site: Site, instance: dg.DagsterInstance, lake: Path, *days: str) -> None:
    """Export for good."""
    for day in days:
        resources: dict[str, Any] = {"ledger": site.ledger, "lake": Lake(lake)}
        dg.materialize([logs.logged_traffic], partition_key=day, instance=instance, resources=resources)


def run(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, status: dg.DagsterRunStatus, **tags: str) -> None:
    """A run of an asset that has got so far."""
    resources = dict.fromkeys(("ledger", "lake"), dg.ResourceDefinition.none_resource())
    job = dg.Definitions([asset], resources=resources).resolve_implicit_global_asset_job_def()
    named = {f"dagster/{name}": value for name, value in tags.items()}
    instance.create_run_for_job(job, tags=named, status=status, asset_selection=frozenset({asset.key}))


def test_all_days_are_due_until_they_are_exported(site: Site, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    # The oldest day is longer ago than outcomes are waited for, and days without traffic need no export.
    assert due(site.ledger, instance, now) == dict.fromkeys(RECENT, "not exported yet")
    assert due(site.ledger, instance, now, newest_only=True).keys() == set(map(str, DAYS[2:]))
    export(site, instance, tmp_path, *RECENT)
    assert due(site.ledger, instance, now) == {}
    site.observe(DAYS[1])
    assert due(site.ledger, instance, now) == {OLDER: LATE}
    assert due(site.ledger, instance, now, newest_only=True) == {}
    export(site, instance, tmp_path, OLDER)
    assert due(site.ledger, instance, now) == {}


def test_export_that_did_not_tell_is_made_again(site: Site, instance: dg.DagsterInstance) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization("logged_traffic", partition=YESTERDAY))
    assert due(site.ledger, instance, datetime.now(UTC))[YESTERDAY] == LATE


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_export_that_failed_is_tried_again_after_a_while(
    site: Site, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    run(instance, logs.logged_traffic, status, partition=YESTERDAY, sensor_name="ledger_export")
    now = datetime.now(UTC)
    assert due(site.ledger, instance, now).keys() == RECENT - {YESTERDAY}
    assert due(site.ledger, instance, now + timedelta(minutes=11)).keys() == RECENT


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
def test_day_with_a_run_under_way_is_not_asked_for(site: Site, instance: dg.DagsterInstance, status: str) -> None:
    run(instance, logs.logged_traffic, dg.DagsterRunStatus[status], partition=YESTERDAY)
    assert due(site.ledger, instance, datetime.now(UTC) + timedelta(hours=5)).keys() == RECENT - {YESTERDAY}


def test_run_in_the_queue_is_under_way() -> None:
    # Only a daemon can put one there.
    assert dg.DagsterRunStatus.QUEUED in UNDER_WAY
    assert UNDER_WAY.isdisjoint({dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE})


def test_month_that_was_dropped_from_the_ledger_keeps_its_export(site: Site, instance: dg.DagsterInstance) -> None:
    class Dropped(Ledger):
        def marks(self, days: Sequence[date]) -> dict[date, str]:
            """Nothing but outcomes that came since."""
            return dict.fromkeys(days, "0 2 1795392001003 0")

    dropped = Dropped(Settings(database=str(site.engine.url.render_as_string(hide_password=False))))
    assert due(dropped, instance, datetime.now(UTC)) == {}


def sensor() -> dg.SensorDefinition:
    (found,) = export_definitions().sensors or ()
    assert isinstance(found, dg.SensorDefinition)
    return found


def tick(site: Site, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    return sensor()(dg.build_sensor_context(instance, cursor=cursor, resources={"ledger": site.ledger}))


def test_sensor_exports_each_day_that_differs_and_says_why(
    site: Site, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    first = tick(site, instance)
    tables, *days = first.run_requests
    assert (tables.asset_selection, tables.asset_check_keys) == ([dg.AssetKey("logged_experiments")], [])
    assert {request.partition_key for request in days} == RECENT
    assert {request.tags[REASON_TAG] for request in days} == {"not exported yet"}
    # A key would keep a day whose export failed from being asked for again.
    assert {request.run_key for request in first.run_requests} == {None}
    export(site, instance, tmp_path, *RECENT)
    again = tick(site, instance)
    assert again.run_requests == []
    assert again.skip_reason.skip_message == "no day differs from its export and may be exported now"
    site.observe(DAYS[3])
    _, late = tick(site, instance).run_requests
    assert (late.partition_key, late.tags[REASON_TAG]) == (YESTERDAY, LATE)


def test_sensor_looks_at_all_days_once_an_hour(site: Site, instance: dg.DagsterInstance) -> None:
    first = tick(site, instance)
    newest = {request.partition_key for request in tick(site, instance, first.cursor).run_requests}
    assert newest == {None, *map(str, DAYS[2:])}
    assert tick(site, instance, "2026-01-01 00").run_requests == first.run_requests


def test_small_tables_are_not_asked_for_twice(site: Site, instance: dg.DagsterInstance) -> None:
    run(instance, logs.logged_experiments, dg.DagsterRunStatus.STARTED)
    assert {request.partition_key for request in tick(site, instance).run_requests} == RECENT


def test_sensor_waits_for_a_ledger(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        nothing = Ledger(Settings(database=f"sqlite:///{tmp_path}/none.db"))
        skipped = sensor()(dg.build_sensor_context(instance, resources={"ledger": nothing}))
    assert isinstance(skipped, dg.SkipReason)
    assert str(skipped.skip_message).startswith("there is no ledger at ")


def test_schedule_exports_the_day_that_ended_and_proves_the_ledger(tmp_path: Path) -> None:
    (schedule,) = export_definitions().schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    at = datetime(2026, 3, 2, 0, 10, tzinfo=UTC)
    # Schedules know an instance by its reference, which one in memory does not have.
    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
        dg.build_schedule_context(instance, scheduled_execution_time=at) as context,
    ):
        found: Any = schedule(context)
        run(instance, logs.logged_traffic, dg.DagsterRunStatus.STARTED, partition="2026-03-01")
        while_under_way: Any = schedule(context)
    tables, day = found
    assert tables.asset_check_keys is None
    assert day.partition_key == "2026-03-01"
    assert while_under_way == [tables]
