"""Rules that make the raw tables trustworthy; each rule counts what it touched.

Nothing that is only known after departure removes a flight: an impossible arrival makes the outcome unknown,
not the flight unseen, or the rows that are left would tell something of the future.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

NEW_YORK = "America/New_York"
LATE_AFTER_MINUTES = 15
_FASTEST_MPH = 650  # over the ground, tail wind included
_STRONGEST_WIND_MPH = 250  # the strongest gust ever measured was 253 mph, in a tropical cyclone


class Cleaned(NamedTuple):
    """A cleaned table, and how many rows each rule touched."""

    frame: pd.DataFrame
    counts: Mapping[str, int]


def clean_flights(raw: pd.DataFrame, airports: pd.DataFrame) -> Cleaned:
    """One row per scheduled flight, in order of departure, with UTC times, a status and the label `late`."""
    repeated = raw.duplicated(["year", "month", "day", "carrier", "flight", "origin", "sched_dep_time"])
    unschedulable = ~_is_clock(raw["sched_dep_time"]) | ~_is_clock(raw["sched_arr_time"]) | (raw["distance"] <= 0)
    kept = raw[~repeated & ~unschedulable]
    zones = kept["dest"].map(airports.set_index("faa")["tzone"])
    timed = _with_times(kept[zones.notna()], zones.dropna())
    frame = _with_outcome(timed)
    counts = {
        "raw_rows": len(raw),
        "duplicates_dropped": int(repeated.sum()),
        "impossible_schedules_dropped": int((unschedulable & ~repeated).sum()),
        "unknown_time_zones_dropped": int(zones.isna().sum()),
        **{status: int((frame["status"] == status).sum()) for status in ("cancelled", "diverted", "impossible")},
        "without_tail_number": int(frame["tailnum"].isna().sum()),
    }
    return Cleaned(frame, counts)


def clean_weather(raw: pd.DataFrame) -> Cleaned:
    """One row per airport and hour (UTC); impossible measurements become null."""
    observed = pd.to_datetime(raw["time_hour"], utc=True)
    repeated = pd.DataFrame({"origin": raw["origin"], "observed_at": observed}).duplicated()
    impossible_wind = raw["wind_speed"] > _STRONGEST_WIND_MPH
    measured = ["temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    frame = raw[["origin", *measured]].assign(observed_at=observed)
    frame["wind_speed"] = frame["wind_speed"].mask(impossible_wind)
    frame = frame[~repeated].sort_values(["observed_at", "origin"], ignore_index=True)
    counts = {
        "raw_rows": len(raw),
        "duplicates_dropped": int(repeated.sum()),
        "impossible_winds_nulled": int(impossible_wind.sum()),
    }
    return Cleaned(frame, counts)


def _is_clock(hhmm: pd.Series) -> pd.Series:
    """Whether the number reads as a time of day; both 0 and 2400 are midnight."""
    return (hhmm >= 0) & (hhmm <= 2400) & (hhmm % 100 < 60)


def _minutes(hhmm: pd.Series) -> pd.Series:
    return (hhmm // 100 * 60 + hhmm % 100) % 1440


def _with_times(raw: pd.DataFrame, zones: pd.Series) -> pd.DataFrame:
    day = pd.to_datetime(raw[["year", "month", "day"]])
    clock = day + pd.to_timedelta(_minutes(raw["sched_dep_time"]), unit="min")
    departure = clock.dt.tz_localize(NEW_YORK, ambiguous=True, nonexistent="shift_forward").dt.tz_convert("UTC")
    # Clocks at the destination decide; an overnight flight through a clock change there is an hour off in the
    # plan, and its arrival then disagrees with its clock and is counted as impossible.
    planned = (_minutes(raw["sched_arr_time"]) - _local_minutes(departure, zones)) % 1440
    arrival = departure + pd.to_timedelta(planned, unit="min")
    arrived = arrival + pd.to_timedelta(raw["arr_delay"], unit="min")
    hhmm = raw["sched_dep_time"].astype(str).str.zfill(4)
    return raw.assign(
        flight_id=day.dt.strftime("%Y-%m-%d")
        + "-"
        + raw["carrier"]
        + raw["flight"].astype(str)
        + "-"
        + raw["origin"]
        + "-"
        + hhmm,
        date=day,
        scheduled_departure=departure,
        scheduled_minutes=planned,
        arrived_at=arrived,
        clock_agrees=_local_minutes(arrived, zones) == _minutes(raw["arr_time"]),
    )


def _local_minutes(moments: pd.Series, zones: pd.Series) -> pd.Series:
    """Minute of the day that a clock in each row's own time zone shows; null where the moment is."""
    parts = [group.dt.tz_convert(zone) for zone, group in moments.groupby(zones)]
    clocks = [part.dt.hour * 60 + part.dt.minute for part in parts]
    return pd.concat(clocks).reindex(moments.index) if clocks else pd.Series(dtype="float64")


def _with_outcome(timed: pd.DataFrame) -> pd.DataFrame:
    cancelled = timed["dep_time"].isna()
    diverted = ~cancelled & timed["arr_delay"].isna()
    gate_to_gate = timed["scheduled_minutes"] + timed["arr_delay"] - timed["dep_delay"]
    too_fast = timed["distance"] / timed["air_time"] * 60 > _FASTEST_MPH
    impossible = ~cancelled & ~diverted & (~timed["clock_agrees"] | too_fast | (gate_to_gate < timed["air_time"]))
    status = pd.Series("arrived", index=timed.index)
    status = status.mask(cancelled, "cancelled").mask(diverted, "diverted").mask(impossible, "impossible")
    known = status == "arrived"
    frame = timed.assign(
        status=status,
        arrived_at=timed["arrived_at"].where(known),
        arrival_delay=timed["arr_delay"].where(known),
        late=(timed["arr_delay"] > LATE_AFTER_MINUTES).astype("float64").where(known),
    )
    return frame[COLUMNS].sort_values(["scheduled_departure", "flight_id"], ignore_index=True)


OUTCOMES = ["status", "arrived_at", "arrival_delay", "late"]
COLUMNS = [
    "flight_id",
    "date",
    "scheduled_departure",
    "scheduled_minutes",
    "carrier",
    "origin",
    "dest",
    "tailnum",
    "distance",
    *OUTCOMES,
]
