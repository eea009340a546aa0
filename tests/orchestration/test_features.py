import numpy as np
import pandas as pd
import pytest

from orchestration.datasets.leakage import leaking_columns, sample_days
from orchestration.flights import cleaning, features, source
from orchestration.flights.datasets import FEATURES, FLIGHTS, NUMBERS

JANUARY = "2013-01-01"
FLIGHT_FEATURES = next(dataset for dataset in FLIGHTS.datasets if dataset.name == "flight_features")


@pytest.fixture(scope="module")
def inputs() -> dict[str, pd.DataFrame]:
    return {
        "clean_flights": cleaning.clean_flights(source.flights(JANUARY), source.airports()).frame,
        "clean_weather": cleaning.clean_weather(source.weather(JANUARY)).frame,
        "raw_planes": source.planes(),
    }


@pytest.fixture(scope="module")
def built(inputs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return FLIGHT_FEATURES.build(inputs, JANUARY).frame


def test_features_are_those_declared(built: pd.DataFrame) -> None:
    assert set(FEATURES) < set(built.columns)
    assert len(FEATURES) == 20
    assert "tailnum" not in FEATURES
    assert not built[list(NUMBERS)].isna().any(axis=None)


def test_numbers_are_exact_in_float32(built: pd.DataFrame) -> None:
    numbers = built[list(FEATURES)].select_dtypes("number")
    assert (numbers.dtypes == np.float32).all()


def test_unknown_stays_null(built: pd.DataFrame, inputs: dict[str, pd.DataFrame]) -> None:
    unregistered = ~inputs["clean_flights"]["tailnum"].isin(inputs["raw_planes"]["tailnum"])
    assert built.loc[unregistered, "plane_age"].isna().all()
    assert built.loc[built["date"] == "2013-01-01", "carrier_late_rate"].isna().all()


def test_trailing_rate_equals_a_count_by_hand(built: pd.DataFrame, inputs: dict[str, pd.DataFrame]) -> None:
    flights = inputs["clean_flights"]
    midnight = pd.Timestamp("2013-01-20", tz="America/New_York")
    start = midnight - pd.Timedelta(days=14)
    known = flights[(flights["arrived_at"] < midnight) & (flights["arrived_at"] >= start)]
    by_hand = known[known["carrier"] == "B6"]["late"].mean()
    rows = built[(built["date"] == "2013-01-20") & (built["carrier"] == "B6")]
    assert rows["carrier_late_rate"].unique().tolist() == [np.float32(by_hand)]


def test_trailing_rate_of_few_flights_is_null() -> None:
    days = pd.to_datetime(["2013-01-01"] * 9 + ["2013-01-02"])
    flights = pd.DataFrame(
        {
            "date": days,
            "origin": "JFK",
            "late": [1.0] * 9 + [np.nan],
            "arrived_at": [*pd.to_datetime(["2013-01-01 20:00"] * 9, utc=True), pd.NaT],
        }
    )
    assert features.trailing_late_rate(flights, flights["origin"], 14).isna().all()


def test_flight_in_the_air_at_midnight_is_not_known() -> None:
    """Ten flights land an hour before midnight in New York, ten late ones an hour after it."""
    landed = pd.to_datetime(["2013-01-02 04:00"] * 10 + ["2013-01-02 06:00"] * 10, utc=True)
    flights = pd.DataFrame(
        {
            "date": pd.to_datetime(["2013-01-01"] * 20 + ["2013-01-02", "2013-01-03"]),
            "origin": "JFK",
            "late": [0.0] * 10 + [1.0] * 10 + [np.nan, np.nan],
            "arrived_at": [*landed, pd.NaT, pd.NaT],
        }
    )
    rates = features.trailing_late_rate(flights, flights["origin"], 14)
    assert rates.iloc[-2:].tolist() == [0.0, 0.5]


def test_no_feature_changes_when_the_future_is_removed(built: pd.DataFrame, inputs: dict[str, pd.DataFrame]) -> None:
    days = [pd.Timestamp(f"2013-01-{day:02}") for day in (2, 9, 15, 22, 31)]
    assert leaking_columns(FLIGHT_FEATURES, built, inputs, JANUARY, days) == {}


def test_rewinding_removes_the_future(inputs: dict[str, pd.DataFrame]) -> None:
    day = pd.Timestamp("2013-01-10")
    flights, weather = features.known_at_midnight(inputs["clean_flights"], inputs["clean_weather"], day)
    midnight = day.tz_localize("America/New_York")
    assert flights["date"].max() == day
    assert flights["arrived_at"].max() < midnight
    assert flights.loc[flights["date"] == day, "late"].isna().all()
    assert weather["observed_at"].max() < midnight + pd.Timedelta(days=1)


def test_sampled_days_are_spread_and_repeatable(built: pd.DataFrame) -> None:
    assert FLIGHT_FEATURES.rewind is not None
    days = sample_days(built, FLIGHT_FEATURES.rewind)
    assert [day.day for day in days] == [31, 21, 11]
