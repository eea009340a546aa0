"""What methods say of worlds at every look: the intervals that an analysis would print.

Looks are those that a report has of as many decisions, one a second: the ends of its periods, of which the first is a
quarter of a second. Intervals come from the same sums per period, of numerators and denominators. Where outcomes arrive
late, every eighth look is read, from what was known then: at the next one more is known of the same decisions.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.statistics import replay
from analysis.statistics.adaptive import Scores, increments, linearised, overlap_weights
from analysis.statistics.betting import arm_draws, contrast_draws, covers, sequence
from analysis.statistics.cells import Cells
from analysis.statistics.effects import contrast, lift, mean
from analysis.statistics.replay import t_intervals
from analysis.statistics.sequences import Interval
from bench.worlds import Log, Setting

ALPHA = 0.05
_FEW = 5
"""Runs in which the ends of the betting sequence are searched for."""
_GRID = 500
_SKIPPED = 8
"""Where outcomes arrive late, one look in so many is read."""

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]


class Read(NamedTuple):
    """What a method says of one world at every look: whether intervals hold the truth [runs, looks]."""

    difference: Bools
    nothing: Bools
    """Whether the interval of the difference holds 0."""
    arms: list[Bools]
    lift: Bools | None
    width: Floats
    """Of the last interval of the difference [runs]."""
    decisions: Floats
    """Until each look [looks]."""


class Said(NamedTuple):
    """Intervals at every look [runs, looks]."""

    difference: Interval
    arms: list[Interval]
    lift: Interval | None


class Seen(NamedTuple):
    """What there was to read of a world."""

    decisions: Floats
    """Until each look [looks]."""
    cells: list[Cells]
    """Sums over periods that hold for all looks; where outcomes come late, those so far at each look."""


def look_at(log: Log) -> Seen:
    """Return what can be read of a world at its looks."""
    periods = log.setting.periods
    ends = np.searchsorted(periods, np.arange(periods[-1] + 1), side="right")
    if not log.setting.late:
        return Seen(ends.astype(np.float64), [log.cells])
    ends = np.append(ends[_SKIPPED - 1 : -1 : _SKIPPED], ends[-1])
    return Seen(ends.astype(np.float64), [log.cells_after(end) for end in ends.tolist()])


def read(method: str, log: Log, seen: Seen, truth: Sequence[float]) -> Read:
    """Read a world at every look by a method."""
    if method == "betting":
        return _read_bets(log, truth)
    if log.setting.late:
        said = _together([_say(method, log, cells, now=True) for cells in seen.cells])
    else:
        said = _say(method, log, seen.cells[0])
    last = len(truth) - 1
    return Read(
        difference=_holds(said.difference, truth[last] - truth[0]),
        nothing=_holds(said.difference, 0.0),
        arms=[_holds(each, value) for each, value in zip(said.arms, truth, strict=True)],
        lift=None if said.lift is None else _holds(said.lift, truth[last] / truth[0] - 1),
        width=said.difference.high[:, -1] - said.difference.low[:, -1],
        decisions=seen.decisions,
    )


def _say(method: str, log: Log, cells: Cells, *, now: bool = False) -> Said:
    """Return the intervals of a method from the sums over periods: at all looks, or only the last ones."""
    if method == "t-test":
        difference, means = t_intervals(cells, ALPHA)
        return Said(_end(difference), [_end(each) for each in means], None) if now else Said(difference, means, None)
    last, planned = cells.counts.shape[-1] - 1, log.setting.decisions
    weights = overlap_weights(log.known_shares, last, 0) if method == "overlap" else None
    found = scores_of(log, cells, weights, plain=method == "plain")
    found = _last_look(found) if now else found
    arms = []
    for arm in range(last + 1):
        own = scores_of(log, cells, log.known_shares[..., arm]) if method == "overlap" else found
        arms.append(mean(own, arm, planned).interval)
    return Said(contrast(found, last, 0, planned).interval, arms, lift(found, last, 0, planned).interval)


def scores_of(log: Log, cells: Cells, weights: Floats | None = None, *, plain: bool = False) -> Scores:
    """Return the scores of all runs, with clusters where units return."""
    visits = None if log.units is None else map(log.visits, range(len(log.arms)))
    found = replay.scores_of(cells, visits, weights)
    return linearised(found._replace(products=np.cumsum(increments(cells)[1], axis=-3)) if plain else found)


def _last_look(found: Scores) -> Scores:
    return found._replace(totals=found.totals[:, -1:], products=found.products[:, -1:], started=found.started[:, -1:])


def _end(interval: Interval) -> Interval:
    return Interval(interval.low[:, -1:], interval.high[:, -1:])


def _together(looks: Sequence[Said]) -> Said:
    lifts = [each.lift for each in looks if each.lift is not None]
    return Said(
        _joined([each.difference for each in looks]),
        [_joined(arms) for arms in zip(*(each.arms for each in looks), strict=True)],
        _joined(lifts) if lifts else None,
    )


def _joined(looks: Sequence[Interval]) -> Interval:
    low, high = (np.concatenate(each, axis=1) for each in zip(*looks, strict=True))
    return Interval(low, high)


def _read_bets(log: Log, truth: Sequence[float]) -> Read:
    """Read a world by betting, after every epoch of every period."""
    last, planned = len(truth) - 1, log.setting.decisions
    sums = log.by_table
    pair = contrast_draws(*sums, last, 0)
    few = sequence(contrast_draws(*log.first(_FEW).by_table, last, 0), planned, grid=_GRID)
    return Read(
        difference=covers(pair, truth[last] - truth[0], planned),
        nothing=covers(pair, 0.0, planned),
        arms=[covers(arm_draws(*sums, arm), value, planned) for arm, value in enumerate(truth)],
        lift=None,
        width=few.high[:, -1] - few.low[:, -1],
        decisions=np.cumsum(sums[1][0].sum(axis=-1)),
    )


def _holds(interval: Interval, truth: float) -> Bools:
    # An interval that does not exist yet excludes nothing.
    return ~((interval.low > truth) | (interval.high < truth))


def methods(setting: Setting) -> Iterator[str]:
    """Yield the methods that apply."""
    yield "sequence"
    if setting.floor is not None and not setting.late:
        yield "plain"
    if setting.moves and not setting.late:
        yield "overlap"
    if setting.bounded:
        yield "betting"
    yield "t-test"
