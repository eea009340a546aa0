"""When Dagster materializes by itself: what came up or changed, behind checks, and never the same content again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pandera.pandas as pa
import pytest

from orchestration.automation import conditions, freshness
from orchestration.datasets.declaration import Built, Data, Dataset
from orchestration.endpoints.assets import data_definitions
from orchestration.flights.datasets import FLIGHTS
from orchestration.lake import Lake
from orchestration.rollouts.assets import RETRY
from orchestration.sources.function import Function
from orchestration.sources.table import Every, from_source

DAYS = dg.DailyPartitionsDefinition("2026-01-01")
NOON = datetime(2026, 1, 4, 12, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


@dg.asset(partitions_def=DAYS, automation_condition=conditions.RAW)
def raw() -> None: ...


@dg.asset(partitions_def=DAYS, automation_condition=conditions.DERIVED, deps=[raw])
def derived() -> None: ...


@dg.asset(automation_condition=conditions.REPORT, deps=[raw])
def report() -> None: ...


def chain(code: str = "1") -> dg.Definitions:
    """Data, candidate with a check that blocks and one that does not, registered version, rollout."""

    @dg.asset
    def data() -> None: ...

    @dg.asset(automation_condition=conditions.CANDIDATE, deps=[data], code_version=code)
    def candidate() -> None: ...

    @dg.asset(automation_condition=conditions.REGISTERED, deps=[candidate])
    def registered() -> None: ...

    @dg.asset(automation_condition=conditions.ROLLOUT, deps=[candidate, registered])
    def rollout() -> None: ...

    @dg.asset_check(asset=candidate, blocking=True)
    def skill() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    @dg.asset_check(asset=candidate)
    def champion() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    return dg.Definitions([data, candidate, registered, rollout], asset_checks=[skill, champion])


def sold(every: Every | None, start: str | None = "2025-01-01") -> dg.Definitions:
    """Rows that a source has by `every`, and the two periods that are cut out of all of them."""
    schema = pa.DataFrameSchema({"at": pa.Column("datetime64[us]"), "late": pa.Column(int)})
    return of(
        from_source(Function(nothing), name="sold", schema=schema, label="late", time="at", every=every, start=start)
    )


def of(data: Data) -> dg.Definitions:
    return dg.Definitions.merge(data_definitions(data), dg.Definitions(resources={"lake": Lake(Path())}))


def nothing() -> pd.DataFrame:
    return pd.DataFrame()


class Watch:
    """An instance, and the automation that looks at it tick by tick."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance):
        self.definitions, self.instance, self.at = definitions, instance, NOON
        self._cursor: Any = None

    def tick(self, after: timedelta = MINUTE) -> set[str]:
        """What is requested, each with its partition if it has one."""
        self.at += after
        found = dg.evaluate_automation_conditions(
            self.definitions, self.instance, dg.AssetSelection.all(), evaluation_time=self.at, cursor=self._cursor
        )
        self._cursor = found.cursor
        graph = self.definitions.resolve_asset_graph()
        partitions = {key.to_user_string(): found.get_requested_partitions(key) for key in graph.get_all_asset_keys()}
        return {f"{name} {one}" if one else name for name, wanted in partitions.items() for one in wanted}

    def made(self, name: str, content: str = "", day: str | None = None) -> None:
        tags = {"dagster/data_version": content} if content else None
        event = dg.AssetMaterialization(name, partition=day, tags=tags)
        self.instance.report_runless_asset_event(event)

    def checked(self, name: str, *, passed: bool, asset: str = "candidate") -> None:
        found = dg.AssetCheckEvaluation(asset_key=dg.AssetKey(asset), check_name=name, passed=passed)
        self.instance.report_runless_asset_event(found)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_nothing_is_made_for_being_missing_and_new_partitions_follow(instance: dg.DagsterInstance) -> None:
    watch = Watch(dg.Definitions([raw, derived, report]), instance)
    assert watch.tick() == set()
    assert watch.tick() == set()
    assert watch.tick(DAY) == {"raw 2026-01-04", "derived 2026-01-04"}
    assert watch.tick() == set()


def test_content_goes_on_and_the_same_content_does_not(instance: dg.DagsterInstance) -> None:
    watch = Watch(dg.Definitions([raw, derived, report]), instance)
    watch.tick()
    watch.made("raw", "a", "2026-01-02")
    assert watch.tick() == {"derived 2026-01-02", "report"}
    watch.made("derived", "b", "2026-01-02")
    watch.made("report", "c")
    watch.tick()
    watch.made("raw", "a", "2026-01-02")
    assert watch.tick() == set()
    watch.made("raw", "d", "2026-01-02")
    assert watch.tick() == {"derived 2026-01-02", "report"}


def test_days_outside_are_read_when_they_begin_and_nightly_for_two_weeks(instance: dg.DagsterInstance) -> None:
    watch = Watch(sold("day"), instance)
    assert watch.tick() == set()
    assert watch.tick(timedelta(hours=13)) == {"sold_rows 2026-01-05"}
    assert watch.tick() == set()
    days = {f"sold_rows {day:%Y-%m-%d}" for day in pd.date_range("2025-12-23", "2026-01-05")}
    assert watch.tick(timedelta(hours=2)) == days
    assert watch.tick() == set()


def test_month_outside_is_read_to_its_end_and_two_months_longer(instance: dg.DagsterInstance) -> None:
    watch = Watch(sold("month"), instance)
    watch.at = datetime(2026, 3, 31, 4, tzinfo=UTC)
    assert watch.tick() == set()
    assert watch.tick(DAY - timedelta(hours=2)) == {"sold_rows 2026-04-01"}
    assert watch.tick() == set()
    # Rows of the last evening of March have come since it was read last.
    assert watch.tick(timedelta(hours=2)) == {f"sold_rows 2026-0{month}-01" for month in (2, 3, 4)}
    assert watch.tick() == set()
    watch.at = datetime(2026, 12, 31, 12, tzinfo=UTC)
    assert watch.tick() == {f"sold_rows 2026-{month}-01" for month in (10, 11, 12)}


def test_table_outside_without_partitions_is_read_nightly(instance: dg.DagsterInstance) -> None:
    watch = Watch(sold(None), instance)
    assert watch.tick() == set()
    assert watch.tick(timedelta(hours=16)) == {"sold_rows"}
    assert watch.tick() == set()


def test_periods_are_cut_anew_though_a_month_has_no_rows(instance: dg.DagsterInstance) -> None:
    watch = Watch(sold("month", "2025-08-01"), instance)
    for month in ("2025-08-01", "2025-09-01", "2025-11-01"):
        watch.made("sold_rows", month, month)
    watch.checked("schema", passed=True, asset="sold_rows")
    watch.made("sold_train", "a")
    watch.made("sold_validation", "b")
    assert watch.tick() == set()
    watch.made("sold_rows", "more", "2025-11-01")
    assert watch.tick() == {"sold_train", "sold_validation"}
    assert watch.tick() == set()


def test_period_of_named_months_waits_for_all_of_them(instance: dg.DagsterInstance) -> None:
    watch = Watch(of(FLIGHTS), instance)
    watch.tick()
    watch.made("flight_features", "a", "2013-01-01")
    for check in ("schema", "leakage"):
        watch.checked(check, passed=True, asset="flight_features")
    assert "flight_delay_train" not in watch.tick()
    watch.made("flight_features", "a", "2013-02-01")
    for check in ("schema", "leakage"):
        watch.checked(check, passed=True, asset="flight_features")
    assert "flight_delay_train" in watch.tick()


def test_candidate_walks_to_its_rollout_behind_every_check(instance: dg.DagsterInstance) -> None:
    watch = Watch(chain(), instance)
    watch.made("data")
    watch.made("candidate")
    watch.checked("skill", passed=True)
    watch.checked("champion", passed=False)
    watch.tick()
    watch.made("candidate")
    watch.checked("skill", passed=True)
    watch.checked("champion", passed=False)
    assert watch.tick() == {"registered"}
    watch.made("registered")
    assert watch.tick() == set()
    watch.checked("champion", passed=True)
    assert watch.tick() == {"rollout"}


def test_failed_blocking_check_keeps_a_candidate_out(instance: dg.DagsterInstance) -> None:
    watch = Watch(chain(), instance)
    watch.tick()
    watch.made("candidate")
    watch.checked("skill", passed=False)
    watch.checked("champion", passed=True)
    assert watch.tick() == set()


def test_changed_code_trains_again_and_new_data_wait_for_a_reason(instance: dg.DagsterInstance) -> None:
    watch = Watch(chain(), instance)
    watch.made("data", "a")
    watch.made("candidate")
    watch.tick()
    watch.made("data", "b")
    assert watch.tick() == set()
    watch.definitions = chain("2")
    assert watch.tick() == {"candidate"}


def test_candidate_that_was_never_trained_is_not_for_its_code(instance: dg.DagsterInstance) -> None:
    watch = Watch(chain(), instance)
    watch.made("data", "a")
    watch.tick()
    watch.definitions = chain("2")
    assert watch.tick() == set()


def test_router_that_is_away_is_asked_for_about_ten_minutes() -> None:
    assert 540 <= sum(RETRY.calculate_delay(attempt + 1) for attempt in range(RETRY.max_retries)) <= 600


def test_raw_data_grow_old_and_what_is_made_of_them_does_not() -> None:
    of = {dataset.name: freshness.of_dataset(dataset, FLIGHTS) for dataset in FLIGHTS.datasets}
    assert of["raw_flights"] == dg.FreshnessPolicy.time_window(2 * timedelta(days=31), 1.2 * timedelta(days=31))
    assert of["clean_flights"] is of["raw_planes"] is None
    rows = Dataset("rows", "", lambda *_: Built(pd.DataFrame()), (), partitioned=False, outside=True)
    assert freshness.of_dataset(rows, FLIGHTS) == freshness.RESULTS
