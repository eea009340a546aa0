"""What each arm would have done with all of the traffic: scores that stay unbiased whatever a bandit did.

For decision i, G_i(a) = m(a) + 1{A_i = a} / e_i(a) * (Y_i - m(a)), where e_i is the logged propensity and m(a) the mean
of the arm's values in earlier periods. Its mean, given the past, is that of the arm (Robins, Rotnitzky, Zhao 1994; on
adaptive data Hadad et al. 2021), so sums of G follow a martingale and belong in an asymptotic confidence sequence
(Waudby-Smith et al. 2024). Sums and squares of G follow from a few sums per period; no row is needed.

What the caller must see to:

- Periods are ordered by the time of the *decision*, and one enters when its attribution window has closed, with all of
  its decisions, answered or not. An outcome that joins a period later changes what was already counted. Where outcomes
  have no default, count a decision without one as 0 observed (see `Cells`).
- Propensities of a decision are those among the arms analysed: they sum to 1, so divide by what is not held out. All
  arms have some in every period; leave the periods out in which one has none.
- The first periods, until every arm has `LEAST_VALUES`, are the pilot: they give the first m and the scale of the
  tuning, and no score. About a hundred periods or more therefore waste little; one period says nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.cells import Cells, Visits, earlier, past_means

Floats = NDArray[np.float64]

LEAST_VALUES = 30
"""An interval needs this many values of every arm before the first score."""


class Scores(NamedTuple):
    """Running sums of x_i = (1, G_i) over the decisions after the pilot; G_i has an entry per arm and value.

    Entries of x: 0 is the constant, 1 + arm * values + value a score. Arms and values are those of the cells.
    """

    totals: Floats
    """Sum of x [.., periods, entries]."""
    products: Floats
    """Sum of x x' [.., periods, entries, entries]; with visits, of the units' sums of x."""
    scale: Floats
    """Covariance of one decision's x, as the pilot knew it: the scale of the tuning [.., entries, entries]."""
    pilot: Floats
    """Mean of the arms' values in the pilot [.., arms, values]."""
    started: NDArray[np.bool_]
    """Whether the pilot is over and scores are there [.., periods]."""
    arms: int
    values: int


def scores(
    cells: Cells,
    visits: Visits | None = None,
    weights: ArrayLike | None = None,
    unit_products: ArrayLike | None = None,
) -> Scores:
    """Return the running sums of scores and of their products.

    With `weights` [.., periods], known before the period, every x counts as weight * x: means are then those of the
    periods so weighted. Where shares changed, `overlap_weights` make intervals narrower and miss less often in small
    samples. A difference that stays the same is the same; one that changes is averaged over other times.

    Products have at least the variance that they would have if all of an arm's values, whatever their weights, had come
    at random: a few values with large weights say little about their own variance, and too little of it when they
    happen to be alike. Without that, sequences of a rarely chosen arm miss too often.

    With `visits` the products are of units, not of decisions, so that intervals hold when units return: the arm of a
    unit that was randomised once is no news later. This is the cluster variance; outcomes of one unit may be alike,
    and the cells then have no leading axes. An engine can make of visits what is needed of them: `unit_products`
    [periods, entries, entries], by how much each period changes the sum over units of X X', X being a unit's sum of x.
    """
    arms, values = cells.totals.shape[-2:]
    after = after_pilot(cells)
    weight = np.broadcast_to(np.asarray(1.0 if weights is None else weights, dtype=np.float64), after.shape)
    sums, products = increments(cells, weight)
    if visits is not None:
        products = _unit_products(visits, past_means(cells), np.where(after, weight, 0.0))
    if unit_products is not None:
        products = np.asarray(unit_products, dtype=np.float64)
    pilot, scale = _pilot(cells, after, weight)
    return Scores(
        totals=np.cumsum(sums, axis=-2),
        products=np.cumsum(products, axis=-3) + _missing_variance(cells, np.where(after, weight, 0.0)),
        scale=scale,
        pilot=pilot,
        started=np.cumsum(sums[..., 0], axis=-1) > 0,
        arms=arms,
        values=values,
    )


def overlap_weights(propensities: ArrayLike, treatment: int, control: int) -> Floats:
    """Return the weights of periods that make a difference most precise: 1 / (1 / e(treatment) + 1 / e(control)).

    Takes the propensities known before each period [.., periods, arms]; the largest possible weight is 1/4.
    """
    e = np.asarray(propensities, dtype=np.float64)
    first, second = e[..., treatment], e[..., control]
    return np.asarray(first * second / (first + second))


def increments(cells: Cells, weights: ArrayLike = 1.0) -> tuple[Floats, Floats]:
    """Return the sums of x and of x x' over each period; 0 in the pilot.

    Shapes are [.., periods, entries] and [.., periods, entries, entries], with the entries of `Scores`. Weights are
    those of `scores`.
    """
    means = past_means(cells)
    weight = np.where(after_pilot(cells), np.asarray(weights, dtype=np.float64), 0.0)
    products = _products(cells, means) * (weight * weight)[..., np.newaxis, np.newaxis]
    return _sums(cells, means) * weight[..., np.newaxis], products


def linearised(ratios: Scores) -> Scores:
    """Return scores of the arms' ratios, from scores of numerators and denominators.

    G of arm a becomes R + (numerator - R * denominator) / mean denominator, where R and the mean denominator are the
    estimates at the same look (Deng, Knoblich, Lu 2018). ValueError for other than two values.
    """
    if ratios.values != 2:
        raise ValueError(f"a ratio has a numerator and a denominator; these scores have {ratios.values} values")
    shape = (*ratios.totals.shape[:-1], ratios.arms, 2)
    count = np.maximum(ratios.totals[..., :1, np.newaxis], 1.0)
    means = ratios.totals[..., 1:].reshape(shape) / count
    change, first = _linear(means), _linear(ratios.pilot)
    return Scores(
        totals=np.einsum("...ij,...j->...i", change, ratios.totals),
        products=change @ ratios.products @ np.swapaxes(change, -1, -2),
        scale=first @ ratios.scale @ np.swapaxes(first, -1, -2),
        pilot=_quotients(ratios.pilot)[..., np.newaxis],
        started=ratios.started & (means[..., 1] > 0).all(axis=-1),
        arms=ratios.arms,
        values=1,
    )


def _linear(means: Floats) -> Floats:
    """Return the matrices [.., 1 + arms, 1 + 2 * arms] that linearise around means [.., arms, 2]."""
    arms = means.shape[-2]
    ratio, per_denominator = _quotients(means), _inverse(means[..., 1])
    change = np.zeros((*means.shape[:-2], 1 + arms, 1 + 2 * arms))
    change[..., 0, 0] = 1.0
    for arm in range(arms):
        change[..., 1 + arm, 0] = ratio[..., arm]
        change[..., 1 + arm, 1 + 2 * arm] = per_denominator[..., arm]
        change[..., 1 + arm, 2 + 2 * arm] = -ratio[..., arm] * per_denominator[..., arm]
    return change


def _quotients(means: Floats) -> Floats:
    return means[..., 0] * _inverse(means[..., 1])


def _inverse(denominators: Floats) -> Floats:
    return np.divide(1.0, denominators, out=np.zeros_like(denominators), where=denominators > 0)


def after_pilot(cells: Cells) -> NDArray[np.bool_]:
    """Return whether every arm had enough values, that are not all the same, before the period [.., periods]."""
    known = earlier(cells.counts, 2) >= LEAST_VALUES
    squares = earlier(cells.squares, 4)
    deviations = _around(squares, earlier(cells.totals, 3), earlier(cells.counts, 2), past_means(cells))
    spread = deviations[..., 0, 0] > _ROUNDING * squares[..., 0, 0]
    return np.logical_or.accumulate((known & spread).all(axis=-1), axis=-1)


_ROUNDING = 1e-12


def _around(products: Floats, totals: Floats, weights: Floats, means: Floats) -> Floats:
    """Return the sums of weight (y - m)(y - m)', from those of weight y y', weight y and weight."""
    cross = _outer(totals, means)
    return products - cross - np.swapaxes(cross, -1, -2) + _outer(means, means) * weights[..., np.newaxis, np.newaxis]


def _residuals(cells: Cells, means: Floats) -> Floats:
    """Return the sums of weight^2 (y - m)(y - m)' of each arm [.., periods, arms, values, values]."""
    return _around(cells.products, cells.squared_weighted, cells.squared_weights, means)


def _corrections(weights: Floats, weighted: Floats, means: Floats) -> Floats:
    """Return the sums of weight * (y - m), flat over arms and values [.., arms * values]."""
    residual = weighted - weights[..., np.newaxis] * means
    return residual.reshape(*residual.shape[:-2], -1)


def _sums(cells: Cells, means: Floats) -> Floats:
    """Return the sums of x over each period [.., periods, entries]."""
    count = cells.decisions[..., np.newaxis]
    flat = means.reshape(*means.shape[:-2], -1)
    return np.concatenate([count, count * flat + _corrections(cells.weights, cells.weighted, means)], axis=-1)


def _products(cells: Cells, means: Floats) -> Floats:
    """Return the sums of x x' over each period [.., periods, entries, entries].

    x = b + d with b = (1, m) the same for all, and d = (0, weight * (y - m)) of which only the chosen arm's entries
    are not 0.
    """
    flat = means.reshape(*means.shape[:-2], -1)
    base = np.concatenate([np.ones((*flat.shape[:-1], 1)), flat], axis=-1)
    correction = _corrections(cells.weights, cells.weighted, means)
    change = np.concatenate([np.zeros((*flat.shape[:-1], 1)), correction], axis=-1)
    cross = _outer(base, change)
    both = _outer(base, base) * cells.decisions[..., np.newaxis, np.newaxis]
    return np.asarray(both + cross + np.swapaxes(cross, -1, -2) + _blocks(_residuals(cells, means)))


def _blocks(blocks: Floats) -> Floats:
    """Return block-diagonal matrices with the constant's 0 first, from blocks [.., arms, values, values]."""
    arms, values = blocks.shape[-3:-1]
    matrix = np.zeros((*blocks.shape[:-3], 1 + arms * values, 1 + arms * values))
    for arm in range(arms):
        place = slice(1 + arm * values, 1 + (arm + 1) * values)
        matrix[..., place, place] = blocks[..., arm, :, :]
    return matrix


def _missing_variance(cells: Cells, weights: Floats) -> Floats:
    """Return what the products of scores lack, at each look, for the variance of all of the arms' values so far.

    Shape [.., periods, entries, entries]; the missing part of each arm's block has no negative eigenvalue.
    """
    means = past_means(cells)
    used = (weights * weights)[..., np.newaxis]
    squared = cells.squared_weights * used
    per_arm, per_value = used[..., np.newaxis, np.newaxis], squared[..., np.newaxis]
    observed = np.cumsum(_residuals(cells, means) * per_arm, axis=-4)
    n, total, square = (
        np.cumsum(each, axis=axis) for each, axis in ((cells.counts, -2), (cells.totals, -3), (cells.squares, -4))
    )
    count = np.maximum(n, 1.0)[..., np.newaxis]
    centre = total / count
    variance = (square - _outer(total, centre)) / np.maximum(count - 1.0, 1.0)[..., np.newaxis]
    weight = np.cumsum(squared, axis=-2)[..., np.newaxis, np.newaxis]
    past = np.cumsum(per_value * means, axis=-3)
    past_squared = np.cumsum(per_value[..., np.newaxis] * _outer(means, means), axis=-4)
    cross = _outer(past, centre)
    around = weight * _outer(centre, centre) - cross - np.swapaxes(cross, -1, -2) + past_squared
    eigenvalues, vectors = np.linalg.eigh(weight * variance + around - observed)
    return _blocks((vectors * np.maximum(eigenvalues, 0.0)[..., np.newaxis, :]) @ np.swapaxes(vectors, -1, -2))


def _outer(first: Floats, second: Floats) -> Floats:
    return np.asarray(first[..., :, np.newaxis] * second[..., np.newaxis, :])


def _unit_products(visits: Visits, means: Floats, weights: Floats) -> Floats:
    """Return by how much each period changes the sum over units of X X', X being a unit's sum of weight * x so far."""
    m = means[visits.periods]
    count = visits.decisions[:, np.newaxis]
    flat = m.reshape(len(m), -1)
    rows = np.concatenate([count, count * flat + _corrections(visits.weights, visits.weighted, m)], axis=-1)
    rows *= weights[visits.periods, np.newaxis]
    entries = rows.shape[1]
    known = np.zeros((int(visits.units.max(initial=-1)) + 1, entries))
    changes = np.zeros((len(weights), entries, entries))
    order = np.argsort(visits.periods, kind="stable")
    for rows_of in np.split(order, np.flatnonzero(np.diff(visits.periods[order])) + 1):
        units, row = np.unique(visits.units[rows_of], return_inverse=True)
        more = np.zeros((len(units), entries))
        np.add.at(more, row, rows[rows_of])
        before = known[units]
        cross = before.T @ more
        changes[visits.periods[rows_of[:1]]] = cross + cross.T + more.T @ more
        known[units] = before + more
    return changes


def _pilot(cells: Cells, after: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Return the means of the pilot's values [.., arms, values], and its covariance of x [.., entries, entries]."""
    inside = ~after

    def total(sums: Floats) -> Floats:
        mask = inside.reshape(*inside.shape, *[1] * (sums.ndim - inside.ndim))
        return np.asarray(np.where(mask, sums, 0.0).sum(axis=inside.ndim - 1, keepdims=True))

    pilot = Cells(*map(total, cells))
    count = pilot.counts[..., np.newaxis]
    means = np.divide(pilot.totals, count, out=np.zeros_like(pilot.totals), where=count > 0)
    per_decision = total(cells.decisions * weights * weights) / np.maximum(pilot.decisions, 1.0) ** 2
    deviations = _residuals(pilot, means) * per_decision[..., np.newaxis, np.newaxis, np.newaxis]
    axis = inside.ndim - 1
    return means.squeeze(axis), _blocks(deviations).squeeze(axis)
