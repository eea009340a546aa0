"""Experiments replayed without any difference: outcomes go to other units, arms are drawn anew as they were drawn.

If no arm makes a difference, the outcomes of an experiment are what they are whatever was drawn (Fisher's sharp null),
so they may change places, and the draws may be repeated. What a report says of such a replay is wrong exactly if it
finds something. Replays keep what the experiment had: its outcomes, how often units return, its shares or the rule
that they followed, its delays and the times at which it was looked at. Rows are decisions in order of time, and leading
axes are runs.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.statistics.adaptive import LEAST_VALUES, Scores, scores
from analysis.statistics.buckets import BUCKETS, live_buckets
from analysis.statistics.cells import Cells, Visits
from analysis.statistics.sequences import Interval
from analysis.statistics.thompson import Direction, Evidence, TopTwoSharing, probabilities

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


class Bandit(NamedTuple):
    """The rule of Thompson sampling, and the outcomes that it follows."""

    sharing: TopTwoSharing
    kind: str
    """Of the metric: binary, or any other."""
    direction: Direction
    half_life_ms: float
    """Infinite if nothing is forgotten; so is the window."""
    window_ms: float


class Known(NamedTuple):
    """What each decision's outcome tells a bandit, and when [rows]."""

    moments: Floats
    """Number of values, their sum and their squares' [rows, 3]."""
    delays_ms: Floats
    """From the decision until that is known; infinite if it never is."""


class Drawn(NamedTuple):
    """Arms that were drawn, and the shares from which."""

    arms: Ints
    """Place of each decision's arm [runs, rows]."""
    shares: Floats
    """Of each table [runs, tables, arms]."""

    def weights(self, tables: Ints) -> Floats:
        """Return 1 / share of the arms that were drawn from these tables [runs, rows]."""
        runs = np.arange(len(self.arms))[:, np.newaxis]
        return np.asarray(1.0 / self.shares[runs, tables, self.arms])


def permutations(units: Ints, runs: int, generator: np.random.Generator) -> Ints:
    """Return for each row the row whose outcome it gets [runs, rows].

    Units with equally many decisions exchange the outcomes of all of them, in order; so what outcomes of one unit have
    in common stays together. `units` are numbers from 0, each of which is there.
    """
    by_unit = np.argsort(units, kind="stable")
    counts = np.bincount(units)
    starts = np.cumsum(counts) - counts
    alike = np.argsort(counts, kind="stable")
    within = np.arange(len(units)) - np.repeat(starts, counts)
    found = np.empty((runs, len(units)), dtype=np.intp)
    for run in found:
        source = np.empty(len(counts), dtype=np.intp)
        source[alike] = np.lexsort((generator.random(len(counts)), counts))
        run[by_unit] = by_unit[np.repeat(starts[source], counts) + within]
    return found


def places(units: Ints | None, rows: int, runs: int, generator: np.random.Generator) -> Floats:
    """Return where each decision falls on the line of shares [runs, rows]: its unit's place, or without units its own.

    A unit keeps its place, so that it keeps its arm while that has the same part of the line.
    """
    if units is None:
        return generator.random((runs, rows))
    return generator.random((runs, int(units.max(initial=-1)) + 1))[:, units]


def draw(at: Floats, shares: Floats) -> Ints:
    """Return the place of the arm whose part of the line each place falls on; shares [.., arms] lie in order."""
    ends = np.cumsum(shares, axis=-1)
    found = np.zeros(np.broadcast_shapes(at.shape, ends.shape[:-1]), dtype=np.intp)
    for arm in range(ends.shape[-1] - 1):
        found += at >= ends[..., arm]
    # Where rounding leaves the ends below 1, the last arms may have no share.
    last = ends.shape[-1] - 1 - np.argmax(shares[..., ::-1] > 0, axis=-1)
    return np.asarray(np.minimum(found, last))


def replay_split(tables: Ints, shares: Floats, at: Floats) -> Drawn:
    """Draw arms from fixed shares of each table [tables, arms]; `tables` [rows] says which one a decision had."""
    return Drawn(draw(at, shares[tables]), np.broadcast_to(shares, (len(at), *shares.shape)))


class Clock(NamedTuple):
    """When a bandit's decisions were made and its tables were published, in milliseconds."""

    decided_ms: Floats
    """[rows]."""
    tables: Ints
    """The table that a decision was drawn from [rows]."""
    published_ms: Floats
    """Ascending [tables]."""
    live: NDArray[np.bool_]
    """Whether an arm had a share [tables, arms]."""


def replay_bandit(bandit: Bandit, clock: Clock, known: Known, sources: Ints, at: Floats) -> Drawn:
    """Draw arms from shares that follow the replay's own outcomes, as they are known when a table is published.

    An outcome keeps its delay when it changes places. Takes the outcomes' rows and the places on the line, both
    [runs, rows].
    """
    runs, tables, arms = len(sources), *clock.live.shape
    numbers = np.arange(runs)[:, np.newaxis]
    news, state = np.zeros((tables + 1, runs, arms, 4)), np.zeros((runs, arms, 4))
    drawn = Drawn(np.empty(sources.shape, dtype=np.intp), np.zeros((runs, tables, arms)))
    order = np.argsort(clock.tables, kind="stable")
    for table, rows in enumerate(np.split(order, np.searchsorted(clock.tables[order], np.arange(1, tables)))):
        passed = clock.published_ms[table] - clock.published_ms[max(table - 1, 0)]
        state[..., :3] *= np.exp2(-passed / bandit.half_life_ms)
        state += news[table]
        for run in range(runs):
            drawn.shares[run, table] = _shares(bandit, state[run], clock.live[table])
        chosen = draw(at[:, rows], drawn.shares[:, table, np.newaxis])
        drawn.arms[:, rows] = chosen
        decided, outcomes = clock.decided_ms[rows], sources[:, rows]
        enters = np.searchsorted(clock.published_ms, decided + known.delays_ms[outcomes])
        enters = np.maximum(enters, table + 1)
        leaves = np.searchsorted(clock.published_ms, decided + bandit.window_ms, side="right")
        values = np.concatenate([known.moments[outcomes], known.moments[outcomes][..., :1]], axis=-1)
        for when, sign in ((enters, np.ones(4)), (np.maximum(enters, leaves), np.array([-1.0, -1.0, -1.0, 0.0]))):
            age = np.append(clock.published_ms, np.inf)[when] - decided
            discount = np.exp2(-age / bandit.half_life_ms) if math.isfinite(bandit.half_life_ms) else np.ones(age.shape)
            factor = np.stack([discount] * 3 + [np.ones(age.shape)], axis=-1) * sign
            np.add.at(news, (when, numbers, chosen), values * factor)
    return drawn


def _shares(bandit: Bandit, known: Floats, live: NDArray[np.bool_]) -> Floats:
    """Return the arms' parts of a bandit's table of buckets [arms], from what is known of each [arms, 4]."""
    evidence = [
        Evidence(max(n, 0.0), total, squares, round(matured)) for n, total, squares, matured in known[live].tolist()
    ]
    found = np.zeros(len(live))
    counts = live_buckets(probabilities(bandit.sharing, bandit.kind, bandit.direction, evidence))
    found[live] = np.array(counts[:-1]) / BUCKETS
    return found


def decision_cells(looks: Ints, drawn_arms: Ints, weights: Floats, values: Floats, size: tuple[int, int]) -> Cells:
    """Return the sums of each run's periods, from decisions.

    Takes the period [rows], arm and weight of each decision [runs, rows], its numerator and denominator
    [runs, rows, 2], and how many periods and arms there are.
    """
    shape = (len(drawn_arms), *size)
    cell = (np.arange(shape[0])[:, np.newaxis] * size[0] + looks) * size[1] + drawn_arms

    def total(each: Floats | None) -> Floats:
        flat = None if each is None else each.ravel()
        return np.bincount(cell.ravel(), flat, minlength=math.prod(shape)).reshape(shape).astype(np.float64)

    n, d = values[..., 0], values[..., 1]
    sums = []
    for factor in (np.ones(1), weights, weights * weights):
        first = np.stack([total(factor * each) for each in (n, d)], axis=-1)
        nn, nd, dd = (total(factor * product) for product in (n * n, n * d, d * d))
        sums.append((first, np.stack([nn, nd, nd, dd], axis=-1).reshape(*shape, 2, 2)))
    counts = total(None)
    (totals, squares), (weighted, _), (squared_weighted, products) = sums
    return Cells(
        decisions=counts.sum(axis=-1),
        counts=counts,
        totals=totals,
        squares=squares,
        weights=total(weights),
        weighted=weighted,
        squared_weights=total(weights * weights),
        squared_weighted=squared_weighted,
        products=products,
    )


def visits_of(units: Ints, looks: Ints, drawn_arms: Ints, weights: Floats, values: Floats, arms: int) -> Visits:
    """Return the decisions of one run by unit; arguments as of `decision_cells`, without runs."""
    weight = (drawn_arms[:, np.newaxis] == np.arange(arms)) * weights[:, np.newaxis]
    return Visits(units, looks, np.ones(len(units)), weight, weight[..., np.newaxis] * values[:, np.newaxis, :])


def pair_of(cells: Cells, place: int) -> Cells:
    """Return the sums of the first arm and of the one at this place; decisions are still those of all arms."""
    axes = (None, -1, -2, -3, -1, -2, -1, -2, -3)
    return Cells(
        *(each if axis is None else np.take(each, [0, place], axis) for each, axis in zip(cells, axes, strict=True))
    )


def scores_of(cells: Cells, visits: Iterable[Visits] | None = None, weights: Floats | None = None) -> Scores:
    """Return the scores of all runs [runs, ..]; where units return, from the visits of each run.

    Weights [runs, periods] are those of `analysis.statistics.adaptive.scores`.
    """
    if visits is None:
        return scores(cells, weights=weights)
    runs = [
        scores(Cells(*(each[run] for each in cells)), of_run, None if weights is None else weights[run])
        for run, of_run in enumerate(visits)
    ]
    return Scores(
        totals=np.stack([each.totals for each in runs]),
        products=np.stack([each.products for each in runs]),
        scale=np.stack([each.scale for each in runs]),
        pilot=np.stack([each.pilot for each in runs]),
        started=np.stack([each.started for each in runs]),
        arms=runs[0].arms,
        values=runs[0].values,
    )


def t_intervals(cells: Cells, alpha: float) -> tuple[Interval, list[Interval]]:
    """Return what a t-test says at each look, as if it were the only one: of the difference, and of each arm's mean.

    Of the last arm to the first, each mean a ratio by the delta method with decisions as if they were independent. With
    the normal quantile, so infinite until every arm has `LEAST_VALUES` values.
    """
    n, total, product = np.cumsum(cells.counts, -2), np.cumsum(cells.totals, -3), np.cumsum(cells.squares, -4)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = total[..., 0] / total[..., 1]
        deviations = product[..., 0, 0] - 2 * value * product[..., 0, 1] + value**2 * product[..., 1, 1]
        variance = deviations / (total[..., 1] / n) ** 2 / (n - 1) / n
    enough = (n >= LEAST_VALUES).all(axis=-1, keepdims=True) & (variance > 0)
    variance, value = np.where(enough, variance, np.inf), np.where(enough, value, 0.0)
    quantile = float(special.ndtri(1 - alpha / 2))

    def interval(centre: Floats, spread: Floats) -> Interval:
        return Interval(centre - quantile * np.sqrt(spread), centre + quantile * np.sqrt(spread))

    arms = [interval(value[..., arm], variance[..., arm]) for arm in range(n.shape[-1])]
    return interval(value[..., -1] - value[..., 0], variance[..., -1] + variance[..., 0]), arms
