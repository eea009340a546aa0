"""What one transaction of the ledger writes: decisions, first assignments and outcomes, as they were handed in."""

import logging
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Connection

from router.ledger.folding import Folder
from router.ledger.records import AssignmentRow, DecisionRow, Observation, Receipt
from router.ledger.writing import Claim, assign_first, claim_keys, insert_decisions, stored_decisions

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


Job = Decide | Assign | Observe


class BatchWriter:
    """Writes jobs in an open transaction; safe to use from several threads."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._folder = Folder()

    def write(self, connection: Connection, jobs: Sequence[Job]) -> list[Any]:
        """Write the jobs and return the answer of each, in order."""
        decided = iter(_decide(connection, [job for job in jobs if isinstance(job, Decide)]))
        first = [job.row for job in jobs if isinstance(job, Assign)]
        assigned = iter(assign_first(connection, first) if first else ())
        observed = iter(self._observe(connection, jobs))
        return [
            next(decided)
            if isinstance(job, Decide)
            else next(assigned)
            if isinstance(job, Assign)
            else list(islice(observed, len(job.rows)))
            for job in jobs
        ]

    def drain(self, connection: Connection, jobs: Sequence[Job]) -> None:
        """Write jobs that were acknowledged while the database was away; a second time changes nothing."""
        decisions = [job for job in jobs if isinstance(job, Decide)]
        claim_keys(connection, [Claim(job.row.endpoint, job.key, job.row.id) for job in decisions if job.key])
        # Acknowledged under a key that another decision holds by now: both happened, so both are recorded.
        insert_decisions(connection, [job.row for job in decisions])
        first = [job.row for job in jobs if isinstance(job, Assign)]
        if first:
            assign_first(connection, first)
        # After everything that may wait for another transaction's row: this one takes the lock of the outcomes.
        self._folder.settle(connection, {job.row.id for job in decisions})
        for receipt in self._observe(connection, jobs):
            if receipt.status == "rejected":
                _logger.error("an outcome that was accepted while the database was away: %s", receipt.reason)

    def _observe(self, connection: Connection, jobs: Sequence[Job]) -> list[Receipt]:
        """Record the outcomes of all jobs together: looking up what is known costs the same for one and for many."""
        rows = [row for job in jobs if isinstance(job, Observe) for row in job.rows]
        return self._folder.record(connection, rows, self._clock()) if rows else []


def _decide(connection: Connection, jobs: Sequence[Decide]) -> list[DecisionRow]:
    """Insert the decisions whose key is new or who have none; return them, and the stored ones for the others."""
    claims = [Claim(job.row.endpoint, job.key, job.row.id) for job in jobs if job.key is not None]
    bound = claim_keys(connection, claims)
    ids = [job.row.id if job.key is None else bound[job.row.endpoint, job.key] for job in jobs]
    insert_decisions(connection, [job.row for job, id_ in zip(jobs, ids, strict=True) if job.row.id == id_])
    retried = {id_ for job, id_ in zip(jobs, ids, strict=True) if job.row.id != id_}
    if not retried:
        return [job.row for job in jobs]
    stored = stored_decisions(connection, retried)
    # The key may be older than what the ledger still holds of its decisions.
    insert_decisions(
        connection, [job.row for job, id_ in zip(jobs, ids, strict=True) if id_ in retried - stored.keys()]
    )
    return [stored.get(id_, job.row) for job, id_ in zip(jobs, ids, strict=True)]
