"""What one transaction of the ledger writes: decisions, first assignments and outcomes, as they were handed in."""

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection

from router.ledger import schema
from router.ledger.folding import Folder
from router.ledger.records import AssignmentRow, DecisionRow, Observation, Receipt, ShadowRow
from router.ledger.statements import insert_missing
from router.ledger.writing import Claim, assign_first, claim_keys, insert_decisions, stored_decisions

_SHARDS = 255

_logger = logging.getLogger(__name__)


class Decide(NamedTuple):
    """Store a decision; the answer is the decision to reply with, an earlier one where the client's key is known."""

    row: DecisionRow
    key: str | None

    @property
    def weight(self) -> int:
        """How many rows it writes."""
        return 1


class Assign(NamedTuple):
    """Store the first assignment of a unit; the answer is the assignment that stands."""

    row: AssignmentRow

    @property
    def weight(self) -> int:
        """How many rows it writes."""
        return 1


class Observe(NamedTuple):
    """Store outcomes; the answer is a receipt for each."""

    rows: tuple[Observation, ...]

    @property
    def weight(self) -> int:
        """How many rows it writes."""
        return len(self.rows)


class Record(NamedTuple):
    """Store what shadows predicted."""

    rows: tuple[ShadowRow, ...]

    @property
    def weight(self) -> int:
        """How many rows it writes."""
        return len(self.rows)


Job = Decide | Assign | Observe | Record


class BatchWriter:
    """Writes jobs in an open transaction; safe to use from several threads."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._folder = Folder()
        # So that processes do not wait for each other's rows; a shard that two of them share costs only time.
        self._shard = 1 + secrets.randbelow(_SHARDS)

    def write(self, connection: Connection, jobs: Sequence[Job]) -> list[Any]:
        """Write the jobs and return the answer of each, in order.

        All that may wait for another transaction's row comes before what takes the lock of the outcomes.
        """
        decisions = [job for job in jobs if isinstance(job, Decide)]
        ids = _claimed_ids(connection, decisions)
        assigned = iter(_assign(connection, jobs))
        _record(connection, jobs)
        decided = iter(self._decide(connection, decisions, ids))
        observed = iter(self._observe(connection, jobs))
        return [_answer(job, decided, assigned, observed) for job in jobs]

    def drain(self, connection: Connection, jobs: Sequence[Job]) -> None:
        """Write jobs that were acknowledged while the database was away; a second time changes nothing."""
        decisions = [job for job in jobs if isinstance(job, Decide)]
        _claimed_ids(connection, decisions)
        _assign(connection, jobs)
        _record(connection, jobs)
        # Acknowledged under a key that another decision holds by now: both happened, so both are recorded.
        self._insert(connection, [job.row for job in decisions])
        self._folder.settle(connection, {job.row.id for job in decisions})
        for receipt in self._observe(connection, jobs):
            if receipt.status == "rejected":
                _logger.error("an outcome that was accepted while the database was away: %s", receipt.reason)

    def _observe(self, connection: Connection, jobs: Sequence[Job]) -> list[Receipt]:
        """Record the outcomes of all jobs together: looking up what is known costs the same for one and for many."""
        rows = [row for job in jobs if isinstance(job, Observe) for row in job.rows]
        return self._folder.record(connection, rows, self._clock()) if rows else []

    def _decide(self, connection: Connection, jobs: Sequence[Decide], ids: Sequence[bytes]) -> list[DecisionRow]:
        """Insert the decisions whose key is new or who have none; return them, and the stored ones for the others.

        `ids` are those of the decisions that the jobs' keys are bound to.
        """
        new = {job.row.id: job.row for job, id_ in zip(jobs, ids, strict=True) if job.row.id == id_}
        stored = stored_decisions(connection, set(ids) - new.keys())
        # The key may be older than what the ledger still holds of its decisions.
        decided = [(new.get(id_) or stored.get(id_) or job.row) for job, id_ in zip(jobs, ids, strict=True)]
        self._insert(connection, list({row.id: row for row in decided if row.id not in stored}.values()))
        return decided

    def _insert(self, connection: Connection, rows: Sequence[DecisionRow]) -> None:
        """Insert the decisions that are not there yet, and count what they decided, which may lock the outcomes."""
        self._folder.count(connection, insert_decisions(connection, rows), self._shard)


def _claimed_ids(connection: Connection, jobs: Sequence[Decide]) -> list[bytes]:
    """Return the id of the decision that each job's key is bound to, its own where the key is new or there is none."""
    bound = claim_keys(
        connection, [Claim(job.row.endpoint, job.key, job.row.id) for job in jobs if job.key is not None]
    )
    return [job.row.id if job.key is None else bound[job.row.endpoint, job.key] for job in jobs]


def _assign(connection: Connection, jobs: Sequence[Job]) -> list[AssignmentRow]:
    first = [job.row for job in jobs if isinstance(job, Assign)]
    return assign_first(connection, first) if first else []


def _record(connection: Connection, jobs: Sequence[Job]) -> None:
    insert_missing(
        connection, schema.shadow_predictions, [row for job in jobs if isinstance(job, Record) for row in job.rows]
    )


def _answer(
    job: Job, decided: Iterator[DecisionRow], assigned: Iterator[AssignmentRow], observed: Iterator[Receipt]
) -> Any:
    match job:
        case Decide():
            return next(decided)
        case Assign():
            return next(assigned)
        case Observe(rows=rows):
            return list(islice(observed, len(rows)))
        case Record():
            return None
