"""Means over time, and predicted against observed frequencies, as tidy frames."""

import math

import numpy as np
import pandas as pd

from analysis import queries
from analysis.experiment import AnyMetric, Experiment, ScoreMetric
from analysis.queries import Log
from analysis.source import Source

_PERIODS_MS = (
    1_000,
    5_000,
    15_000,
    60_000,
    300_000,
    900_000,
    3_600_000,
    10_800_000,
    43_200_000,
    86_400_000,
    604_800_000,
)
_MOST_PERIODS = 24
_Z = 1.959963984540054


def width_ms(length_ms: int) -> int:
    """Return a width of whole seconds, minutes, hours, days or weeks that makes about 24 periods of a time."""
    return next((width for width in _PERIODS_MS if length_ms <= _MOST_PERIODS * width), _PERIODS_MS[-1])


def timeline(source: Source, log: Log, experiment: Experiment, metric: AnyMetric, period_ms: int) -> pd.DataFrame:
    """Mean of a metric per arm and period of the decisions; columns as `Report.timeline` says."""
    rows = source.rows(queries.per_period(queries.observations(log, metric), period_ms))
    frame = pd.DataFrame(
        rows,
        columns=pd.Index(["arm", "start_ms", "units", "observations", "numerator", "denominator", "nn", "nd", "dd"]),
    )
    if experiment.is_adaptive:
        # An arm that did badly by chance gets little traffic: the error of its mean is not what it seems.
        frame["nn"] = math.nan
    mean = frame["numerator"] / frame["denominator"]
    squares = frame["nn"] - 2 * mean * frame["nd"] + mean**2 * frame["dd"]
    correction = frame["units"] / (frame["units"] - 1).where(frame["units"] > 1)
    error = np.sqrt((squares * correction).clip(lower=0)) / frame["denominator"].abs()
    return pd.DataFrame(
        {
            "period": pd.to_datetime(frame["start_ms"], unit="ms", utc=True),
            "arm": frame["arm"].map(experiment.arm_names),
            "units": frame["units"],
            "observations": frame["observations"],
            "mean": mean,
            "low": mean - _Z * error,
            "high": mean + _Z * error,
        }
    )


def reliability(source: Source, log: Log, experiment: Experiment, metric: ScoreMetric, bins: int) -> pd.DataFrame:
    """Predicted probability against observed frequency; columns as `Report.reliability` says."""
    rows = source.rows(queries.reliability(log, metric, bins))
    frame = pd.DataFrame(rows, columns=pd.Index(["arm", "bin", "labels", "predicted", "observed"]))
    n, share = frame["labels"], frame["observed"]
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    placed = frame.assign(arm=frame["arm"].map(experiment.arm_names), low=centre - half, high=centre + half)
    return placed.drop(columns="bin")
