"""When a rehearsed bandit is updated: often while every outcome matters, rarely when thousands more change little."""

import math
from collections.abc import Collection

from router.documents import AnyMetric, Bandit, Experiment
from router.simulation.plans import Exponential, Fixed
from router.simulation.traffic import MINUTES_PER_DAY

GROWTH = 0.02
"""From one update to the next the time for which a bandit has known anything grows by this share."""

FEWEST = 200
"""So many steps there are at least, or as many as there are minutes."""

_SECONDS_PER_MINUTE = 60


def update_minutes(document: Experiment) -> int:
    """Return the shortest step: what the document says, but at least the minute in which statistics are kept."""
    bandit = document.allocation
    return math.ceil(bandit.update_every_s / _SECONDS_PER_MINUTE) if isinstance(bandit, Bandit) else 1


def step_ends(
    document: Experiment, metric: AnyMetric, delay: Fixed | Exponential, days: float, changes: Collection[float] = ()
) -> tuple[int, ...]:
    """Return the minutes at which steps begin and end, from 0 to the last.

    A step is as short as may be at first, and then 2 % of the time for which outcomes have come; or of what a half-life
    or window lets a bandit remember, if that is less. One ends at each of the days in `changes`.
    """
    last = max(round(days * MINUTES_PER_DAY), 1)
    least, longest = update_minutes(document), _longest(document, last)
    silent = _silent_minutes(metric, delay)
    corners = sorted({min(max(round(day * MINUTES_PER_DAY), 1), last) for day in changes} | {last})
    ends = [0]
    for corner in corners:
        while ends[-1] < corner:
            now = ends[-1]
            known = now - silent if now >= silent else now
            size = max(min(int(GROWTH * known), longest), least)
            ends.append(min(now + size, corner))
    return tuple(ends)


def even_ends(minutes: int, days: float, changes: Collection[float] = ()) -> tuple[int, ...]:
    """Return the ends of steps that all take so many minutes, but for those that a change cuts short."""
    last = max(round(days * MINUTES_PER_DAY), 1)
    corners = {min(max(round(day * MINUTES_PER_DAY), 1), last) for day in changes}
    return tuple(sorted({*range(0, last, minutes), *corners, last}))


def _longest(document: Experiment, last: int) -> int:
    longest = last / FEWEST
    bandit = document.allocation
    if isinstance(bandit, Bandit):
        remembered = [seconds for seconds in (bandit.half_life_s, bandit.window_s) if seconds is not None]
        longest = min([longest, *(GROWTH * seconds / _SECONDS_PER_MINUTE for seconds in remembered)])
    return math.floor(longest)


def _silent_minutes(metric: AnyMetric, delay: Fixed | Exponential) -> float:
    """Return for how long nothing can be known: until the first window closes, or the first outcome comes."""
    if getattr(metric, "default", None) is not None:
        return metric.window_s / _SECONDS_PER_MINUTE
    return delay.seconds / _SECONDS_PER_MINUTE if isinstance(delay, Fixed) else 0.0
