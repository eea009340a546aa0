"""Calls of one model in the event loop, gathered into one where the model is quicker with many rows than with one.

Nobody waits for company: requests that arrived in the same turn of the loop are predicted together at its end. What
goes wrong in the loop is not tried again there: everybody waits while a model computes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain
from time import perf_counter
from typing import NamedTuple

from models.runtime import Model
from models.signature import BatchEncoder
from router.errors import PredictionFailed
from router.serving.batching import Rows, checked

MOST_ROWS = 16
"""In one call that was gathered from several requests; as many as were timed when the model was loaded."""


class NotHere(Exception):
    """A request has to be predicted elsewhere: together with others it failed, or the model was late."""


class Timed(NamedTuple):
    """One finite number per row, and how long the model took over them, or was waited for."""

    values: list[float]
    seconds: float
    counts: bool = True
    """Whether the breaker counts it: of requests that were one call, one."""


class _Request(NamedTuple):
    rows: Rows
    answer: asyncio.Future[Timed]


class InlineModel:
    """One model that nobody has to wait for in a thread; used from one event loop."""

    def __init__(
        self, model: Model, encoder: BatchEncoder, *, gathers: bool, gathered: Callable[[int], None] = lambda rows: None
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._gathers = gathers
        self._gathered = gathered
        self._most_rows = MOST_ROWS
        self._waiting: deque[_Request] = deque()

    async def call(self, rows: Rows) -> Timed:
        """Return what the model predicts; raises whatever it does, or NotHere."""
        if not self._gathers:
            return self._predict(rows)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer_some)
        request = _Request(rows, loop.create_future())
        self._waiting.append(request)
        return await request.answer

    def refuse(self) -> None:
        """Send all who wait elsewhere."""
        waiting, self._waiting = self._waiting, deque()
        _fail(waiting, NotHere)

    def _answer_some(self) -> None:
        """Make one call; the loop does other things before the next."""
        group = self._take()
        if not group:
            return
        try:
            found = self._predict(list(chain.from_iterable(request.rows for request in group)))
        except Exception as error:  # noqa: BLE001 (whoever asked is told)
            self._most_rows = max(1, self._most_rows // 2)
            _fail(group, error if len(group) == 1 else NotHere)
        else:
            self._most_rows = min(MOST_ROWS, self._most_rows + 1)
            _answer(group, found)
            self._gathered(len(found.values))
        if self._waiting:
            # After those who were just answered: they may have found the model late.
            asyncio.get_running_loop().call_soon(self._answer_some)

    def _take(self) -> list[_Request]:
        group: list[_Request] = []
        rows = 0
        while self._waiting:
            request = self._waiting[0]
            rows += len(request.rows)
            if group and rows > self._most_rows:
                break
            group.append(self._waiting.popleft())
        return group

    def _predict(self, rows: Rows) -> Timed:
        started_s = perf_counter()
        try:
            values = checked(self._model.predict(self._encoder.encode(rows)), len(rows))
        except StopIteration as error:
            # A future takes any exception but this one.
            raise PredictionFailed("StopIteration") from error
        except Exception:
            raise
        except BaseException as error:
            # A model that ends the process, or believes that it was cancelled, only fails.
            raise PredictionFailed(f"{type(error).__name__}: {error}") from error
        return Timed(values, perf_counter() - started_s)


def _answer(group: list[_Request], found: Timed) -> None:
    start, counts = 0, True
    for rows, answer in group:
        end = start + len(rows)
        if not answer.done():
            answer.set_result(Timed(found.values[start:end], found.seconds, counts))
            counts = False
        start = end


def _fail(group: Iterable[_Request], error: Exception | type[Exception]) -> None:
    for request in group:
        if not request.answer.done():
            request.answer.set_exception(error)
