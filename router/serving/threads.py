"""A few threads of one model's own, started when they are needed; a model that hangs holds nobody else's."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from router.errors import PredictionFailed

T = TypeVar("T")


class Ended(NamedTuple, Generic[T]):
    """What became of a function: its result, or what it raised."""

    result: T | None
    error: Exception | None


class _Job(NamedTuple, Generic[T]):
    function: Callable[[], T]
    ended: Callable[[Ended[T]], None]


class _Thread(Generic[T]):
    """A daemon, because a model that hangs must not keep the process from ending."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, became_free: Callable[["_Thread[T]"], None]) -> None:
        self.jobs: SimpleQueue[_Job[T] | None] = SimpleQueue()
        self._loop = loop
        self._became_free = became_free
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:
            ended = _run(job.function)
            with contextlib.suppress(RuntimeError):  # The loop may be gone by now.
                self._loop.call_soon_threadsafe(self._tell, job, ended)
            del job, ended

    def _tell(self, job: _Job[T], ended: Ended[T]) -> None:
        self._became_free(self)
        job.ended(ended)


class Threads(Generic[T]):
    """Up to `most` threads; used from one event loop, which holds all of its state, so nothing needs a lock."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._all: set[_Thread[T]] = set()
        self._free: list[_Thread[T]] = []

    @property
    def are_busy(self) -> bool:
        """Whether there is no thread for one more function."""
        return not self._free and len(self._all) >= self._most

    def start(self, function: Callable[[], T], ended: Callable[[Ended[T]], None]) -> None:
        """Run a function in a thread; the loop calls `ended` with what became of it. There must be a thread free."""
        if self._free:
            thread = self._free.pop()
        else:
            name = f"model-{self._name}-{len(self._all)}"
            thread = _Thread(name, asyncio.get_running_loop(), self._became_free)
            self._all.add(thread)
        thread.jobs.put(_Job(function, ended))

    def release(self) -> None:
        """End the threads that are free now, and the others when they return."""
        for thread in self._all:
            thread.jobs.put(None)
        self._all, self._free = set(), []

    def close(self, seconds: float) -> None:
        """End the threads, and wait so long for those that are not free."""
        ends = time.monotonic() + seconds
        waiting = self._all
        self.release()
        for thread in waiting:
            thread.thread.join(max(0.0, ends - time.monotonic()))

    def _became_free(self, thread: _Thread[T]) -> None:
        if thread in self._all:
            self._free.append(thread)


def _run(function: Callable[[], T]) -> Ended[T]:
    try:
        return Ended(function(), None)
    except Exception as error:  # noqa: BLE001 (raised where the function was wanted)
        return Ended(None, error)
    except BaseException as error:  # noqa: BLE001 (the same)
        # In an event loop these would end the process, or be lost.
        return Ended(None, PredictionFailed(f"{type(error).__name__}: {error}"))
