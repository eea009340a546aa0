"""Group commit: one thread commits whatever is queued as one transaction, and only then are its callers answered."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from router.errors import LedgerUnavailable, Overloaded
from router.ledger.folding import record_outcomes
from router.ledger.records import DecisionRow, Observation, Receipt
from router.ledger.writing import claim_key, insert_decisions

_LARGEST_BATCH = 1024


class _Decision(NamedTuple):
    row: DecisionRow
    key: str | None
    future: asyncio.Future[bytes]


class _Outcomes(NamedTuple):
    rows: Sequence[Observation]
    future: asyncio.Future[list[Receipt]]


_Job = _Decision | _Outcomes


class LedgerWriter:
    """The one writer of decisions and outcomes in this process.

    Used from one event loop: `decide` and `observe` return when their rows are durable, or raise and stored nothing.
    """

    def __init__(self, engine: Engine, *, queue_size: int, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._queue_size = queue_size
        self._clock = clock
        self._jobs: deque[_Job] = deque()
        self._wakeup = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    def start(self) -> None:
        """Start the writer's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued and end the thread."""
        with self._wakeup:
            self._stopping = True
            self._wakeup.notify()
        self._thread.join()

    def depth(self) -> int:
        """Return how many writes wait for their commit."""
        return len(self._jobs)

    async def decide(self, row: DecisionRow, key: str | None) -> bytes:
        """Store a decision and return the id to answer with: an earlier decision's where the client's key is known.

        Raises:
            Overloaded: The queue is full.
            LedgerUnavailable: The transaction did not commit.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._enqueue(_Decision(row, key, future))
        return await future

    async def observe(self, rows: Sequence[Observation]) -> list[Receipt]:
        """Store outcomes and return a receipt for each, in order; raises as `decide` does."""
        future: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        self._enqueue(_Outcomes(rows, future))
        return await future

    def _enqueue(self, job: _Job) -> None:
        if len(self._jobs) >= self._queue_size:
            raise Overloaded(f"{self._queue_size} writes wait for the ledger; try again in a moment")
        with self._wakeup:
            if self._stopping:
                raise LedgerUnavailable("the router is stopping")
            self._jobs.append(job)
            self._wakeup.notify()

    def _run(self) -> None:
        while batch := self._take():
            results = self._commit(batch)
            loop = batch[0].future.get_loop()
            loop.call_soon_threadsafe(_resolve, batch, results)

    def _take(self) -> list[_Job]:
        with self._wakeup:
            self._wakeup.wait_for(lambda: self._jobs or self._stopping)
            size = min(len(self._jobs), _LARGEST_BATCH)
            return [self._jobs.popleft() for _ in range(size)]

    def _commit(self, batch: Sequence[_Job]) -> list[Any]:
        """Commit the batch; if it fails, commit job by job, so that one bad row cannot fail its neighbours."""
        try:
            with self._engine.begin() as connection:
                return self._write(connection, batch)
        except Exception as error:  # noqa: BLE001 (every caller is told; the thread must live on)
            if len(batch) == 1:
                return [_unavailable(error)]
            return [result for job in batch for result in self._commit([job])]

    def _write(self, connection: Connection, batch: Sequence[_Job]) -> list[Any]:
        results: list[Any] = [_claim(connection, job) if isinstance(job, _Decision) else None for job in batch]
        bound = {result for result in results if result is not None}
        decisions = [job.row for job in batch if isinstance(job, _Decision)]
        insert_decisions(connection, [row for row in decisions if row.id in bound])
        now_ms = self._clock()
        for index, job in enumerate(batch):
            if isinstance(job, _Outcomes):
                results[index] = record_outcomes(connection, job.rows, now_ms)
        return results


def _claim(connection: Connection, job: _Decision) -> bytes:
    if job.key is None:
        return job.row.id
    return claim_key(connection, job.row.endpoint, job.key, job.row.id)


def _unavailable(error: Exception) -> LedgerUnavailable:
    reason = error.orig if isinstance(error, SQLAlchemyError) and hasattr(error, "orig") else error
    unavailable = LedgerUnavailable(f"the ledger did not commit ({reason}); nothing was stored, try again")
    unavailable.__cause__ = error
    return unavailable


def _resolve(batch: Sequence[_Job], results: Sequence[Any]) -> None:
    for job, result in zip(batch, results, strict=True):
        if job.future.done():
            continue
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
