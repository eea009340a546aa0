"""The model of docs/scaling.md: what decisions cost by rows and by commits, and what a fleet of replicas needs.

A commit of b rows costs `per_commit + b * per_row`, whatever is counted, and each row `per_row + per_commit / b`.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ECHO = "echo"
"""The handler that every cost is compared with."""

SECONDS_PER_DAY = 86_400


class Cost(NamedTuple):
    """Of one decision (of one request, for the echo): microseconds, bytes, and what its commits were like."""

    requests_per_second: float
    rows_per_commit: float
    commit_s: float
    """How long a commit took, from the first statement until it was on disk."""
    user_us: float
    system_us: float
    database_us: float
    log_bytes: float
    """Write-ahead log: of PostgreSQL by its own count; of SQLite all that the process had written to the disk."""
    table_bytes: float
    """By which tables and their indexes grew."""

    @property
    def router_us(self) -> float:
        """All processor time of the router."""
        return self.user_us + self.system_us


class Setup(NamedTuple):
    """What is asked from how many connections."""

    name: str
    connections: int


class Part(NamedTuple):
    """What every row costs, and what every commit costs in addition, in some unit."""

    per_row: float
    per_commit: float

    def of_row(self, rows_per_commit: float) -> float:
        """Return the cost of a row that shares its commit."""
        return self.per_row + self.per_commit / rows_per_commit


class Model(NamedTuple):
    """Of a decision: processor time in microseconds, duration of its commit in seconds, and bytes."""

    router_us: Part
    database_us: Part
    commit_s: Part
    log_bytes: Part
    table_bytes: float


class Fleet(NamedTuple):
    """What shall be served: decisions a day, by how many replicas, and the peak as a multiple of the mean rate."""

    per_day: float
    replicas: int
    peak: float

    @property
    def mean_rate(self) -> float:
        """Decisions a second."""
        return self.per_day / SECONDS_PER_DAY


class Needs(NamedTuple):
    """What a fleet needs at some rate of decisions a second."""

    rate: float
    rate_of_replica: float
    rows_per_commit: float
    commits_per_s: float
    router_cores: float
    database_cores: float
    log_mb_per_s: float


def model_of(costs: Sequence[Cost]) -> Model:
    """Return the model that fits what was measured with one kind of ledger at several rows per commit."""
    together = [cost.rows_per_commit for cost in costs]
    return Model(
        fit(together, [cost.router_us for cost in costs]),
        fit(together, [cost.database_us for cost in costs]),
        fit(together, [cost.commit_s / cost.rows_per_commit for cost in costs]),
        fit(together, [cost.log_bytes for cost in costs]),
        statistics.median(cost.table_bytes for cost in costs),
    )


def fit(rows_per_commit: Sequence[float], costs_of_row: Sequence[float]) -> Part:
    """Return the least-squares fit to the costs of a row, every one of which counts by its relative error.

    No part is negative: where the best fit has a negative one, the other is fitted alone.
    """
    inverse, costs = 1 / np.asarray(rows_per_commit), np.asarray(costs_of_row)
    if not costs.any():
        return Part(0.0, 0.0)
    columns = np.column_stack([np.ones_like(inverse), inverse]) / costs[:, None]
    ones = np.ones_like(costs)
    both = np.linalg.lstsq(columns, ones, rcond=None)[0]
    if both.min() < 0:
        alone = int(both.argmax())
        both = np.zeros(2)
        both[alone] = np.linalg.lstsq(columns[:, [alone]], ones, rcond=None)[0][0]
    return Part(*both.tolist())


def rows_per_commit(commit_s: Part, rate: float) -> float:
    """Return how many rows a process commits together at a rate of rows a second: what came during the last commit.

    Infinite where a process cannot commit as many rows as come.
    """
    free = 1 - rate * commit_s.per_row
    return max(1.0, rate * commit_s.per_commit / free) if free > 0 else math.inf


def needs(model: Model, fleet: Fleet, rate: float) -> Needs:
    """Return what a fleet needs at a rate of decisions a second, which its replicas share evenly."""
    each = rate / fleet.replicas
    together = rows_per_commit(model.commit_s, each)
    return Needs(
        rate,
        each,
        together,
        rate / together,
        rate * model.router_us.of_row(together) / 1e6,
        rate * model.database_us.of_row(together) / 1e6,
        rate * model.log_bytes.of_row(together) / 1e6,
    )
