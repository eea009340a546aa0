"""Deals labelled rows to training and validation, the same way however often it is asked."""

from hashlib import blake2b
from typing import Literal, NamedTuple

import pandas as pd


class Split(NamedTuple):
    """One part of the rows, in the order in which models learn from them."""

    part: Literal["train", "validation"]
    share: float
    """Of rows that go to validation."""
    key: str
    """Column that identifies a row."""
    time: str | None
    """Column that says when it was: the last rows validate. Without one, a hash of the key decides."""

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The part of the labelled rows."""
        chosen = self._by_hash(rows) if self.time is None else self._by_time(rows, self.time)
        return chosen.reset_index(drop=True)

    def _by_time(self, rows: pd.DataFrame, time: str) -> pd.DataFrame:
        ordered = rows.sort_values([time, self.key])
        if ordered.empty:
            return ordered
        # Rows of the same moment stay together.
        first = ordered[time].iloc[int(len(ordered) * (1 - self.share))]
        last: pd.Series[bool] = ordered[time] >= first
        return ordered[last] if self.part == "validation" else ordered[~last]

    def _by_hash(self, rows: pd.DataFrame) -> pd.DataFrame:
        places = rows[self.key].map(_place)
        chosen = places < self.share if self.part == "validation" else places >= self.share
        return rows.loc[places[chosen].sort_values().index]


def _place(key: object) -> float:
    """A number from 0 to 1 that looks random, and is always the same for the same key."""
    return int.from_bytes(blake2b(str(key).encode(), digest_size=8).digest()) / 2**64
