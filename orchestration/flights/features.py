"""What is known of a flight before it departs: schedule, route, calendar, weather, plane, recent delays."""

import numpy as np
import pandas as pd

from orchestration.flights.cleaning import NEW_YORK, OUTCOMES

_WINDOW_DAYS = 14
_FEWEST_FLIGHTS = 10  # a rate over fewer flights says little, and stays null
_WEEKDAYS = {0: "mon", 1: "tue", 2: "wed", 3: "thu", 4: "fri", 5: "sat", 6: "sun"}
_WEATHER = {
    "temp": "temperature",
    "humid": "humidity",
    "wind_speed": "wind_speed",
    "wind_gust": "wind_gust",
    "precip": "precipitation",
    "pressure": "pressure",
    "visib": "visibility",
}


def flight_features(flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame) -> pd.DataFrame:
    """One row per flight, in the order given; numbers are exact in float32, what is unknown is null."""
    local = flights["scheduled_departure"].dt.tz_convert(NEW_YORK)
    hour = flights["scheduled_departure"].dt.floor("h")
    route = flights["origin"] + "-" + flights["dest"]
    frame = flights[["flight_id", "tailnum", "date", "scheduled_departure", "carrier", "origin", "dest"]].assign(
        weekday=flights["date"].dt.day_of_week.map(_WEEKDAYS),
        distance=flights["distance"],
        departure_minute=local.dt.hour * 60 + local.dt.minute,
        scheduled_minutes=flights["scheduled_minutes"],
        departures_that_hour=flights.groupby([flights["origin"], hour])["flight_id"].transform("size"),
        plane_age=flights["date"].dt.year - flights["tailnum"].map(planes.set_index("tailnum")["year"]),
        carrier_late_rate=trailing_late_rate(flights, flights["carrier"], _WINDOW_DAYS),
        origin_late_rate=trailing_late_rate(flights, flights["origin"], _WINDOW_DAYS),
        route_late_rate=trailing_late_rate(flights, route, _WINDOW_DAYS),
        origin_late_rate_yesterday=trailing_late_rate(flights, flights["origin"], 1),
    )
    observed = weather.rename(columns=_WEATHER).set_index(["origin", "observed_at"])[list(_WEATHER.values())]
    at_departure = observed.reindex(pd.MultiIndex.from_arrays([flights["origin"], hour])).set_axis(frame.index)
    frame = frame.join(at_departure)
    numbers = frame.select_dtypes("number").columns
    outcomes = flights[["status", "arrived_at", "late"]].assign(on_time=1 - flights["late"])
    return frame.astype(dict.fromkeys(numbers, "float32")).join(outcomes)


def trailing_late_rate(flights: pd.DataFrame, key: pd.Series, days: int) -> pd.Series:
    """Share late among flights of the same key that arrived in the `days` days before the flight's own day.

    A flight counts from the first midnight in New York after its arrival: what is in the air is not known.
    """
    arrived = flights[flights["late"].notna()]
    known_on = arrived["arrived_at"].dt.tz_convert(NEW_YORK).dt.tz_localize(None).dt.normalize()
    daily = arrived.groupby([known_on, key[arrived.index]])["late"].agg(["size", "sum"])
    if daily.empty:
        return pd.Series(np.nan, index=flights.index)
    first, last = min(known_on.min(), flights["date"].min()), max(known_on.max(), flights["date"].max())
    by_day = daily.unstack(fill_value=0).reindex(pd.date_range(first, last), fill_value=0)
    before = by_day.rolling(days, min_periods=1).sum().shift(1, fill_value=0)
    rate = (before["sum"] / before["size"]).where(before["size"] >= _FEWEST_FLIGHTS)
    rows = rate.index.get_indexer(pd.Index(flights["date"]))
    columns = rate.columns.get_indexer(pd.Index(key))
    values = np.where(columns >= 0, rate.to_numpy()[rows, columns], np.nan)
    return pd.Series(values, index=flights.index)


def known_at_midnight(
    flights: pd.DataFrame, weather: pd.DataFrame, day: pd.Timestamp
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Flights and weather as known when `day` began in New York: no later flight, no outcome still to come.

    Weather up to the end of the day stays, in place of the forecast that a live service would use.
    """
    midnight = day.tz_localize(NEW_YORK)
    seen = flights[flights["date"] <= day].copy()
    future = (seen["date"] >= day) | (seen["arrived_at"] >= midnight)
    for column in OUTCOMES:
        seen[column] = seen[column].mask(future)
    observed = weather[weather["observed_at"] < midnight + pd.Timedelta(days=1)]
    return seen, observed
