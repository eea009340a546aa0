"""What is known of each arm at a moment: a pure fold of the ledger's statistics."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.thompson import Evidence
from router.documents import AnyMetric, Bandit

Floats = NDArray[np.float64]
Outcomes = Sequence[tuple[int, int, int, int, float, float]]
"""Rows of (arm, minute, span, count, sum, sum of squares); decisions were made from `minute`, in minutes since 1970, on
for `span` minutes."""
Items = Sequence[tuple[int, int, int, float]]
"""Rows of (arm, minute, span, items decided), in the same units."""

_SECONDS_PER_MINUTE = 60


def fold(
    outcomes: Outcomes, items: Items, *, arms: Sequence[int], metric: AnyMetric, allocation: Bandit, now_ms: int
) -> tuple[Evidence, ...]:
    """Return the evidence of each of `arms`, by the numbers that the rows call them.

    Without a default every outcome counts as soon as it is there, and `items` are not read. With one, all that was
    decided in a row counts, and nothing of it before the window of its last decision has closed: until then nobody
    knows whether an outcome is late or will never come, and counting what has come would favour quick successes.
    """
    default: float | None = getattr(metric, "default", None)
    rows, decided = together(_columns(outcomes, 6), _columns(items, 4))
    if default is not None:
        rows, decided = (columns[:, _closed(columns, metric, now_ms)] for columns in (rows, decided))
    known = _sums(rows, weights(rows[1], rows[2], allocation, now_ms), arms)
    # What was retracted in parts leaves a residue of rounding.
    known[0] = np.maximum(known[0], 0.0)
    matured = _sums(rows, 1.0, arms)[0]
    if default is not None:
        weighted = _sums(decided, weights(decided[1], decided[2], allocation, now_ms), arms)[0]
        known += np.outer([1.0, default, default * default], np.maximum(weighted - known[0], 0.0))
        matured = np.maximum(matured, _sums(decided, 1.0, arms)[0])
    return tuple(map(Evidence, *known.tolist(), matured.astype(np.int64).tolist()))


def weights(minute: Floats, span: Floats, allocation: Bandit, now_ms: int) -> Floats:
    """Return how much values of decisions in these minutes count, between 0 and 1; all three are [rows].

    By the clock, not by the number of values, or else forgetting would depend on traffic. A row's age is its middle's.
    """
    age_s = np.maximum(now_ms / 1000 - _SECONDS_PER_MINUTE * (minute + span / 2), 0.0)
    weight = np.ones(len(age_s)) if allocation.half_life_s is None else np.exp2(-age_s / allocation.half_life_s)
    return weight if allocation.window_s is None else np.where(age_s <= allocation.window_s, weight, 0.0)


def together(*groups: Floats) -> tuple[Floats, ...]:
    """Return columns of rows (arm, minute, span, ..) with each row in the longest span that any row has around it.

    Old minutes are added up to hours and days, but what comes late, such as a correction, has a minute of its own: it
    counts when, and as much as, the decisions that it is about.
    """
    joined = np.concatenate([rows[1:3] for rows in groups], axis=1)
    minute, span = joined
    for longer in np.unique(span[span > 1]):
        first = minute - minute % longer
        inside = (span < longer) & np.isin(first, minute[span == longer])
        minute, span = np.where(inside, first, minute), np.where(inside, longer, span)
    ends = np.cumsum([rows.shape[1] for rows in groups])[:-1]
    placed = (np.split(column, ends) for column in (minute, span))
    return tuple(
        np.concatenate([rows[:1], [minutes], [spans], rows[3:]])
        for rows, minutes, spans in zip(groups, *placed, strict=True)
    )


def _closed(rows: Floats, metric: AnyMetric, now_ms: int) -> NDArray[np.bool_]:
    closes_s = _SECONDS_PER_MINUTE * (rows[1] + rows[2]) + metric.window_s
    return np.asarray(1000 * closes_s <= now_ms)


def _columns(rows: Sequence[tuple[float, ...]], width: int) -> Floats:
    return np.array(rows, dtype=np.float64).reshape(-1, width).T


def _sums(rows: Floats, weight: Floats | float, arms: Sequence[int]) -> Floats:
    """Return the weighted sums of all columns but arm, minute and span, for each arm [columns, arms]."""
    numbers = rows[0].astype(np.intp)
    most = max(arms, default=0) + 1
    sums = [np.bincount(numbers, weight * column, minlength=most)[list(arms)] for column in rows[3:]]
    return np.array(sums, dtype=np.float64)
