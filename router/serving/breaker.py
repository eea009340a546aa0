"""A circuit breaker: a model that keeps failing is left alone for a while, then one call tries it again."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, TypeAlias

from router.documents import Breaker

State: TypeAlias = Literal["closed", "half-open", "open"]
STATES: tuple[State, ...] = ("closed", "half-open", "open")
"""From the best to the worst."""

# A rate such as 0.07 of 100 calls is a little more than 7 in binary.
_ROUNDING = 1e-9


class CircuitBreaker:
    """Counts the failures among the last calls of one model under the same limits.

    It opens when `failure_rate * calls` of the last `calls` calls failed; calls that were not made yet count as
    successes, so that one failure of a new model is not all of its calls. Open, it lets nothing through for `open_s`;
    then one call probes the model, and its end closes the breaker with a clean record or opens it once more.
    """

    def __init__(
        self,
        settings: Breaker,
        *,
        opened: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_closed = True
        """An attribute, because every request asks."""
        self._settings = settings
        self._needed = max(1, math.ceil(settings.failure_rate * settings.calls - _ROUNDING))
        self._opened = opened
        self._clock = clock
        self._calls = 0
        self._failures: deque[int] = deque()
        """The numbers of the calls that failed, of the last `calls` calls only."""
        self._retry_at = 0.0
        self._is_probing = False

    @property
    def state(self) -> State:
        """`half-open` when the next call would probe the model, or does."""
        if self.is_closed:
            return "closed"
        return "half-open" if self._is_probing or self._clock() >= self._retry_at else "open"

    @property
    def reason(self) -> str:
        """Why a call is not let through."""
        return f"circuit open: {self._needed} of its last {self._settings.calls} calls failed"

    def lets_through(self) -> bool:
        """Return whether a call may be made now."""
        return self.is_closed or (not self._is_probing and self._clock() >= self._retry_at)

    def begin(self) -> bool:
        """Return whether the call that begins now, and was let through, is the probe; its end must be told."""
        self._is_probing = not self.is_closed
        return self._is_probing

    def succeeded(self, probe: bool = False) -> None:
        """Count a call that was answered."""
        self._calls += 1
        if probe:
            self.is_closed, self._is_probing = True, False
            self._failures.clear()

    def failed(self, probe: bool = False) -> None:
        """Count a call that was not; what began before the breaker opened says nothing new while it is open."""
        self._calls += 1
        if probe:
            self._open()
        elif self.is_closed:
            self._failures.append(self._calls)
            while self._failures[0] <= self._calls - self._settings.calls:
                self._failures.popleft()
            if len(self._failures) >= self._needed:
                self._open()

    def abandoned(self, probe: bool = False) -> None:
        """Forget a call that ended without a verdict; after a probe the next call is one."""
        if probe:
            self._is_probing = False

    def _open(self) -> None:
        self.is_closed, self._is_probing = False, False
        self._retry_at = self._clock() + self._settings.open_s
        self._opened()
