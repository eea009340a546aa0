"""Which share of outcomes has come by a time."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from router.simulation.plans import Exponential, Fixed

Floats = NDArray[np.float64]
Delay = Fixed | Exponential


def answered(delay: Delay, longest_s: float) -> float:
    """Return the share of outcomes that come within a time of their decision, however long one waits."""
    if isinstance(delay, Fixed):
        return float(delay.seconds <= longest_s)
    return -math.expm1(-longest_s / delay.mean_s)


def arrived(delay: Delay, start_s: float, end_s: float, times_s: ArrayLike, longest_s: float = math.inf) -> Floats:
    """Return the share of the outcomes of decisions made evenly from start to end that has come by each time [times].

    What takes longer than `longest_s` never comes. The times are none before the end.
    """
    times = np.asarray(times_s, dtype=np.float64)
    integral = _integral(delay, times - start_s, longest_s) - _integral(delay, times - end_s, longest_s)
    return np.clip(integral / (end_s - start_s), 0.0, 1.0)


def _integral(delay: Delay, age_s: Floats, longest_s: float) -> Floats:
    """Return the integral from 0 to each age of the share that has come at that age."""
    within = np.minimum(age_s, longest_s)
    beyond = (age_s - within) * answered(delay, longest_s)
    if isinstance(delay, Fixed):
        return np.maximum(within - delay.seconds, 0.0) + beyond
    return within + delay.mean_s * np.expm1(-within / delay.mean_s) + beyond
