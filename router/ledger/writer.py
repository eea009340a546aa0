"""Group commit: one thread commits whatever is queued as one transaction, and only then are its callers answered."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from router.errors import LedgerUnavailable, Overloaded
from router.ledger.batch import Assign, Decide, Job, Observe, Record
from router.ledger.failover import Failover
from router.ledger.records import AssignmentRow, DecisionRow, Observation, Receipt, ShadowRow

_LARGEST_BATCH = 1024
_LULL_S = 0.02


class _Waiting(NamedTuple):
    job: Job
    future: asyncio.Future[Any]


class _InFlight(NamedTuple):
    batch: list[_Waiting]
    since_s: float


class LedgerWriter:
    """The one writer of decisions, first assignments and outcomes in this process.

    Used from one event loop: `decide`, `assign` and `observe` return when their rows are durable, or raise and stored
    nothing. Jobs of one turn of the loop are handed to the thread together, which costs one hand-over instead of one
    per job.

    A commit that hangs, because the network or the database does, is given up by `watch`: another thread takes over
    with the spool. Should the first commit succeed after all, draining the same jobs changes nothing. `committed` is
    told how many seconds and rows each batch took.

    A batch that follows closely on one of several jobs waits `gathering_s` for company: many are being answered.
    """

    def __init__(
        self,
        store: Failover,
        *,
        queue_size: int,
        timeout_s: float,
        committed: Callable[[float, int], None] = lambda _seconds, _rows: None,
        gathering_s: float = 0.0,
    ) -> None:
        self._store = store
        self._committed = committed
        self._gathering_s = gathering_s
        self._last_s, self._last_jobs = 0.0, 0
        self._queue_size = queue_size
        self._timeout_s = timeout_s
        self._waiting = 0
        self._gathered: list[_Waiting] = []
        self._batches: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._stopping = False
        self._turn = threading.Lock()
        self._generation = 0
        self._in_flight: _InFlight | None = None
        self._thread = self._new_thread([])

    def start(self) -> None:
        """Start the writer's thread and the store behind it."""
        self._store.start()
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued and end the thread; not to be called while a job is being handed in."""
        self._stopping = True
        self._hand_over()
        self._batches.put(None)
        while self._thread.is_alive():
            self._thread.join(self._timeout_s)
            if self.watch():
                # The thread that hangs may have taken the other one's end with it.
                self._batches.put(None)
        self._store.stop()

    def depth(self) -> int:
        """Return how many rows wait for their commit."""
        return self._waiting

    def watch(self) -> bool:
        """Give up a commit that takes too long, and return whether there was one; to be called a few times a second."""
        with self._turn:
            stuck = self._in_flight
            if stuck is None or time.monotonic() - stuck.since_s < self._timeout_s:
                return False
            self._generation += 1
            self._in_flight = None
        self._store.leave(f"a commit took more than {self._timeout_s:g} s")
        self._thread = self._new_thread(stuck.batch)
        self._thread.start()
        return True

    async def decide(self, row: DecisionRow, key: str | None) -> DecisionRow:
        """Store a decision and return the one to answer with: an earlier one where the client's key is known.

        Raises:
            Overloaded: The queue is full.
            LedgerUnavailable: Neither the ledger nor the spool could take it.
        """
        stored: DecisionRow = await self._hand_in(Decide(row, key))
        return stored

    async def assign(self, row: AssignmentRow) -> AssignmentRow:
        """Store the first assignment of a unit and return the one that stands, which may be an earlier one."""
        standing: AssignmentRow = await self._hand_in(Assign(row))
        return standing

    async def observe(self, rows: Sequence[Observation]) -> list[Receipt]:
        """Store outcomes and return a receipt for each, in order; raises as `decide` does."""
        receipts: list[Receipt] = await self._hand_in(Observe(tuple(rows)))
        return receipts

    async def record(self, rows: Sequence[ShadowRow]) -> None:
        """Store what shadows predicted; raises as `decide` does."""
        await self._hand_in(Record(tuple(rows)))

    def _hand_in(self, job: Job) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        if self._stopping:
            raise LedgerUnavailable("the router is stopping")
        if self._waiting >= self._queue_size:
            raise Overloaded(f"{self._waiting} rows wait for the ledger; try again in a moment")
        self._waiting += job.weight
        if not self._gathered:
            loop.call_soon(self._hand_over)
        waiting = _Waiting(job, loop.create_future())
        self._gathered.append(waiting)
        return waiting.future

    def _hand_over(self) -> None:
        if self._gathered:
            self._batches.put(self._gathered)
            self._gathered = []

    def _new_thread(self, first: list[_Waiting]) -> threading.Thread:
        name = f"ledger-writer-{self._generation}"
        return threading.Thread(target=self._run, args=(self._generation, first), name=name, daemon=True)

    def _run(self, generation: int, first: list[_Waiting]) -> None:
        session = self._store.session()
        batch, goes_on = first, True
        while goes_on:
            if not batch:
                batch, goes_on = self._next()
            if batch:
                began_s = time.monotonic()
                with self._turn:
                    self._in_flight = _InFlight(batch, began_s)
                answers = self._store.commit(session, [waiting.job for waiting in batch])
                with self._turn:
                    if generation != self._generation:
                        break
                    self._in_flight = None
                self._last_s, self._last_jobs = time.monotonic(), len(batch)
                self._committed(self._last_s - began_s, _weight(batch))
                batch[0].future.get_loop().call_soon_threadsafe(self._resolve, batch, answers)
                batch = []
        session.close()

    def _next(self) -> tuple[list[_Waiting], bool]:
        """Return what has gathered since the last commit, and whether more may come."""
        batch = self._batches.get()
        jobs = batch or []
        if batch and self._is_pressed():
            time.sleep(self._gathering_s)
        while batch is not None and _weight(jobs) < _LARGEST_BATCH and not self._batches.empty():
            batch = self._batches.get()
            jobs += batch or []
        return jobs, batch is not None

    def _is_pressed(self) -> bool:
        """Return whether several jobs were committed together only just now."""
        return self._gathering_s > 0 and self._last_jobs > 1 and time.monotonic() - self._last_s < _LULL_S

    def _resolve(self, batch: Sequence[_Waiting], answers: Sequence[Any]) -> None:
        self._waiting -= _weight(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def _weight(batch: Sequence[_Waiting]) -> int:
    return sum(waiting.job.weight for waiting in batch)
