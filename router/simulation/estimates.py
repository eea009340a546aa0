"""What runs say together, with the error that comes from there being only so many of them."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike


class Mean(msgspec.Struct, frozen=True):
    """A mean over runs and its standard error; the error is None for a single run."""

    mean: float
    error: float | None


class Share(msgspec.Struct, frozen=True):
    """A share of runs and its standard error, which is never 0: that of Agresti and Coull (1998)."""

    share: float
    error: float


class Time(msgspec.Struct, frozen=True):
    """A quantile over runs, in days; None if later than the end, in so many runs that nobody knows when.

    `low` and `high` are a standard error away by rank.
    """

    days: float | None
    low: float | None
    high: float | None


def mean_of(values: ArrayLike) -> Mean | None:
    """Return the mean of one value per run; of nothing, None."""
    given = np.asarray(values, dtype=np.float64)
    if given.size == 0:
        return None
    error = float(given.std(ddof=1)) / math.sqrt(given.size) if given.size > 1 else None
    return Mean(float(given.mean()), error)


def share_of(happened: Sequence[bool]) -> Share:
    """Return in which share of runs something happened."""
    runs, times = len(happened), sum(happened)
    centre = (times + 2) / (runs + 4)
    return Share(times / runs, math.sqrt(centre * (1 - centre) / (runs + 4)))


def quantile_of(days: Sequence[float | None], quantile: float) -> Time:
    """Return when something had happened in this share of runs; None says of a run that it had not by the end.

    One standard error of the rank is sqrt(runs * quantile * (1 - quantile)).
    """
    runs = len(days)
    ordered = sorted(math.inf if day is None else day for day in days)
    error = math.sqrt(runs * quantile * (1 - quantile))
    middle, low, high = (_ranked(ordered, runs * quantile + shift) for shift in (0.0, -error, error))
    return Time(middle, low, high)


def _ranked(ordered: Sequence[float], rank: float) -> float | None:
    """Return the value of a rank from 1 on; the last rank stands for those beyond it."""
    value = ordered[min(max(math.ceil(rank), 1), len(ordered)) - 1]
    return value if math.isfinite(value) else None
