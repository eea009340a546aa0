"""What a decision counts in the evidence: it follows from its epoch, which never changes, and so can be derived again.

Whatever becomes of holdout, weights or arms later, decisions and all that is ever said about them count the same.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, select

from analysis.statistics.unit_groups import overlap_weight
from router.assignment.epochs import HOLDOUT, INTERLEAVED
from router.assignment.hashing import BUCKETS
from router.ledger import schema

_REMEMBERED = 4096


class Shares(NamedTuple):
    """Between how many arms an epoch divides its units, and how many of the 10 000 buckets these have together."""

    arms: int
    buckets: int


def shares_of(counts: Mapping[int, int]) -> Shares:
    """Return the shares of a table with these counts by number."""
    arms = sum(count > 0 for number, count in counts.items() if number not in {HOLDOUT, INTERLEAVED})
    return Shares(arms, BUCKETS - counts.get(HOLDOUT, 0))


def weight_of(shares: Shares, arm: int, slots: int) -> float | None:
    """Return what a decision counts, None where it says nothing of how arms compare.

    `slots` are the buckets of 10 000 that its arm was drawn with. Of two arms it counts the overlap weight, of more
    1 / propensity, both among the units that are not held out; a list that mixes all arms counts 1.
    """
    if arm == INTERLEAVED:
        return 1.0
    if arm == HOLDOUT or slots <= 0 or shares.buckets <= 0:
        return None
    among = min(slots / shares.buckets, 1.0)
    weight = 1.0 / among if shares.arms > 2 else overlap_weight(among)
    return weight if weight > 0 else None


class Weights:
    """Looks up the shares of epochs, each once."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], Shares] = {}

    def weigh(
        self, connection: Connection, experiment_id: int, epoch: int, arm: int, propensity: float
    ) -> float | None:
        """Return what a decision of an epoch counts; None too if the ledger has no such epoch."""
        shares = self._found.get((experiment_id, epoch)) or self._read(connection, experiment_id, epoch)
        return None if shares is None else weight_of(shares, arm, round(propensity * BUCKETS))

    def _read(self, connection: Connection, experiment_id: int, epoch: int) -> Shares | None:
        table = schema.epochs
        query = select(table.c.runs).where(table.c.experiment_id == experiment_id, table.c.epoch == epoch)
        runs = connection.scalar(query)
        if runs is None:
            return None
        counts: Counter[int] = Counter()
        for buckets, number in json.loads(runs):
            counts[number] += buckets
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        self._found[experiment_id, epoch] = shares = shares_of(counts)
        return shares
