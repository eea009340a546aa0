"""Immutable tables from bucket to arm: an experiment's arm probabilities, and the cheapest way from one to the next."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from router.assignment.hashing import BUCKETS

Run = tuple[int, int]

HOLDOUT = 255
"""The number that stands in a table for buckets that no arm gets: the champion serves them."""

INTERLEAVED = 254
"""The number that stands in a table for buckets whose lists mix the rankings of all arms."""


class Epoch(NamedTuple):
    """A numbered table of 10 000 buckets; `table[bucket]` is the arm's number, or HOLDOUT.

    `traffic` is how many of the 10 000 buckets of the experiment's traffic hash it takes units from; `basis` is
    the JSON of what a bandit's table was computed from.
    """

    number: int
    table: bytes
    traffic: int = BUCKETS
    basis: str | None = None

    def propensity(self, arm: int) -> float:
        """Return the exact probability with which this epoch draws `arm`, a multiple of 1/10 000."""
        return self.table.count(arm) / BUCKETS


def fresh(counts: Mapping[int, int]) -> bytes:
    """Return the table in which the arms lie one after the other, as GrowthBook lays out its ranges."""
    return b"".join(bytes([arm]) * counts[arm] for arm in sorted(counts))


def with_holdout(counts: Sequence[int]) -> dict[int, int]:
    """Return bucket counts by number in a table, where the last of `counts` is the holdout's."""
    *arms, holdout = counts
    return {**dict(enumerate(arms)), HOLDOUT: holdout}


def reweight(table: bytes, counts: Mapping[int, int]) -> bytes:
    """Return a table with these counts that moves the fewest buckets, which is the total-variation distance.

    Every arm keeps its first buckets up to its new count; what the shrinking arms give up goes to the growing arms in
    order of their number.
    """
    missing = dict(counts)
    kept: list[int | None] = []
    for arm in table:
        stays = missing.get(arm, 0) > 0
        if stays:
            missing[arm] -= 1
        kept.append(arm if stays else None)
    growing = iter([arm for arm in sorted(missing) for _ in range(missing[arm])])
    return bytes(next(growing) if arm is None else arm for arm in kept)


def to_runs(table: bytes) -> list[Run]:
    """Return the table as (buckets, arm) runs in bucket order."""
    return [(len(list(run)), arm) for arm, run in groupby(table)]


def from_runs(runs: Iterable[Run]) -> bytes:
    """Return the table that `to_runs` wrote."""
    return b"".join(bytes([arm]) * count for count, arm in runs)


def dump_runs(table: bytes) -> str:
    """Return the runs as the JSON that the ledger stores."""
    return json.dumps(to_runs(table), separators=(",", ":"))


def load_runs(text: str) -> bytes:
    """Return the table of a ledger row's `runs`."""
    return from_runs((count, arm) for count, arm in json.loads(text))
