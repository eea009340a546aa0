"""Group commit: one thread commits whatever is queued as one transaction, and only then are its callers answered."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from router.errors import LedgerUnavailable, Overloaded
from router.ledger.batch import Assign, BatchWriter, Decide, Job, Observe
from router.ledger.records import AssignmentRow, DecisionRow, Observation, Receipt

_LARGEST_BATCH = 1024


class _Waiting(NamedTuple):
    job: Job
    future: asyncio.Future[Any]


class LedgerWriter:
    """The one writer of decisions and outcomes in this process.

    Used from one event loop: `decide` and `observe` return when their rows are durable, or raise and stored nothing.
    Jobs of one turn of the loop are handed to the thread together, which costs one hand-over instead of one per job.
    """

    def __init__(self, engine: Engine, *, queue_size: int, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._queue_size = queue_size
        self._batch = BatchWriter(clock)
        self._waiting = 0
        self._gathered: list[_Waiting] = []
        self._batches: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    def start(self) -> None:
        """Start the writer's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued and end the thread; not to be called while a job is being handed in."""
        self._stopping = True
        self._hand_over()
        self._batches.put(None)
        self._thread.join()

    def depth(self) -> int:
        """Return how many rows wait for their commit."""
        return self._waiting

    async def decide(self, row: DecisionRow, key: str | None) -> DecisionRow:
        """Store a decision and return the one to answer with: an earlier one where the client's key is known.

        Raises:
            Overloaded: The queue is full.
            LedgerUnavailable: The transaction did not commit.
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

    def _run(self) -> None:
        batch: list[_Waiting] | None = []
        while batch is not None:
            batch = self._batches.get()
            jobs = batch or []
            # Whatever gathered during the last commit goes into this one.
            while batch is not None and _weight(jobs) < _LARGEST_BATCH and not self._batches.empty():
                batch = self._batches.get()
                jobs += batch or []
            if jobs:
                results = self._commit([waiting.job for waiting in jobs])
                jobs[0].future.get_loop().call_soon_threadsafe(self._resolve, jobs, results)

    def _resolve(self, batch: Sequence[_Waiting], results: Sequence[Any]) -> None:
        self._waiting -= _weight(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _commit(self, batch: Sequence[Job]) -> list[Any]:
        """Commit the batch; if it fails, commit job by job, so that one bad row cannot fail its neighbours."""
        try:
            with self._engine.begin() as connection:
                return self._batch.write(connection, batch)
        except Exception as error:  # noqa: BLE001 (every caller is told; the thread must live on)
            # What ails the database fails every job: trying each alone would wait for its lock each time.
            if len(batch) == 1 or isinstance(error, OperationalError):
                return [_unavailable(error)] * len(batch)
            return [result for job in batch for result in self._commit([job])]


def _weight(batch: Sequence[_Waiting]) -> int:
    return sum(waiting.job.weight for waiting in batch)


def _unavailable(error: Exception) -> LedgerUnavailable:
    reason = error.orig if isinstance(error, SQLAlchemyError) and hasattr(error, "orig") else error
    unavailable = LedgerUnavailable(f"the ledger did not commit ({reason}); nothing was stored, try again")
    unavailable.__cause__ = error
    return unavailable
