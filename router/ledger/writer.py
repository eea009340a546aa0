"""Group commit: one thread commits whatever is queued as one transaction, and only then are its callers answered."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from router.errors import LedgerUnavailable, Overloaded
from router.ledger.folding import record_outcomes
from router.ledger.records import DecisionRow, Observation, Receipt
from router.ledger.writing import Claim, claim_keys, insert_decisions, stored_decisions

_LARGEST_BATCH = 1024


class _Decision(NamedTuple):
    row: DecisionRow
    key: str | None
    future: asyncio.Future[DecisionRow]

    @property
    def weight(self) -> int:
        return 1


class _Outcomes(NamedTuple):
    rows: Sequence[Observation]
    future: asyncio.Future[list[Receipt]]

    @property
    def weight(self) -> int:
        return len(self.rows)


_Job = _Decision | _Outcomes


class LedgerWriter:
    """The one writer of decisions and outcomes in this process.

    Used from one event loop: `decide` and `observe` return when their rows are durable, or raise and stored nothing.
    Jobs of one turn of the loop are handed to the thread together, which costs one hand-over instead of one per job.
    """

    def __init__(self, engine: Engine, *, queue_size: int, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._queue_size = queue_size
        self._clock = clock
        self._waiting = 0
        self._gathered: list[_Job] = []
        self._batches: SimpleQueue[list[_Job] | None] = SimpleQueue()
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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[DecisionRow] = loop.create_future()
        self._enqueue(_Decision(row, key, future), loop)
        return await future

    async def observe(self, rows: Sequence[Observation]) -> list[Receipt]:
        """Store outcomes and return a receipt for each, in order; raises as `decide` does."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Receipt]] = loop.create_future()
        self._enqueue(_Outcomes(rows, future), loop)
        return await future

    def _enqueue(self, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        if self._stopping:
            raise LedgerUnavailable("the router is stopping")
        if self._waiting >= self._queue_size:
            raise Overloaded(f"{self._waiting} rows wait for the ledger; try again in a moment")
        self._waiting += job.weight
        if not self._gathered:
            loop.call_soon(self._hand_over)
        self._gathered.append(job)

    def _hand_over(self) -> None:
        if self._gathered:
            self._batches.put(self._gathered)
            self._gathered = []

    def _run(self) -> None:
        batch: list[_Job] | None = []
        while batch is not None:
            batch = self._batches.get()
            jobs = batch or []
            # Whatever gathered during the last commit goes into this one.
            while batch is not None and _weight(jobs) < _LARGEST_BATCH and not self._batches.empty():
                batch = self._batches.get()
                jobs += batch or []
            if jobs:
                results = self._commit(jobs)
                jobs[0].future.get_loop().call_soon_threadsafe(self._resolve, jobs, results)

    def _resolve(self, batch: Sequence[_Job], results: Sequence[Any]) -> None:
        self._waiting -= _weight(batch)
        for job, result in zip(batch, results, strict=True):
            if job.future.done():
                continue
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    def _commit(self, batch: Sequence[_Job]) -> list[Any]:
        """Commit the batch; if it fails, commit job by job, so that one bad row cannot fail its neighbours."""
        try:
            with self._engine.begin() as connection:
                return self._write(connection, batch)
        except Exception as error:  # noqa: BLE001 (every caller is told; the thread must live on)
            # What ails the database fails every job: trying each alone would wait for its lock each time.
            if len(batch) == 1 or isinstance(error, OperationalError):
                return [_unavailable(error)] * len(batch)
            return [result for job in batch for result in self._commit([job])]

    def _write(self, connection: Connection, batch: Sequence[_Job]) -> list[Any]:
        decided = iter(_record_decisions(connection, [job for job in batch if isinstance(job, _Decision)]))
        now_ms = self._clock()
        return [
            next(decided) if isinstance(job, _Decision) else record_outcomes(connection, job.rows, now_ms)
            for job in batch
        ]


def _record_decisions(connection: Connection, jobs: Sequence[_Decision]) -> list[DecisionRow]:
    """Insert the decisions whose key is new or who have none; return them, and the stored ones for the others."""
    claims = [Claim(job.row.endpoint, job.key, job.row.id) for job in jobs if job.key is not None]
    bound = claim_keys(connection, claims)
    ids = [job.row.id if job.key is None else bound[job.row.endpoint, job.key] for job in jobs]
    insert_decisions(connection, [job.row for job, id_ in zip(jobs, ids, strict=True) if job.row.id == id_])
    retried = {id_ for job, id_ in zip(jobs, ids, strict=True) if job.row.id != id_}
    stored = stored_decisions(connection, retried) if retried else {}
    return [stored.get(id_, job.row) for job, id_ in zip(jobs, ids, strict=True)]


def _weight(jobs: Sequence[_Job]) -> int:
    return sum(job.weight for job in jobs)


def _unavailable(error: Exception) -> LedgerUnavailable:
    reason = error.orig if isinstance(error, SQLAlchemyError) and hasattr(error, "orig") else error
    unavailable = LedgerUnavailable(f"the ledger did not commit ({reason}); nothing was stored, try again")
    unavailable.__cause__ = error
    return unavailable
