"""The same flights as months arrive: what is known so far, and the one month that is still flying."""

import pandas as pd

from orchestration.datasets.declaration import Period
from orchestration.flights.datasets import FLIGHTS, LATE


def _months(flights: pd.DataFrame) -> pd.PeriodIndex:
    return pd.DatetimeIndex(flights["date"]).to_period("M")


def _before_the_last_two(flights: pd.DataFrame) -> pd.DataFrame:
    months = _months(flights)
    return flights.loc[months < months.max() - 1]


def _last_but_one(flights: pd.DataFrame) -> pd.DataFrame:
    months = _months(flights)
    return flights.loc[months == months.max() - 1]


FLIGHTS_SO_FAR = FLIGHTS._replace(
    name="flights_so_far",
    train=Period(
        "flight_season_train",
        "Flights that arrived, of every month so far but the last two: models learn from them.",
        (),
        FLIGHTS.train.columns,
        FLIGHTS.train.order,
        required=(LATE,),
        cut=_before_the_last_two,
        code=(_before_the_last_two, _months),
    ),
    validation=Period(
        "flight_season_validation",
        "Flights that arrived, of the last month but one: models are judged on them. The last month is still flying.",
        (),
        FLIGHTS.validation.columns,
        FLIGHTS.validation.order,
        required=(LATE,),
        cut=_last_but_one,
        code=(_last_but_one, _months),
    ),
    replay=None,
)
