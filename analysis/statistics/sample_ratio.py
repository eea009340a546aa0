"""Did arms get the traffic that their probabilities promise?"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

THRESHOLD = 0.001
"""Below this p-value the split is taken for broken (Fabijan et al. 2019 advise such a strict level)."""

_SMALLEST_EXPECTED = 5.0


class SampleRatio(NamedTuple):
    """A chi-square test of observed against promised traffic; p_value is nan when nothing could be tested."""

    statistic: float
    degrees_of_freedom: int
    p_value: float

    @property
    def mismatch(self) -> bool:
        """Whether the split is broken; untestable is not broken."""
        return self.p_value < THRESHOLD


UNTESTED = SampleRatio(math.nan, 0, math.nan)


def sample_ratio(draws: ArrayLike, shares: ArrayLike) -> SampleRatio:
    """Test draws [epochs, arms] against each epoch's own shares [epochs, arms], which sum to 1, or to 0 without arms.

    Statistics and degrees of freedom add up over epochs: pooling draws first would be blind when shares swing. An
    epoch in which an arm with traffic expects fewer than 5 draws is left out. A single draw of an arm whose share
    is 0 is a mismatch.
    """
    counts = np.asarray(draws, dtype=np.float64)
    expected = counts.sum(axis=1, keepdims=True) * np.asarray(shares, dtype=np.float64)
    possible = np.asarray(shares, dtype=np.float64) > 0
    if np.any(counts[~possible] > 0):
        return SampleRatio(math.inf, 0, 0.0)
    testable = np.any(possible, axis=1) & np.all(~possible | (expected >= _SMALLEST_EXPECTED), axis=1)
    cells = possible & testable[:, np.newaxis]
    degrees = int(cells.sum() - testable.sum())
    if degrees == 0:
        return UNTESTED
    statistic = float((((counts - expected) ** 2)[cells] / expected[cells]).sum())
    return SampleRatio(statistic, degrees, float(stats.chi2.sf(statistic, degrees)))
