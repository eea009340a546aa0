"""Calls that wait for the shadow worker: a bounded queue for each model, and turns between the models."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MOST_BYTES = 64 * 2**20
"""Of inputs that wait, over all models."""


class Waiting(NamedTuple):
    """A decision that a shadow shall see; `inputs` is the JSON text of its rows."""

    decision_id: bytes
    model: str
    inputs: str


class FairQueue:
    """Holds up to `size` calls of each model and gives them out in turns, so that none crowds out the others."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = 0
        self._calls: dict[str, deque[Waiting]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._calls.values()))

    def put(self, call: Waiting) -> bool:
        """Add a call, or return False when there is no room."""
        calls = self._calls.get(call.model)
        if (calls is not None and len(calls) >= self._size) or self._bytes + len(call.inputs) > MOST_BYTES:
            return False
        self._bytes += len(call.inputs)
        if calls is None:
            calls = self._calls[call.model] = deque()
        calls.append(call)
        return True

    def take(self, most: int) -> Iterator[Waiting]:
        """Remove and yield up to so many calls, one of each model in turn, the longest waiting first."""
        while self._calls and most > 0:
            model, calls = next(iter(self._calls.items()))
            call = calls.popleft()
            # To the end of the line of models, if it has more.
            del self._calls[model]
            if calls:
                self._calls[model] = calls
            self._bytes -= len(call.inputs)
            most -= 1
            yield call

    def put_back(self, calls: Sequence[Waiting]) -> None:
        """Put calls that were taken, and never begun, before those that wait; they have their room already."""
        for call in reversed(calls):
            self._bytes += len(call.inputs)
            self._calls.setdefault(call.model, deque()).appendleft(call)

    def remove(self, model: str) -> int:
        """Remove all calls of a model and return how many there were."""
        calls = self._calls.pop(model, deque())
        self._bytes -= sum(len(call.inputs) for call in calls)
        return len(calls)

    def models(self) -> list[str]:
        """Return the models that have calls."""
        return list(self._calls)
