"""What is known of each arm and context at a moment: a pure fold of the ledger's regressions."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.linear import Regression
from router.allocation.evidence import together, weights
from router.documents import AnyMetric, Contextual, columns_of
from router.ledger.regressions import RegressionMinute

_MS_PER_MINUTE = 60_000


def fold_regressions(
    outcomes: Sequence[RegressionMinute],
    items: Sequence[RegressionMinute],
    *,
    arms: Sequence[int],
    metric: AnyMetric,
    allocation: Contextual,
    now_ms: int,
) -> tuple[Regression, ...]:
    """Return the regression of each of `arms`; when values count, and how much, is as in `evidence.fold`."""
    default: float | None = getattr(metric, "default", None)
    size = columns_of(allocation.features) + 1
    outcomes, items = _together(outcomes, items)
    if default is None:
        return tuple(_regression(_total(outcomes, arm, allocation, now_ms, size), size) for arm in arms)
    outcomes, items = (_closed(rows, metric, now_ms) for rows in (outcomes, items))
    return tuple(
        _filled(
            _regression(_total(outcomes, arm, allocation, now_ms, size), size),
            _regression(_total(items, arm, allocation, now_ms, size), size),
            default,
        )
        for arm in arms
    )


def _together(*groups: Sequence[RegressionMinute]) -> Iterator[list[RegressionMinute]]:
    columns = (np.array([row[:3] for row in rows], dtype=np.float64).reshape(-1, 3).T for rows in groups)
    for rows, (_, minutes, spans) in zip(groups, together(*columns), strict=True):
        yield [
            row._replace(minute=int(minute), span=int(span))
            for row, minute, span in zip(rows, minutes, spans, strict=True)
        ]


def _closed(rows: Sequence[RegressionMinute], metric: AnyMetric, now_ms: int) -> list[RegressionMinute]:
    return [row for row in rows if (row.minute + row.span) * _MS_PER_MINUTE + 1000 * metric.window_s <= now_ms]


def _total(
    rows: Sequence[RegressionMinute], arm: int, allocation: Contextual, now_ms: int, size: int
) -> NDArray[np.float64]:
    mine = [row for row in rows if row.arm == arm]
    if not mine:
        return np.zeros(2 + size + size * (size + 1) // 2)
    minutes, spans = (np.array([row[place] for row in mine], dtype=np.float64) for place in (1, 2))
    weight = weights(minutes, spans, allocation, now_ms)
    return np.asarray((weight[:, np.newaxis] * np.stack([row.sums for row in mine])).sum(axis=0))


def _regression(sums: NDArray[np.float64], size: int) -> Regression:
    xx = np.zeros((size, size))
    xx[np.tril_indices(size)] = sums[2 + size :]
    return Regression(sums[0], sums[1], sums[2 : 2 + size], xx + np.tril(xx, -1).T)


def _filled(answered: Regression, decided: Regression, default: float) -> Regression:
    """Return the regression of all that was decided, where the default stands for what nothing came of."""
    silent = max(decided.n - answered.n, 0.0)
    return Regression(
        decided.n,
        answered.squares + silent * default * default,
        answered.xy + default * (decided.xx[:, 0] - answered.xx[:, 0]),
        decided.xx,
    )
