"""What one transaction of the ledger writes: decisions, first assignments and outcomes, as they were handed in."""

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import Any, NamedTuple

from sqlalchemy import Connection

from router.ledger import schema
from router.ledger.folding import Folder
from router.ledger.records import AssignmentRow, DecisionRow, Observation, Receipt, ShadowRow
from router.ledger.statements import insert_missing
from router.ledger.writing import (
    Claim,
    assign_first,
    claim_keys,
    insert_decisions,
    insert_new_decisions,
    stored_decisions,
)

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


class _Sorted:
    """What jobs write, by table; the order within each is theirs."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.decisions: list[Decide] = []
        self.assignments: list[AssignmentRow] = []
        self.outcomes: list[tuple[Observation, ...]] = []
        self.shadows: list[ShadowRow] = []
        for job in jobs:
            match job:
                case Decide():
                    self.decisions.append(job)
                case Assign(row=row):
                    self.assignments.append(row)
                case Observe(rows=rows):
                    self.outcomes.append(rows)
                case Record(rows=rows):
                    self.shadows += rows


class BatchWriter:
    """Writes jobs in an open transaction; safe to use from several threads."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._folder = Folder()
        # So that processes do not wait for each other's rows; a shard that two of them share costs only time.
        self._shard = 1 + secrets.randbelow(_SHARDS)

    def write(self, connection: Connection, jobs: Sequence[Job]) -> list[Any]:
        """Write the jobs and return the answer of each, in order.

        Raises IntegrityError where a retry meets rows of its own among many; written one by one they are passed over.
        All that may wait for another transaction's row comes before what takes the lock of the outcomes.
        """
        work = _Sorted(jobs)
        ids = _claimed_ids(connection, work.decisions)
        assigned = assign_first(connection, work.assignments)
        insert_missing(connection, schema.shadow_predictions, work.shadows)
        decided = self._decide(connection, work.decisions, ids)
        observed = iter(self._observe(connection, work.outcomes))
        receipts = [list(islice(observed, len(rows))) for rows in work.outcomes]
        answers: dict[type[Job], Iterator[Any]] = {
            Decide: iter(decided),
            Assign: iter(assigned),
            Observe: iter(receipts),
            Record: repeat(None),
        }
        return [next(answers[type(job)]) for job in jobs]

    def drain(self, connection: Connection, jobs: Sequence[Job]) -> None:
        """Write jobs that were acknowledged while the database was away; a second time changes nothing."""
        work = _Sorted(jobs)
        _claimed_ids(connection, work.decisions)
        assign_first(connection, work.assignments)
        insert_missing(connection, schema.shadow_predictions, work.shadows)
        # Acknowledged under a key that another decision holds by now: both happened, so both are recorded.
        inserted = insert_decisions(connection, [job.row for job in work.decisions])
        self._folder.count(connection, inserted, self._shard)
        self._folder.settle(connection, {job.row.id for job in work.decisions})
        for receipt in self._observe(connection, work.outcomes):
            if receipt.status == "rejected":
                _logger.error("an outcome that was accepted while the database was away: %s", receipt.reason)

    def _observe(self, connection: Connection, lists: Iterable[Sequence[Observation]]) -> list[Receipt]:
        """Record the outcomes of all jobs together: looking up what is known costs the same for one and for many."""
        rows = list(chain.from_iterable(lists))
        return self._folder.record(connection, rows, self._clock()) if rows else []

    def _decide(self, connection: Connection, jobs: Sequence[Decide], ids: Sequence[bytes]) -> list[DecisionRow]:
        """Insert the decisions whose key is new or who have none; return them, and the stored ones for the others.

        `ids` are those of the decisions that the jobs' keys are bound to.
        """
        if all(job.key is None for job in jobs):
            rows = [job.row for job in jobs]
            self._insert(connection, rows)
            return rows
        new = {job.row.id: job.row for job, id_ in zip(jobs, ids, strict=True) if job.row.id == id_}
        stored = stored_decisions(connection, set(ids) - new.keys())
        # The key may be older than what the ledger still holds of its decisions.
        decided = [(new.get(id_) or stored.get(id_) or job.row) for job, id_ in zip(jobs, ids, strict=True)]
        self._insert(connection, list({row.id: row for row in decided if row.id not in stored}.values()))
        return decided

    def _insert(self, connection: Connection, rows: Sequence[DecisionRow]) -> None:
        """Insert decisions that are new, and count what they decided, which may lock the outcomes."""
        self._folder.count(connection, insert_new_decisions(connection, rows), self._shard)


def _claimed_ids(connection: Connection, jobs: Sequence[Decide]) -> list[bytes]:
    """Return the id of the decision that each job's key is bound to, its own where the key is new or there is none."""
    bound = claim_keys(
        connection, [Claim(job.row.endpoint, job.key, job.row.id) for job in jobs if job.key is not None]
    )
    return [job.row.id if job.key is None else bound[job.row.endpoint, job.key] for job in jobs]
