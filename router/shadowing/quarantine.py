"""Which shadows are left alone for a while, because they took their worker with them."""

import time
from collections.abc import Callable

FIRST_S = 5.0
"""After the first time; every further time takes twice as long."""

LONGEST_S = 300.0

CLEARED_AFTER = 100
"""So many predictions in a row make up for what was."""


class Quarantine:
    """Counts how often each model made it necessary to replace the worker."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._strikes: dict[str, int] = {}
        self._until_s: dict[str, float] = {}
        self._answered: dict[str, int] = {}

    def holds(self, model: str) -> bool:
        """Return whether a model is to be left alone now."""
        return model in self._until_s and self._clock() < self._until_s[model]

    def punish(self, model: str) -> float:
        """Leave a model alone from now on and return for how many seconds."""
        strikes = self._strikes[model] = self._strikes.get(model, 0) + 1
        # The exponent is bounded, because a float is.
        seconds = min(LONGEST_S, FIRST_S * 2.0 ** min(strikes - 1, 30))
        self._until_s[model] = self._clock() + seconds
        self._answered[model] = 0
        return seconds

    def answered(self, model: str) -> None:
        """Count a prediction towards forgetting what was."""
        if model in self._strikes:
            self._answered[model] += 1
            if self._answered[model] >= CLEARED_AFTER:
                self.forget(model)

    def forget(self, model: str) -> None:
        """Start anew with a model."""
        for known in (self._strikes, self._until_s, self._answered):
            known.pop(model, None)
