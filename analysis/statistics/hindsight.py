"""What a bandit's traffic has cost, looking back, and what equal shares would have cost."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Hindsight(NamedTuple):
    """Estimates from a log: the mean of each arm had it got all traffic [arms], and the best of them.

    `regret` is how much less reward (or more loss) the values add up to than if the best arm had got all traffic, and
    `uniform_regret` the same for equal shares. All are nan while an arm has no value, and have errors of their own.
    """

    means: Floats
    best: int
    regret: float
    uniform_regret: float


def look_back(counts: ArrayLike, sums: ArrayLike, weights: ArrayLike, *, decrease: bool) -> Hindsight:
    """Estimate regret from the number of each arm's values, their sum and the number, both weighted by 1 / propensity.

    All three are [arms]; lower values are better if `decrease`. The plain mean of an arm is biased when shares follow
    outcomes, and compares different times when shares change; weighted means (Hájek 1971) estimate every arm over all
    of the traffic. A value is charged with the gap between its arm's mean and the best one: regret without the luck of
    single values, in which a gap that changes with time counts with its average.
    """
    number = np.asarray(counts, dtype=np.float64)
    weight = np.asarray(weights, dtype=np.float64)
    means = np.divide(np.asarray(sums, dtype=np.float64), weight, out=np.full(weight.shape, np.nan), where=weight > 0)
    if np.isnan(means).any():
        return Hindsight(means, -1, np.nan, np.nan)
    gaps = means - means.min() if decrease else means.max() - means
    return Hindsight(means, int(gaps.argmin()), float(number @ gaps), float(number.sum() * gaps.mean()))
