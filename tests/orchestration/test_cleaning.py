import pandas as pd
import pytest

from orchestration.flights import cleaning, source


@pytest.fixture(scope="module")
def airports() -> pd.DataFrame:
    return source.airports()


def flights(**changes: object) -> pd.DataFrame:
    """One flight from Newark to Houston (an hour behind) that came 11 minutes late, with changes."""
    row = {
        "year": 2013, "month": 1, "day": 1,
        "dep_time": 517.0, "sched_dep_time": 515, "dep_delay": 2.0,
        "arr_time": 830.0, "sched_arr_time": 819, "arr_delay": 11.0,
        "carrier": "UA", "flight": 1545, "tailnum": "N14228", "origin": "EWR", "dest": "IAH",
        "air_time": 227.0, "distance": 1400,
    }  # fmt: skip
    return pd.DataFrame([row | changes])


def test_times_are_utc_through_both_time_zones(airports: pd.DataFrame) -> None:
    cleaned = cleaning.clean_flights(flights(), airports).frame.iloc[0]
    assert cleaned["scheduled_departure"] == pd.Timestamp("2013-01-01 10:15", tz="UTC")
    assert cleaned["scheduled_minutes"] == 244
    assert cleaned["arrived_at"] == pd.Timestamp("2013-01-01 14:30", tz="UTC")
    assert cleaned["flight_id"] == "2013-01-01-UA1545-EWR-0515"


@pytest.mark.parametrize(("delay", "clock", "late"), [(15.0, 834.0, 0.0), (16.0, 835.0, 1.0), (-9.0, 810.0, 0.0)])
def test_late_means_more_than_fifteen_minutes(airports: pd.DataFrame, delay: float, clock: float, late: float) -> None:
    cleaned = cleaning.clean_flights(flights(arr_delay=delay, arr_time=clock), airports).frame
    assert cleaned["late"].tolist() == [late]


def test_arrival_after_midnight_is_the_next_day(airports: pd.DataFrame) -> None:
    overnight = flights(
        sched_dep_time=2245, dep_time=2247.0, sched_arr_time=30, arr_time=2400.0, arr_delay=-30.0, air_time=130.0
    )
    cleaned = cleaning.clean_flights(overnight, airports).frame.iloc[0]
    assert cleaned["status"] == "arrived"
    assert cleaned["arrived_at"] == pd.Timestamp("2013-01-02 06:00", tz="UTC")


def test_duplicate_is_dropped_and_counted(airports: pd.DataFrame) -> None:
    cleaned = cleaning.clean_flights(pd.concat([flights(), flights()], ignore_index=True), airports)
    assert len(cleaned.frame) == 1
    assert cleaned.counts["duplicates_dropped"] == 1


@pytest.mark.parametrize("schedule", [{"sched_dep_time": 2560}, {"sched_arr_time": 875}, {"distance": 0}])
def test_impossible_schedule_is_dropped_and_counted(airports: pd.DataFrame, schedule: dict[str, int]) -> None:
    both = pd.concat([flights(), flights(flight=1, **schedule)], ignore_index=True)
    cleaned = cleaning.clean_flights(both, airports)
    assert cleaned.frame["flight_id"].tolist() == ["2013-01-01-UA1545-EWR-0515"]
    assert cleaned.counts["impossible_schedules_dropped"] == 1


def test_unknown_airport_is_dropped_and_counted(airports: pd.DataFrame) -> None:
    both = pd.concat([flights(), flights(flight=1, dest="ZZZ")], ignore_index=True)
    cleaned = cleaning.clean_flights(both, airports)
    assert len(cleaned.frame) == 1
    assert cleaned.counts["unknown_time_zones_dropped"] == 1


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("cancelled", {"dep_time": None, "dep_delay": None, "arr_time": None, "arr_delay": None, "air_time": None}),
        ("diverted", {"arr_time": 1200.0, "arr_delay": None, "air_time": None}),
        ("impossible", {"arr_time": 930.0}),  # the clock disagrees with the delay
        ("impossible", {"air_time": 60.0}),  # 1400 miles in an hour
        ("impossible", {"air_time": 254.0}),  # longer in the air than between the gates
    ],
)
def test_flight_without_usable_outcome_stays_without_label(
    airports: pd.DataFrame, status: str, outcome: dict[str, float | None]
) -> None:
    cleaned = cleaning.clean_flights(flights(**outcome), airports)
    assert cleaned.frame["status"].tolist() == [status]
    assert cleaned.frame[["late", "arrived_at", "arrival_delay"]].isna().all(axis=None)
    assert cleaned.counts[status] == 1


def test_clock_change_in_the_real_data_is_found(airports: pd.DataFrame) -> None:
    """A flight that landed at 02:03 on the night when 02:03 did not exist."""
    cleaned = cleaning.clean_flights(source.flights("2013-03-01"), airports)
    impossible = cleaned.frame[cleaned.frame["status"] == "impossible"]
    assert impossible["flight_id"].tolist() == ["2013-03-09-B635-JFK-2145"]
    assert cleaned.counts["raw_rows"] == len(cleaned.frame) == 28_834


def test_hurricane_wind_is_nulled_and_counted() -> None:
    cleaned = cleaning.clean_weather(source.weather("2013-02-01"))
    assert cleaned.counts["impossible_winds_nulled"] == 1
    assert cleaned.frame["wind_speed"].max() < 60


def test_repeated_weather_hour_is_dropped_and_counted() -> None:
    raw = source.weather("2013-01-01").head(3)
    cleaned = cleaning.clean_weather(pd.concat([raw, raw.head(1)], ignore_index=True))
    assert len(cleaned.frame) == 3
    assert cleaned.counts["duplicates_dropped"] == 1
