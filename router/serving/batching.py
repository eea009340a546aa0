"""Calls of one model in threads, gathered into one where the model is quicker with many rows than with one.

Nobody waits for company: while the model is busy requests gather, and when it is free it takes all that wait, up to a
maximum. So batches grow with the load and an idle model answers a single request at once.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

import msgspec
from numpy.typing import NDArray

from models.runtime import Model
from models.signature import BatchEncoder
from router.documents import LARGEST_VALUE
from router.errors import Overloaded, PredictionFailed
from router.serving.threads import Ended, Threads

THREADS = 8
"""Of one model. More would only take turns: what a model computes in Python holds the interpreter."""

MOST_ROWS = 64
"""In one call that was gathered from several requests."""

Rows: TypeAlias = Sequence[msgspec.Struct]
Answers: TypeAlias = list[list[float]]


class _Request:
    """Rows that wait for their predictions."""

    __slots__ = ("alone", "answer", "has_begun", "rows")

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.answer: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self.alone = False
        """Whether it was in a batch that failed, perhaps for another's sake."""
        self.has_begun = False

    @property
    def is_awaited(self) -> bool:
        return not self.answer.done()


class _Job(NamedTuple):
    requests: list[_Request]

    @property
    def is_awaited(self) -> bool:
        return any(request.is_awaited for request in self.requests)


class ThreadedModel:
    """One model's threads and what waits for them; used from one event loop."""

    def __init__(
        self,
        model: Model,
        encoder: BatchEncoder,
        *,
        gathers: bool,
        gathered: Callable[[int], None] = lambda rows: None,
        threads: int = THREADS,
    ) -> None:
        self._model = model
        self._encoder = encoder
        self._gathers = gathers
        self._gathered = gathered
        self._most_rows = MOST_ROWS
        self._threads: Threads[Answers] = Threads(str(model.reference), threads)
        self._waiting: deque[_Request] = deque()
        self._running: list[_Job] = []
        self._is_released = False

    @property
    def abandoned(self) -> int:
        """How many calls still run though nobody waits for them any more."""
        return sum(not request.is_awaited for job in list(self._running) for request in job.requests)

    async def call(self, rows: Rows, timeout_s: float) -> list[float]:
        """Return one finite number per row, or raise whatever the model did.

        Raises:
            TimeoutError: The model took too long.
            Overloaded: So did its other calls, so that this one never began.
        """
        request = _Request(rows)
        self._waiting.append(request)
        self._start()
        try:
            return await within(request.answer, timeout_s)
        except TimeoutError:
            if request.has_begun or not any(job.is_awaited for job in self._running):
                raise
            raise Overloaded(f"busy with other calls for {timeout_s * 1000:g} ms") from None
        finally:
            # If it was given up, the thread that it is in no longer counts as one that makes others wait.
            self._start()

    def release(self) -> None:
        """End the threads as soon as nothing waits for them."""
        self._is_released = True
        if not self._waiting:
            self._threads.release()

    def close(self, seconds: float) -> None:
        """End the threads, and wait so long for those that are busy."""
        self._threads.close(seconds)

    def _start(self) -> None:
        while self._may_start() and (requests := self._take()):
            job = _Job(requests)
            self._running.append(job)
            for request in requests:
                request.has_begun = True
            groups = [request.rows for request in requests]
            if self._gathers:
                self._gathered(sum(map(len, groups)))
            self._threads.start(partial(self._predict, groups), partial(self._end, job))

    def _may_start(self) -> bool:
        """Return whether a thread is free; where calls gather only one works at a time, unless it seems to hang."""
        if not self._waiting or self._threads.are_busy:
            return False
        return not (self._gathers and any(job.is_awaited for job in self._running))

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
        rows = 0
        while self._waiting:
            request = self._waiting[0]
            if request.is_awaited:
                rows += len(request.rows)
                if taken and not self._may_join(request, taken, rows):
                    break
                taken.append(request)
            self._waiting.popleft()
        return taken

    def _may_join(self, request: _Request, taken: list[_Request], rows: int) -> bool:
        return self._gathers and rows <= self._most_rows and not request.alone and not taken[0].alone

    def _predict(self, groups: list[Rows]) -> Answers:
        """Return each request's predictions; runs in a thread."""
        rows = groups[0] if len(groups) == 1 else list(chain.from_iterable(groups))
        values = iter(checked(self._model.predict(self._encoder.encode(rows)), len(rows)))
        return [list(islice(values, len(group))) for group in groups]

    def _end(self, job: _Job, ended: Ended[Answers]) -> None:
        self._running.remove(job)
        awaited = [request for request in job.requests if request.is_awaited]
        if ended.result is not None:
            self._most_rows = min(MOST_ROWS, self._most_rows + (not job.requests[0].alone))
            for request, answer in zip(job.requests, ended.result, strict=True):
                if request.is_awaited:
                    request.answer.set_result(answer)
        elif ended.error is not None and len(job.requests) == 1:
            for request in awaited:
                request.answer.set_exception(ended.error)
        else:
            # Whoever's rows the model cannot take is found one by one; if they keep coming, batches stay small.
            self._most_rows = max(1, self._most_rows // 2)
            for request in awaited:
                request.alone, request.has_begun = True, False
            self._waiting.extendleft(reversed(awaited))
        self._start()
        if self._is_released and not self._waiting:
            self._threads.release()


async def within(answer: asyncio.Future[list[float]], timeout_s: float) -> list[float]:
    """Return the answer, or cancel it and raise TimeoutError without waiting for what ignores its cancellation."""
    try:
        await asyncio.wait((answer,), timeout=timeout_s)
        if not answer.done():
            raise TimeoutError
        return answer.result()
    finally:
        answer.cancel()


def checked(predictions: NDArray[Any], rows: int) -> list[float]:
    """Return predictions as numbers; raises PredictionFailed unless there is one for each row that can be scored."""
    values: list[float] = predictions.tolist()
    if not all(map(math.isfinite, values)):
        raise PredictionFailed("it predicted a value that is not finite")
    if values and max(map(abs, values)) > LARGEST_VALUE:
        raise PredictionFailed(f"it predicted a value further than {LARGEST_VALUE:g} from 0")
    if len(values) != rows:
        raise PredictionFailed(f"it predicted {len(values)} values for {rows} rows")
    return values
