"""How long a worker may keep the router waiting; what the machine does to it is not its fault."""

import time
from collections.abc import Callable
from typing import NamedTuple

_MOST_AT_ONCE = 0.5
"""The share of the limit that one look may use up: who was away for long reads first what arrived meanwhile."""


class Scheduled(NamedTuple):
    """What the system gave a thread since it began; all nothing where the system does not say."""

    computed_s: float = 0.0
    waited_s: float = 0.0
    """Ready to compute, without a processor; a wait counts when it is over."""
    is_ready: bool = False
    """Whether it computes or waits for a processor now."""


class Patience:
    """Counts the seconds since a worker was heard, except those in which it had to wait for a processor.

    Look often: what is not looked at for long counts little.
    """

    def __init__(self, scheduled: Callable[[], Scheduled], clock: Callable[[], float] = time.monotonic) -> None:
        self._scheduled = scheduled
        self._clock = clock
        self._heard_s = self._looked_s = clock()
        self._before = Scheduled()
        self._used_s = 0.0
        self.limit_s = 0.0

    @property
    def silent_s(self) -> float:
        """Seconds since the worker was heard, all of them."""
        return self._clock() - self._heard_s

    def heard(self) -> None:
        """Begin anew: the worker said something, or was given something to do."""
        self._heard_s = self._looked_s = self._clock()
        self._used_s = 0.0

    def is_over(self) -> bool:
        """Return whether the worker has been silent for longer than the limit."""
        now_s, now = self._clock(), self._scheduled()
        elapsed_s = now_s - self._looked_s
        if now.is_ready:
            counted_s = min(elapsed_s, now.computed_s - self._before.computed_s)
        else:
            counted_s = elapsed_s - max(0.0, now.waited_s - self._before.waited_s)
        self._used_s += min(max(0.0, counted_s), _MOST_AT_ONCE * self.limit_s)
        self._looked_s, self._before = now_s, now
        return self._used_s > self.limit_s
