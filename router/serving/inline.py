"""Calls of one model in the event loop, gathered into one where the model is quicker with many rows than with one.

Nobody waits for company: requests that arrived in the same turn of the loop are predicted together at its end.
"""

import asyncio
from collections.abc import Callable
from itertools import chain
from time import perf_counter
from typing import NamedTuple

from models.runtime import Model
from models.signature import BatchEncoder
from router.errors import PredictionFailed
from router.serving.batching import MOST_ROWS, Rows, checked


class Timed(NamedTuple):
    """One finite number per row, and how long the model took over them, or was waited for."""

    values: list[float]
    seconds: float


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
        self._waiting: list[_Request] = []

    async def call(self, rows: Rows) -> Timed:
        """Return what the model predicts; raises whatever it does."""
        if not self._gathers:
            return self._predict(rows)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer_all)
        request = _Request(rows, loop.create_future())
        self._waiting.append(request)
        return await request.answer

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        group: list[_Request] = []
        size = 0
        for request in waiting:
            if size + len(request.rows) > MOST_ROWS and group:
                self._answer(group)
                group, size = [], 0
            group.append(request)
            size += len(request.rows)
        self._answer(group)

    def _answer(self, group: list[_Request]) -> None:
        try:
            found = self._predict(list(chain.from_iterable(request.rows for request in group)))
        except Exception as error:  # noqa: BLE001 (whoever asked is told)
            if len(group) > 1:
                # Whoever's rows the model cannot take must not fail the others.
                for request in group:
                    self._answer([request])
            elif not group[0].answer.done():
                group[0].answer.set_exception(error)
            return
        self._gathered(len(found.values))
        start = 0
        for rows, answer in group:
            end = start + len(rows)
            if not answer.done():
                answer.set_result(Timed(found.values[start:end], found.seconds))
            start = end

    def _predict(self, rows: Rows) -> Timed:
        started_s = perf_counter()
        try:
            values = checked(self._model.predict(self._encoder.encode(rows)), len(rows))
        except SystemExit as error:
            raise PredictionFailed(f"SystemExit: {error}") from error
        return Timed(values, perf_counter() - started_s)
