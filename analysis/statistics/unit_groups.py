"""Two arms compared from sums by groups of units: for whoever may not read decisions again, such as a router.

A decision of the arm that was drawn with probability p, of two, counts with the overlap weight 1 - p. The difference of
weighted means then compares the arms over the same times, weighted by p (1 - p), whatever ramps or bandits did to the
shares (Li, Morgan, Zaslavsky 2018). Weights never exceed 1, and a time when one arm had no share counts for nothing.

Units belong to `GROUPS` groups by a hash. Sums of different groups are independent, however often a unit returns, so
their squares are the variance of a total (random groups; Wolter 2007, chapter 2). The difference is looked at again and
again within the normal mixture (analysis.statistics.sequences).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.sequences import log_e_value, mixture_rho, normal_mixture

Floats = NDArray[np.float64]

GROUPS = 128

LEAST_VALUES = 30
"""Every arm needs so many values before anything is said."""

LEAST_GROUPS = 20
"""So many groups need values: with fewer units nothing is known of how alike the values of a unit are."""

SCALARS = (
    "count",
    "total",
    "squares",
    "weight",
    "weighted",
    "squared_weight",
    "squared_weighted",
    "squared_products",
    "spread",
)
"""What a vector of sums begins with."""
_PLACES = {name: place for place, name in enumerate(SCALARS)}
_SCALARS = len(SCALARS)
SIZE = _SCALARS + 2 * GROUPS
_OF_SCALARS = np.array([0, 1, 2, 3, 4, 6, 7, 8, 9])
"""Where they stand in the products of 1, w, w w and w (1 - w) with counts, totals and squares."""
_SIGNED = np.array(
    [name in {"total", "weighted", "squared_weighted"} for name in SCALARS] + [False] * GROUPS + [True] * GROUPS
)
"""What may be negative: sums of values; counts, weights and squares may not."""


class Sums:
    """Additive sums over values v with weights w: of v, v v, w, w v, w w, w w v, w w v v, and w and w v by group.

    `spread` is the sum of p (1 - p): the variance of what the draws alone do to the sum of weights.
    """

    __slots__ = ("vector",)

    def __init__(self, vector: Floats | None = None) -> None:
        self.vector = np.zeros(SIZE) if vector is None else vector

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.vector + other.vector)

    def __sub__(self, earlier: "Sums") -> "Sums":
        """What came after these; rounding makes nothing negative that cannot be."""
        later = self.vector - earlier.vector
        return Sums(np.where(_SIGNED, later, np.maximum(later, 0.0)))

    def __getattr__(self, name: str) -> float:
        try:
            return float(self.vector[_PLACES[name]])
        except KeyError:
            raise AttributeError(name) from None

    @property
    def group_weights(self) -> Floats:
        """Sum of w of each group [GROUPS]."""
        return self.vector[len(SCALARS) : len(SCALARS) + GROUPS]

    @property
    def group_weighted(self) -> Floats:
        """Sum of w v of each group [GROUPS]."""
        return self.vector[len(SCALARS) + GROUPS :]


def group_of(unit: str) -> int:
    """Return the group of a unit, by a hash that has nothing to do with its arm."""
    return crc32(unit.encode()) % GROUPS


def overlap_weight(propensity: float) -> float:
    """Return 1 - p: of two arms, the probability of the other one."""
    return 1.0 - propensity


def sums_of(
    groups: Sequence[int],
    weights: Sequence[float],
    counts: Sequence[float],
    totals: Sequence[float],
    squares: Sequence[float],
) -> Sums:
    """Return the sums over rows, each of `counts` values with this total and sum of squares, all with one weight."""
    return sums_of_each([len(groups)], groups, weights, counts, totals, squares)[0] if len(groups) else Sums()


def sums_of_each(
    sizes: Sequence[int],
    groups: Sequence[int],
    weights: Sequence[float],
    counts: Sequence[float],
    totals: Sequence[float],
    squares: Sequence[float],
) -> list[Sums]:
    """Return the sums over the first rows, over the next ones and so on; `sizes` says how many each, at least one.

    Together, since a call of numpy costs more than adding up: a router does this for every batch.
    """
    g = np.asarray(groups, dtype=np.intp)
    w, n, t, s = np.array([weights, counts, totals, squares], dtype=np.float64)
    ww, wn, wt = w * w, w * n, w * t
    factors = np.array([np.ones(len(w)), w, ww, np.maximum(w - ww, 0.0)])
    products = (factors[:, None] * np.array([n, t, s])).reshape(-1, len(w))[_OF_SCALARS]
    owners = np.arange(len(sizes))
    cells = np.repeat(owners * GROUPS, sizes) + g
    starts = np.cumsum([0, *sizes[:-1]])
    vectors = np.empty((len(sizes), SIZE))
    vectors[:, :_SCALARS] = np.add.reduceat(products, starts, axis=1).T
    for place, values in ((_SCALARS, wn), (_SCALARS + GROUPS, wt)):
        by_group = np.bincount(cells, values, minlength=len(sizes) * GROUPS)
        vectors[:, place : place + GROUPS] = by_group.reshape(-1, GROUPS)
    return [Sums(vector) for vector in vectors]


class Weighted(NamedTuple):
    """What a weighted mean R = total of w v / total of w is made of, for one arm; v may be shifted by `offset`.

    Squares are None where only groups are known, as of ratios.
    """

    n: float
    weight: float
    weighted: float
    group_weights: Floats
    group_weighted: Floats
    squared_weight: float
    spread: float
    offset: float = 0.0
    moments: tuple[float, float] | None = None
    """Sums of v and of v v."""
    squared: tuple[float, float] | None = None
    """Sums of w w v and of w w v v."""

    @property
    def mean(self) -> float:
        """R, with its offset."""
        return self.shifted + self.offset

    @property
    def shifted(self) -> float:
        """R of the shifted values."""
        return self.weighted / self.weight if self.weight > 0 else math.nan


def of_values(sums: Sums) -> Weighted:
    """Return the mean of the values that were observed."""
    return Weighted(
        sums.count,
        sums.weight,
        sums.weighted,
        sums.group_weights,
        sums.group_weighted,
        sums.squared_weight,
        sums.spread,
        moments=(sums.total, sums.squares),
        squared=(sums.squared_weighted, sums.squared_products),
    )


def of_items(answered: Sums, items: Sums, default: float) -> Weighted:
    """Return the mean over all items, where the default stands for what was not answered.

    The values of `items` are how many items each decision has.
    """
    a, d = answered, default
    return Weighted(
        items.total,
        items.weighted,
        a.weighted - d * a.weight,
        items.group_weighted,
        a.group_weighted - d * a.group_weights,
        items.squared_weighted,
        items.spread,
        offset=d,
        moments=(a.total - d * a.count, a.squares - 2 * d * a.total + d * d * a.count),
        squared=(
            a.squared_weighted - d * a.squared_weight,
            a.squared_products - 2 * d * a.squared_weighted + d * d * a.squared_weight,
        ),
    )


def of_ratio(numerator: Sums, denominator: Sums) -> Weighted:
    """Return the sum of numerators divided by that of denominators."""
    return Weighted(
        min(numerator.count, denominator.count),
        denominator.weighted,
        numerator.weighted,
        denominator.group_weighted,
        numerator.group_weighted,
        denominator.squared_products,
        denominator.spread,
    )


class Contrast(NamedTuple):
    """The treatment's mean less the control's and its confidence sequence, at this look."""

    control: float
    treatment: float
    difference: float
    low: float
    high: float
    log_e_value: float
    """Natural logarithm of the evidence against no difference."""


class Change(NamedTuple):
    """An estimated difference as a sum: `information` times it has this variance, which grows as data come.

    Two arms that share the traffic have a spread, of which a decision adds a quarter at most; others have none.
    """

    difference: float
    information: float
    variance: float
    spread: float


def change(control: Weighted, treatment: Weighted, *, within_1: bool = False) -> Change | None:
    """Return the difference of two means with its variance, or None while there is too little to say.

    The variance is the largest of three: of values as if units never returned, of groups, and of values that vary as
    those of both arms together do, since a few of them know too little of how much they vary. Values between 0 and 1
    (`within_1`) that were all the same so far vary as if the next one were not; of others nothing is known then.
    """
    arms = (control, treatment)
    if min(arm.n for arm in arms) < LEAST_VALUES or min(arm.weight for arm in arms) <= 0:
        return None
    if min(np.count_nonzero(arm.group_weights) for arm in arms) < LEAST_GROUPS:
        return None
    information = (control.weight + treatment.weight) / 2
    residuals = [(arm.group_weighted - arm.shifted * arm.group_weights) / arm.weight for arm in arms]
    grouped = float(((residuals[1] - residuals[0]) ** 2).sum()) * GROUPS / (GROUPS - 1)
    pooled = max(_pooled_variance(arms), _unseen_variance(arms) if within_1 else 0.0)
    least = sum(max(_alone(arm), pooled * arm.squared_weight / arm.weight**2) for arm in arms)
    variance = information**2 * max(grouped, least)
    if not variance > 0:
        return None
    return Change(treatment.mean - control.mean, information, variance, control.spread + treatment.spread)


def credit_change(control: Sums, treatment: Sums) -> Change | None:
    """Return by how much the share of the credit that a mixed list's treatment gets exceeds that of its control."""
    total = control.total + treatment.total
    if control.count + treatment.count < 2 * LEAST_VALUES or total <= 0:
        return None
    difference = (treatment.total - control.total) / total
    credit = control.group_weighted + treatment.group_weighted
    if np.count_nonzero(credit) < LEAST_GROUPS:
        return None
    residuals = treatment.group_weighted - control.group_weighted - difference * credit
    alone = control.squares * (1 + difference) ** 2 + treatment.squares * (1 - difference) ** 2
    variance = max(float((residuals**2).sum()) * GROUPS / (GROUPS - 1), alone)
    return Change(difference, total, variance, 0.0) if variance > 0 else None


def mean_change(differences: Sums) -> Change | None:
    """Return the mean of paired differences, all of weight 1, as a change from 0."""
    n = differences.count
    if n < LEAST_VALUES or np.count_nonzero(differences.group_weights) < LEAST_GROUPS:
        return None
    mean = differences.total / n
    residuals = differences.group_weighted - mean * differences.group_weights
    alone = differences.squares - n * mean * mean
    variance = max(float((residuals**2).sum()) * GROUPS / (GROUPS - 1), alone)
    return Change(mean, n, variance, 0.0) if variance > 0 else None


def scale_of(found: Change) -> float:
    """Return how much variance comes with each unit of spread: the scale of the tuning, to be kept from then on."""
    return found.variance / (found.spread if found.spread > 0 else found.information)


def planned_variance(found: Change, scale: float, planned: float) -> float:
    """Return the variance that is expected at the planned number of decisions, of two arms half for each.

    Where nothing has a spread, the plan is of what information counts: pairs, or the credit of mixed lists.
    """
    return scale * planned * (0.25 if found.spread > 0 else 1.0)


def margin(found: Change, planned: float, alpha: float) -> float:
    """Return by how much the difference may be off, at any look; `planned` is the variance expected at the plan."""
    rho = mixture_rho(planned, alpha)
    return float(normal_mixture(found.variance, rho, alpha)) / found.information


def log_evidence(found: Change, planned: float, alpha: float, difference: float = 0.0) -> float:
    """Return the logarithm of the e-value against this difference."""
    total = found.information * (found.difference - difference)
    return float(log_e_value(total, found.variance, mixture_rho(planned, alpha)))


LEAST_SPREAD = 20.0
"""Before so much, what two arms drew is too few for a normal limit."""


def draws_log_evidence(control: Sums, treatment: Sums, planned: float, alpha: float) -> float | None:
    """Return the logarithm of the evidence that the arms did not get the decisions that their propensities say.

    The difference of the sums of overlap weights has mean 0, and its variance is the spread, known from the
    propensities alone; or what the groups say, where units return. None before there is enough to say.
    """
    spread = control.spread + treatment.spread
    if spread < LEAST_SPREAD:
        return None
    grouped = float(((treatment.group_weights - control.group_weights) ** 2).sum())
    variance = max(spread, grouped)
    rho = mixture_rho(planned / 4, alpha)
    return float(log_e_value(treatment.weight - control.weight, variance, rho))


def _alone(arm: Weighted) -> float:
    """Return the variance of an arm's mean if no unit returns."""
    if arm.squared is None:
        return 0.0
    weighted, products = arm.squared
    r = arm.shifted
    return max(products - 2 * r * weighted + r * r * arm.squared_weight, 0.0) / arm.weight**2


def _pooled_variance(arms: Sequence[Weighted]) -> float:
    """Return the variance of the values of all arms together."""
    known = [arm.moments for arm in arms if arm.moments is not None]
    if len(known) < len(arms):
        return 0.0
    count = sum(arm.n for arm in arms)
    total, squares = (sum(moments[place] for moments in known) for place in (0, 1))
    return max(squares - total * total / count, 0.0) / max(count - 1, 1)


def _unseen_variance(arms: Sequence[Weighted]) -> float:
    """Return the variance of an event that has happened never so far, and once if it does next (Laplace)."""
    p = 1.0 / (sum(arm.n for arm in arms) + 2.0)
    return p * (1.0 - p)
