"""The dataset assets and their checks, run by Dagster on January."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pandas as pd
import pandera.pandas as pa
import pytest

from orchestration.datasets.declaration import Built, Dataset, Inputs
from orchestration.datasets.tables import by_name
from orchestration.endpoints.assets import data_definitions
from orchestration.flights.datasets import FEATURES, FLIGHTS
from orchestration.lake import Lake, Partition
from orchestration.sources import Function, from_source

JANUARY = "2013-01-01"
MONTHLY = ["raw_flights", "raw_weather", "clean_flights", "clean_weather", "flight_features"]
DATASETS = by_name(FLIGHTS.datasets)


def replaced(dataset: Dataset) -> dg.Definitions:
    """The datasets of flights with one of them built in another way."""
    changed = tuple(dataset if d.name == dataset.name else d for d in FLIGHTS.datasets)
    return data_definitions(FLIGHTS._replace(datasets=changed))


def materialize(
    definitions: dg.Definitions, lake: Lake, names: Sequence[str], partition: str | None = None
) -> dg.ExecuteInProcessResult:
    located = dg.Definitions.merge(definitions, dg.Definitions(resources={"lake": lake}))
    with dg.DagsterInstance.ephemeral() as instance:
        return located.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            partition_key=partition,
            asset_selection=[dg.AssetKey(name) for name in names],
            raise_on_error=False,
        )


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def january(lake: Lake) -> dg.ExecuteInProcessResult:
    definitions = data_definitions(FLIGHTS)
    assert materialize(definitions, lake, ["raw_planes", "raw_airports"]).success
    return materialize(definitions, lake, MONTHLY, JANUARY)


def materialization(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetMaterialization:
    return result.asset_materializations_for_node(name)[0]


def data_version(result: dg.ExecuteInProcessResult, name: str) -> str:
    return (materialization(result, name).tags or {})["dagster/data_version"]


def test_checks_pass_on_real_flights(january: dg.ExecuteInProcessResult) -> None:
    assert january.success
    checks = {(c.asset_key.to_user_string(), c.check_name): c.passed for c in january.get_asset_check_evaluations()}
    assert checks == {
        ("clean_flights", "schema"): True,
        ("flight_features", "schema"): True,
        ("flight_features", "leakage"): True,
    }


def test_data_version_is_the_content_hash(january: dg.ExecuteInProcessResult, lake: Lake) -> None:
    assert data_version(january, "flight_features") == lake.version("datasets/flight_features").content_hash


def test_metadata_counts_what_the_rules_did(january: dg.ExecuteInProcessResult) -> None:
    metadata = materialization(january, "clean_flights").metadata
    assert metadata["dagster/partition_row_count"].value == 27_004
    assert metadata["cancelled"].value == 521
    assert metadata["diverted"].value == 85
    assert metadata["duplicates_dropped"].value == 0
    assert metadata["delta_version"].value == 0


def test_same_content_is_not_written_again(january: dg.ExecuteInProcessResult, lake: Lake) -> None:
    again = materialize(data_definitions(FLIGHTS), lake, ["clean_flights"], JANUARY)
    assert materialization(again, "clean_flights").metadata["delta_version"].value == 0
    assert data_version(again, "clean_flights") == data_version(january, "clean_flights")


def test_train_has_only_labelled_flights_in_order_of_time(january: dg.ExecuteInProcessResult, lake: Lake) -> None:
    only_january = FLIGHTS._replace(train=FLIGHTS.train._replace(partitions=(JANUARY,)))
    result = materialize(data_definitions(only_january), lake, ["flight_delay_train"])
    assert result.success
    train = lake.read("datasets/flight_delay_train")
    assert len(train) == 27_004 - 521 - 85
    assert train["late"].notna().all()
    assert (train["late"] + train["on_time"] == 1).all()
    assert train["scheduled_departure"].is_monotonic_increasing
    metadata = materialization(result, "flight_delay_train").metadata
    assert metadata["rows_without_label_dropped"].value == 521 + 85


def test_month_without_its_history_is_refused(january: dg.ExecuteInProcessResult, lake: Lake) -> None:
    result = materialize(data_definitions(FLIGHTS), lake, ["flight_features"], "2013-03-01")
    failure = result.failure_data_for_node("flight_features")
    assert failure is not None
    assert failure.error is not None
    assert failure.error.cause is not None
    assert "table datasets/clean_flights, month_start 2013-02-01 was never written" in failure.error.cause.message


def test_broken_schema_stops_what_is_downstream(january: dg.ExecuteInProcessResult, lake: Lake) -> None:
    def broken(inputs: Inputs, month: str) -> Built:
        frame, counts = DATASETS["clean_flights"].build(inputs, month)
        return Built(frame.assign(distance=frame["distance"].where(frame.index > 0, -1)), counts)

    definitions = replaced(DATASETS["clean_flights"]._replace(build=broken))
    result = materialize(definitions, lake, ["clean_flights", "flight_features"], JANUARY)
    assert not result.success
    (schema,) = result.get_asset_check_evaluations()
    assert (schema.check_name, schema.passed, schema.description) == ("schema", False, "1 violations in distance")
    assert "flight_features" not in {event.step_key for event in result.get_step_success_events()}


def test_feature_that_knows_the_future_stops_what_is_downstream(january: dg.ExecuteInProcessResult, lake: Lake) -> None:
    """The rate counts flights from the moment that they land, so an early landing tells on the same day's evening."""

    def leaky(inputs: Inputs, month: str) -> Built:
        frame, counts = DATASETS["flight_features"].build(inputs, month)
        same_day = inputs["clean_flights"].groupby(["date", "origin"])["late"].transform("mean")
        return Built(frame.assign(origin_late_rate=same_day.astype("float32")), counts)

    definitions = replaced(DATASETS["flight_features"]._replace(build=leaky))
    assert materialize(data_definitions(FLIGHTS), lake, ["clean_flights"], JANUARY).success
    result = materialize(definitions, lake, ["flight_features"], JANUARY)
    assert not result.success
    checks = {c.check_name: c for c in result.get_asset_check_evaluations()}
    assert checks["schema"].passed
    assert not checks["leakage"].passed
    assert checks["leakage"].description == "changed without the future: origin_late_rate"


def visits(start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    """Two visits a month; the first of January is in February too, as when it was moved after January was read."""
    rows = pd.DataFrame({"visit": [f"{start:%m}-{n}" for n in range(3)], "at": start, "bought": [0.0, 1.0, None]})
    return rows.replace({"visit": {"02-1": "01-0", "02-2": "01-1"}})


SHOP = from_source(
    Function(visits),
    name="shop",
    schema=pa.DataFrameSchema(
        {
            "visit": pa.Column(str, unique=True),
            "at": pa.Column("datetime64[us, UTC]"),
            "bought": pa.Column(float, nullable=True),
        }
    ),
    label="bought",
    row_key="visit",
    time="at",
    every="month",
    start="2025-01-01",
)


def test_row_that_stands_in_two_months_stops_what_learns_from_it(tmp_path: Path) -> None:
    lake, definitions = Lake(tmp_path), data_definitions(SHOP)
    assert materialize(definitions, lake, ["shop_rows"], "2025-01-01").success
    assert materialize(definitions, lake, ["shop_train", "shop_validation"]).success
    assert materialize(definitions, lake, ["shop_rows"], "2025-02-01").success
    learns = dg.Definitions([dg.AssetsDefinition.from_op(dg.op(name="model")(lambda shop_train: None))])
    result = materialize(dg.Definitions.merge(definitions, learns), lake, ["shop_train", "shop_validation", "model"])
    assert not result.success
    assert {(c.asset_key.to_user_string(), c.check_name, c.passed) for c in result.get_asset_check_evaluations()} == {
        ("shop_train", "row_key", False),
        ("shop_validation", "row_key", False),
    }
    assert "model" not in {event.step_key for event in result.get_step_success_events()}
    assert result.get_asset_check_evaluations()[0].description == (
        "visit '01-0' is no key: shop_rows has 2 rows with it, in 2025-01-01, 2025-02-01. If the row moved at its "
        "source, materialize those partitions again, as `turnout materialize` does; if it is there twice, correct the "
        "source, or declare another row_key"
    )


def test_row_that_stands_twice_in_a_table_without_months_is_named(tmp_path: Path) -> None:
    rows = pd.DataFrame({"visit": ["a", "b", "b", "c", "c"], "at": pd.Timestamp(0), "bought": [0, 1, None, 1, 1]})
    schema = SHOP.datasets[0].schema.update_column("visit", unique=False)
    whole = from_source(Function(lambda: rows), name="shop", schema=schema, label="bought", row_key="visit")
    lake, definitions = Lake(tmp_path), data_definitions(whole)
    result = materialize(definitions, lake, ["shop_rows", "shop_train", "shop_validation"])
    found = {c.asset_key.to_user_string(): c for c in result.get_asset_check_evaluations()}
    assert found["shop_rows"].passed
    assert (found["shop_train"].description or "").startswith(
        "visit 'c' is no key: shop_rows has 2 rows with it. If the row moved"
    )


def test_replay_keeps_flights_without_label(lake: Lake, january: dg.ExecuteInProcessResult) -> None:
    """Cut from a table of April that holds January's rows, so that April need not be built."""
    rows = lake.read("datasets/flight_features", Partition("month_start", JANUARY))
    lake.write_if_changed("datasets/flight_features", rows, Partition("month_start", "2013-04-01"))
    result = materialize(data_definitions(FLIGHTS), lake, ["flight_delay_replay"], "2013-04-01")
    assert result.success
    replay = lake.read("datasets/flight_delay_replay")
    assert len(replay) == 27_004
    assert replay["late"].isna().sum() == 521 + 85
    assert replay["on_time"].isna().equals(replay["late"].isna())
    assert replay.loc[replay["late"].notna(), "arrived_at"].notna().all()
    assert pd.Index(FEATURES).isin(replay.columns).all()
