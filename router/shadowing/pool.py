"""Shadow calls on their way: queued, given to the worker in turns, answered, failed or dropped."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Literal, NamedTuple, TypeAlias

from router.shadowing.launch import Launch
from router.shadowing.messages import Answer, Call, Keep, Loaded, Loading, Problem, Report, Started
from router.shadowing.patience import Patience, Scheduled
from router.shadowing.process import WorkerProcess
from router.shadowing.quarantine import Quarantine
from router.shadowing.queue import FairQueue, Waiting

Dropped: TypeAlias = Literal["error", "ledger", "quarantine", "queue", "removed", "stopping"]
"""Why a shadow was not asked, or its answer not kept: nobody knows, the ledger had no time, the model is left alone for
a while, too many calls wait, it is no shadow any more, or the router ends."""

START_TIMEOUT_S = 120.0
"""For a worker to import its libraries on a busy machine."""

LOAD_TIMEOUT_S = 60.0
"""For a model to be loaded."""

_WINDOW = 16
"""How many calls a worker holds at a time, so that it need not wait for the router."""

_TICK_S = 0.05
_SHORT_LIFE_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 60.0

_logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """What a shadow predicted, as JSON text, or its problem and how it is described."""

    decision_id: bytes
    model: str
    predictions: str | None
    problem: Problem | None
    error: str | None
    latency_ms: float


class _Begun(NamedTuple):
    number: int
    waiting: Waiting


class ShadowPool:
    """Keeps one worker process while there are shadows; used from one event loop.

    `found` is told every result, `dropped` every call that gets none, with its model and the reason, and `restarted`
    every worker that takes the place of another.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        queue_size: int,
        timeout_s: float,
        found: Callable[[Found], None],
        dropped: Callable[[str, Dropped, int], None],
        restarted: Callable[[], None],
    ) -> None:
        self._launch = launch
        self._timeout_s = timeout_s
        self._found = found
        self._dropped = dropped
        self._restarted = restarted
        self._queue = FairQueue(queue_size)
        self._quarantine = Quarantine()
        self._wanted: frozenset[str] = frozenset()
        self._is_wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._worker: WorkerProcess | None = None
        self._has_started = False
        self._is_ready = False
        """Not while it starts, and not any more when it has to be replaced."""
        self._begun: deque[_Begun] = deque()
        self._numbers = 0
        self._patience = Patience(self._scheduled)
        self._is_late = False
        self._dispatching = False

    @property
    def worker_pid(self) -> int | None:
        """The process id of the worker, while there is one."""
        return None if self._worker is None else self._worker.pid

    def put(self, waiting: Waiting) -> Dropped | None:
        """Queue a call, or return why it is dropped."""
        if (refusal := self._refusal(waiting.model)) is not None:
            return refusal
        if not self._queue.put(waiting):
            return "queue"
        if self._is_ready and not self._dispatching:
            self._dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch)
        return None

    def want(self, models: Collection[str]) -> None:
        """Take calls of these models from now on, and start or end the worker as needed."""
        wanted = frozenset(models)
        if wanted == self._wanted:
            return
        removed, self._wanted = self._wanted - wanted, wanted
        for model in removed:
            self._quarantine.forget(model)
            self._drop_queued(model, "removed")
        if not wanted:
            self._is_wanted.clear()
            self._drop_begun("removed")
            return
        self._is_wanted.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_worker())
        elif self._worker is not None:
            self._worker.send([Keep(sorted(wanted))])

    async def stop(self) -> None:
        """Drop what waits and end the worker; nothing is taken any more."""
        self._wanted = frozenset()
        for model in self._queue.models():
            self._drop_queued(model, "stopping")
        self._drop_begun("stopping")
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _drop_begun(self, reason: Dropped) -> None:
        for begun in self._begun:
            self._dropped(begun.waiting.model, reason, 1)
        self._begun.clear()

    def _drop_queued(self, model: str, reason: Dropped) -> None:
        if number := self._queue.remove(model):
            self._dropped(model, reason, number)

    async def _keep_worker(self) -> None:
        """Keep a worker while it is wanted; many short lives in a row make pauses between them."""
        short_lives = 0
        while True:
            await self._is_wanted.wait()
            started_s = time.monotonic()
            has_failed = True
            try:
                has_failed = await self._live()
            except OSError as error:
                _logger.error("cannot start a worker for shadows: %s", error)
            if has_failed and self._wanted:
                short_lives = short_lives + 1 if time.monotonic() - started_s < _SHORT_LIFE_S else 0
                await asyncio.sleep(_pause_s(short_lives))
                self._restarted()

    async def _live(self) -> bool:
        """Start a worker, and return when it has ended whether it did while it was wanted."""
        self._is_late = self._has_started = False
        worker = self._worker = WorkerProcess(self._launch, self._receive)
        self._await_report(START_TIMEOUT_S)
        try:
            await worker.listen()
            while self._wanted and not worker.ended.done():
                await asyncio.wait([worker.ended], timeout=_TICK_S)
                self._look(worker)
            return worker.ended.done()
        finally:
            self._worker, self._is_ready = None, False
            end = await worker.bury()
            if self._has_started:
                self._settle(end)
            elif self._wanted:
                _logger.error("the worker for shadows %s before it could take a call", end)

    def _look(self, worker: WorkerProcess) -> None:
        if self._is_ready and not self._begun:
            return
        if self._patience.is_over() and not worker.ended.done():
            self._is_late = True
            worker.kill()

    def _scheduled(self) -> Scheduled:
        return Scheduled() if self._worker is None else self._worker.scheduled()

    def _await_report(self, seconds: float) -> None:
        self._patience.limit_s = seconds
        self._patience.heard()

    def _receive(self, report: Report) -> None:
        match report:
            case Started():
                self._await_report(self._timeout_s)
                self._has_started = self._is_ready = True
                self._dispatch()
            case Loading():
                self._await_report(LOAD_TIMEOUT_S)
            case Loaded():
                self._await_report(self._timeout_s)
            case Answer():
                self._patience.heard()
                self._take(report)

    def _take(self, answer: Answer) -> None:
        """Pass on the answer to the oldest call."""
        if not self._begun or self._begun[0].number != answer.number:
            # Of a call that nobody waits for any more, because the shadow was removed.
            return
        waiting = self._begun.popleft().waiting
        if answer.problem is None:
            self._quarantine.answered(waiting.model)
        self._found(
            Found(
                waiting.decision_id,
                waiting.model,
                answer.predictions,
                answer.problem,
                answer.error,
                answer.latency_ms,
            )
        )
        if answer.hoarder is not None and self._worker is not None:
            self._punish(answer.hoarder, "it keeps memory")
            self._requeue()
            self._is_ready = False
            self._worker.kill()
        elif not self._dispatching:
            self._dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatching = False
        worker, room = self._worker, _WINDOW - len(self._begun)
        # In groups, because every message to the worker wakes it up.
        if worker is None or not self._is_ready or not len(self._queue) or room < _WINDOW // 2:
            return
        if not self._begun:
            self._patience.heard()
        calls = []
        for waiting in self._queue.take(room):
            self._numbers += 1
            self._begun.append(_Begun(self._numbers, waiting))
            calls.append(Call(self._numbers, waiting.model, waiting.inputs))
        worker.send(calls)

    def _settle(self, end: str) -> None:
        """Fail the call that ended the worker, and queue those again that it had not begun."""
        if not self._begun:
            return
        waiting = self._begun.popleft().waiting
        elapsed_s = self._patience.silent_s
        problem: Problem = "timeout" if self._is_late else "died"
        error = f"no answer within {self._patience.limit_s:g} s" if self._is_late else f"its process {end}"
        self._punish(waiting.model, error)
        self._found(Found(waiting.decision_id, waiting.model, None, problem, error, elapsed_s * 1000))
        self._requeue()

    def _requeue(self) -> None:
        held = [begun.waiting for begun in self._begun]
        self._begun.clear()
        refused = {waiting.model: reason for waiting in held if (reason := self._refusal(waiting.model)) is not None}
        self._queue.put_back([waiting for waiting in held if waiting.model not in refused])
        for waiting in held:
            if waiting.model in refused:
                self._dropped(waiting.model, refused[waiting.model], 1)

    def _refusal(self, model: str) -> Dropped | None:
        if model not in self._wanted:
            return "removed"
        return "quarantine" if self._quarantine.holds(model) else None

    def _punish(self, model: str, error: str) -> None:
        seconds = self._quarantine.punish(model)
        _logger.warning("shadow %s (%s) is left alone for %g s", model, error, seconds)
        self._drop_queued(model, "quarantine")


def _pause_s(short_lives: int) -> float:
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(short_lives, 30))
