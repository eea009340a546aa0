"""How many requests come when."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MINUTES_PER_HOUR = 60
HOURS_PER_DAY = 24
MINUTES_PER_DAY = MINUTES_PER_HOUR * HOURS_PER_DAY


def expected_requests(per_hour: float, daily: Sequence[float] | None, minutes: ArrayLike) -> Floats:
    """Return how many requests are expected between each minute and the next [minutes - 1]; day 0 begins at minute 0.

    `daily` says how busy each hour of a day is against the others; `per_hour` is the mean of a whole day.
    """
    busy = np.asarray([1.0] * HOURS_PER_DAY if daily is None else daily, dtype=np.float64)
    by_hour = np.concatenate([[0.0], np.cumsum(busy / busy.mean() * per_hour)])
    days, of_day = np.divmod(np.asarray(minutes, dtype=np.float64), MINUTES_PER_DAY)
    so_far = days * by_hour[-1] + np.interp(of_day / MINUTES_PER_HOUR, np.arange(len(by_hour)), by_hour)
    return np.diff(so_far)
