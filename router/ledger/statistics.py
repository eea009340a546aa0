"""Additive statistics by minute of the decision: adding to them, and reading them."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, cast, func, select

from router.ledger import schema
from router.ledger.contributions import NOTHING, Moments
from router.ledger.statements import add

MS_PER_MINUTE = 60_000

OUTCOMES_SHARD = 0
"""What outcomes add, one transaction at a time; processes count their decisions each in a shard of its own."""


class Statistic(NamedTuple):
    """Whose values a row of `statistics` adds up."""

    experiment_id: int
    arm: int
    metric: str
    minute: int


class Minute(NamedTuple):
    """Values of decisions that an arm made from `minute` on, `span` minutes long; a minute is 60 s since 1970."""

    arm: int
    minute: int
    span: int
    n: int
    total: float
    squares: float


def add_statistics(connection: Connection, changes: Mapping[Statistic, Moments], shard: int, span: int = 1) -> None:
    """Add to the statistics, in one order everywhere, so that two transactions never wait for each other."""
    rows = [(*key, span, shard, *moments) for key, moments in sorted(changes.items()) if moments != NOTHING]
    add(connection, schema.statistics, rows)


def read_minutes(connection: Connection, experiment_id: int, metrics: Collection[str]) -> dict[str, list[Minute]]:
    """Return the statistics of some metrics of an experiment, by metric, in the order of their keys.

    The database adds the shards up: a hundred replicas write a hundred rows where a bandit needs one.
    """
    table = schema.statistics
    keys = [table.c[name] for name in ("metric", "arm", "minute", "span")]
    sums = (cast(func.sum(table.c.count), BigInteger), func.sum(table.c.sum), func.sum(table.c.sum_squares))
    query = (
        select(*keys, *sums)
        .where(table.c.experiment_id == experiment_id, table.c.metric.in_(sorted(metrics)))
        .group_by(*keys)
        .order_by(*keys)
    )
    found: dict[str, list[Minute]] = {metric: [] for metric in metrics}
    for metric, *row in connection.execute(query):
        found[metric].append(Minute(*row))
    return found
