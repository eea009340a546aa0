"""Does a feature, a prediction or a label have another distribution than in the reference?

All comparisons take counts per bin or category, which an engine can make; no values. Rows are taken for independent:
many rows of one unit make any test of rows alarm too often, so count each unit once.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from analysis.statistics.e_values import benjamini_hochberg

Floats = NDArray[np.float64]

NOTABLE_STABILITY_INDEX = 0.1
"""A population stability index below this one is usually ignored, one above 0.25 is acted on (Siddiqi 2006)."""

_SMALLEST_EXPECTED = 5.0


class Drift(NamedTuple):
    """One distribution against its reference; nan where one of them has no rows, or all rows are in one category."""

    statistic: float
    """Largest distance of the distribution functions, in [0, 1], or chi-square."""
    p_value: float
    stability_index: float
    """Population stability index, in nats: how far the distributions are apart, whatever the number of rows."""
    index_by_chance: float
    """The index that this number of rows has on average without any drift."""
    reference_rows: int
    current_rows: int


class Drifts(NamedTuple):
    """Drift of each feature, and the smallest false-discovery rate at which it counts as found, by name."""

    features: Mapping[str, Drift]
    adjusted: Mapping[str, float]

    def found(self, rate: float = 0.05, index: float = NOTABLE_STABILITY_INDEX) -> tuple[str, ...]:
        """Return the features that drifted, at this false-discovery rate, by at least this index beyond chance.

        With many rows any difference can be told from none, so that the p-value alone would name nearly everything.
        """
        return tuple(
            name
            for name, drift in self.features.items()
            if self.adjusted[name] <= rate and drift.stability_index - drift.index_by_chance >= index
        )


def numeric_drift(reference: ArrayLike, current: ArrayLike) -> Drift:
    """Compare counts in bins in ascending order, both [bins], by Kolmogorov-Smirnov.

    With one bin per distinct value it is the test of Smirnov (1939); wider bins and ties can only hide distance, so
    that the p-value is too large, never too small. Take edges from the reference (`quantile_edges`), and count missing
    values as a category of `categorical_drift`.
    """
    before, after = _counts(reference, current)
    rows = (before.sum(), after.sum())
    if min(rows) == 0:
        return _untested(before, after)
    distance = float(np.abs(np.cumsum(before) / rows[0] - np.cumsum(after) / rows[1]).max())
    effective = rows[0] * rows[1] / (rows[0] + rows[1])
    p_value = float(stats.kstwo.sf(distance, max(round(effective), 1)))
    return _drift(distance, min(max(p_value, 0.0), 1.0), before, after)


def categorical_drift(reference: ArrayLike, current: ArrayLike) -> Drift:
    """Compare counts of categories, both [categories], by the chi-square test of homogeneity (Pearson 1900).

    Categories of which one side expects fewer than 5 rows are merged into one, which joins the smallest other category
    if it is still too small. A category that the reference lacks has the count 0 there.
    """
    before, after = _merged(*_counts(reference, current))
    if min(before.sum(), after.sum()) == 0 or before.size < 2:
        return _untested(before, after)
    expected = _expected(before, after)
    statistic = float(((before - expected[0]) ** 2 / expected[0] + (after - expected[1]) ** 2 / expected[1]).sum())
    return _drift(statistic, float(special.chdtrc(before.size - 1, statistic)), before, after)


def stability_index(reference: ArrayLike, current: ArrayLike) -> float:
    """Return sum (q - p) ln(q / p) over bins, with half a row more in each, so that an empty one stays finite.

    It is the symmetrised divergence of Jeffreys (1946), known as population stability index. nan without rows.
    """
    before, after = _counts(reference, current)
    used = before + after > 0
    if min(before.sum(), after.sum()) == 0:
        return math.nan
    p, q = before[used] + 0.5, after[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def index_by_chance(bins: int, reference_rows: float, current_rows: float) -> float:
    """Return the index's mean without drift: (bins - 1) (1 / n + 1 / m), by its chi-square limit.

    Yurdakul and Naranjo (2020). A threshold of 0.1 is less than that for 10 bins and 100 rows each.
    """
    return (bins - 1) * (1 / reference_rows + 1 / current_rows)


def compare_features(drifts: Mapping[str, Drift]) -> Drifts:
    """Adjust the p-values of all features for their number, by Benjamini and Hochberg (1995); nan is not counted."""
    adjusted = benjamini_hochberg([drift.p_value for drift in drifts.values()])
    return Drifts(drifts, dict(zip(drifts, adjusted.tolist(), strict=True)))


def quantile_edges(values: ArrayLike, bins: int = 20) -> Floats:
    """Return at most bins - 1 inner edges that cut values [n] into bins with about as many each; for the reference.

    Fewer where values repeat. A value equal to an edge belongs to the bin above it (`numpy.searchsorted`, right).
    """
    sample = np.asarray(values, dtype=np.float64)
    inner = np.quantile(sample, np.arange(1, bins) / bins, method="closest_observation")
    edges = np.unique(inner)
    return np.asarray(edges[edges > sample.min()])


def _drift(statistic: float, p_value: float, before: Floats, after: Floats) -> Drift:
    rows = int(before.sum()), int(after.sum())
    used = int(np.count_nonzero(before + after))
    return Drift(statistic, p_value, stability_index(before, after), index_by_chance(used, *rows), *rows)


def _untested(before: Floats, after: Floats) -> Drift:
    return Drift(math.nan, math.nan, math.nan, math.nan, int(before.sum()), int(after.sum()))


def _counts(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats]:
    before, after = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    if before.ndim != 1 or before.shape != after.shape:
        raise ValueError(f"counts must be of the same bins; they are {before.shape} and {after.shape}")
    if not (np.isfinite(before) & np.isfinite(after) & (before >= 0) & (after >= 0)).all():
        raise ValueError("counts must be finite, and none negative")
    return before, after


def _expected(before: Floats, after: Floats) -> Floats:
    """Return what either side expects of each category [2, categories]."""
    rows = np.array([before.sum(), after.sum()])
    return np.asarray(np.outer(rows, before + after) / max(rows.sum(), 1.0))


def _merged(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    small = _expected(before, after).min(axis=0) < _SMALLEST_EXPECTED
    if not small.any():
        return before, after
    rest = np.array([before[small].sum(), after[small].sum()])
    kept = np.stack([before[~small], after[~small]])
    joined = np.column_stack([kept, rest])
    order = np.argsort(joined.sum(axis=0)[:-1])
    if order.size and _expected(*joined)[:, -1].min() < _SMALLEST_EXPECTED:
        kept[:, order[0]] += rest
        joined = kept
    return joined[0], joined[1]
