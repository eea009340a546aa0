"""How often would this very report be wrong? Its own experiment is replayed, many times, without any difference.

Outcomes change places between units, and arms are drawn anew: from the epochs' shares where those were fixed, and by
Thompson sampling from the replay's own outcomes where they were not, at the times at which epochs were published and
with the delays that outcomes had. Every replay is read at the experiment's looks by the code that reads the experiment.

What is not replayed: units that are held out, sticky assignments, the fewest moves between more than two arms, and
retracted or corrected outcomes before they were. Means are taken to be true if they are that of all outcomes.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import bets, sums
from analysis.experiment import AnyMetric, Experiment
from analysis.replays import Mechanism, Replay, Rows
from analysis.sequential import Setup
from analysis.source import Source
from analysis.statistics import effects, replay
from analysis.statistics.adaptive import LEAST_VALUES, linearised
from analysis.statistics.betting import arm_draws, contrast_draws, covers
from analysis.statistics.cells import Visits
from analysis.statistics.sequences import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

_AT_ONCE = 1_000_000
"""Decisions of all runs that are held together."""


class Covered(NamedTuple):
    """What became of one arm's intervals, in percent of the replays; of the control there are no differences (nan)."""

    arm: str
    mean_coverage_percent: float
    """Replays in which the interval of the arm's mean held the truth at every look."""
    difference_coverage_percent: float
    """The same of its difference to the control, which is 0."""
    t_test_mean_coverage_percent: float
    t_test_difference_coverage_percent: float
    difference_width: float
    """Median width of the last interval of the difference, in the metric's unit; nan of intervals by betting."""


class Certificate(NamedTuple):
    """How often a report is wrong when nothing makes a difference; errors are standard errors of the simulation."""

    metric: str
    runs: int
    looks: int
    decisions: int
    """That were replayed."""
    part: int
    """One in so many units was replayed."""
    promised_percent: float
    false_positive_percent: float
    """Replays in which an interval of a difference excluded 0 at any look."""
    error_percent: float
    t_test_false_positive_percent: float
    """The same of a t-test of the decisions that is read as often."""
    t_test_error_percent: float
    arms: tuple[Covered, ...]
    reason: str = ""
    """Why nothing can be said; empty if something can."""

    @property
    def summary(self) -> str:
        """The finding in a sentence."""
        if self.reason:
            return f"not enough evidence: {self.reason}"
        sample = f" and 1 in {self.part} of its units" if self.part > 1 else ""
        return (
            f"in {self.runs} replays of this experiment without any difference{sample}, its intervals of {self.metric} "
            f"excluded 0 at any of {self.looks} looks in {self.false_positive_percent:.1f} % "
            f"(± {self.error_percent:.1f}; at most {self.promised_percent:g} % are promised); a t-test read as often "
            f"did in {self.t_test_false_positive_percent:.1f} % (± {self.t_test_error_percent:.1f})"
        )

    def document(self) -> dict[str, Any]:
        """Return all of it, and the summary, as plain values."""
        return {**self._asdict(), "arms": [arm._asdict() for arm in self.arms], "summary": self.summary}

    def frame(self) -> pd.DataFrame:
        """One row per arm, control first; the columns are those of `Covered`."""
        return pd.DataFrame(self.arms, columns=pd.Index(Covered._fields))


class _Comparison(NamedTuple):
    """The decisions on which a treatment is compared with the control."""

    place: int
    """Of the treatment among the arms."""
    rows: Bools
    looks: Ints
    """Of those rows, from 0."""


class _Holds(NamedTuple):
    """Whether the intervals of a comparison held what is true, at every look [runs]."""

    difference: Bools
    control: Bools
    treatment: Bools


class _Reading(NamedTuple):
    """What was said of a comparison."""

    sequence: _Holds
    t_test: _Holds
    width: Floats
    """Of the last interval of the difference [runs]."""


def certify(source: Source, setup: Setup, metric: AnyMetric, *, runs: int = 200, seed: int = 1) -> Certificate:
    """Replay an experiment, and say how often its intervals of a metric would have been wrong.

    Raises:
        UnknownMetric: Lists were mixed, or every request had shares of its own.
    """
    reader = _Reader(Mechanism(source, setup, metric), setup, metric)
    at_once = max(min(runs, _AT_ONCE // max(len(reader.rows.units), 1)), 1)
    generator = np.random.default_rng(seed)
    parts = [
        reader.read(min(at_once, runs - first), generator)
        for first in range(0, runs if reader.comparisons else 0, at_once)
    ]
    return _certificate(reader, [_together(each) for each in zip(*parts, strict=True)], runs)


class _Reader:
    """Reads replays as a report reads their experiment."""

    def __init__(self, mechanism: Mechanism, setup: Setup, metric: AnyMetric) -> None:
        self.rows, self.setup, self.metric = mechanism.rows, setup, metric
        self.comparisons = list(_comparisons(setup.experiment, mechanism.rows))
        self._mechanism = mechanism
        self._alpha = 1 - setup.confidence
        self._planned = setup.experiment.planned_decisions / self.rows.part
        total = self.rows.values.sum(axis=0)
        self._truth = float(total[0] / total[1]) if total[1] > 0 else 0.0

    def read(self, runs: int, generator: np.random.Generator) -> list[_Reading]:
        """Return what is said of each comparison in so many new replays."""
        replayed = self._mechanism.replay(runs, generator)
        return [self._read(compared, replayed) for compared in self.comparisons]

    def _read(self, compared: _Comparison, replayed: Replay) -> _Reading:
        size = int(compared.looks.max()) + 1, len(self.setup.experiment.arms)
        seen = replayed.of(compared.rows)
        cells = replay.decision_cells(compared.looks, seen.arms, seen.weights, seen.values, size)
        pair = replay.pair_of(cells, compared.place)
        difference, means = replay.t_intervals(pair, self._alpha)
        t_test = self._holds(difference, *means)
        if self._bets:
            return _Reading(self._bet(compared, seen), t_test, np.full(len(seen.arms), math.nan))
        found = linearised(replay.scores_of(pair, self._visits(compared, seen) if self.setup.units_return else None))
        difference = effects.contrast(found, 1, 0, self._planned, self._alpha).interval
        means = [effects.mean(found, arm, self._planned, self._alpha).interval for arm in (0, 1)]
        return _Reading(self._holds(difference, *means), t_test, difference.high[:, -1] - difference.low[:, -1])

    def _holds(self, difference: Interval, control: Interval, treatment: Interval) -> _Holds:
        return _Holds(_held(difference, 0.0), _held(control, self._truth), _held(treatment, self._truth))

    def _visits(self, compared: _Comparison, seen: Replay) -> Iterator[Visits]:
        units, role = self.rows.units[compared.rows], np.full(len(self.setup.experiment.arms), -1)
        role[[0, compared.place]] = 0, 1
        for arm, weight, value in zip(role[seen.arms], seen.weights, seen.values, strict=True):
            yield replay.visits_of(units, compared.looks, arm, weight, value, 2)

    @property
    def _bets(self) -> bool:
        """Whether the report bets."""
        experiment, d = self.setup.experiment, self.rows.values[:, 1]
        keys = np.unique(np.stack([self.rows.periods, self.rows.epochs]), axis=1).shape[1]
        needed = bets.are_needed(experiment, self.metric, units_return=self.setup.units_return)
        return needed and keys <= bets.MOST_EPOCHS and bool(np.isin(d, (0.0, 1.0)).all())

    def _bet(self, compared: _Comparison, seen: Replay) -> _Holds:
        """Return what intervals by betting hold, after each table of each period."""
        tables = self._mechanism.tables[compared.rows]
        keys, places = np.unique(np.stack([compared.looks, tables]), axis=1, return_inverse=True)
        size = keys.shape[1], len(self.setup.experiment.arms)
        cells = replay.decision_cells(places, seen.arms, np.ones(seen.arms.shape), seen.values, size)
        pair = [0, compared.place]
        shares, (totals, counts) = seen.shares[:, keys[1]][..., pair], np.moveaxis(cells.totals, -1, 0)
        # What others get is never looked at, but must be a share.
        shares = np.concatenate([shares, np.ones((*shares.shape[:-1], 1))], axis=-1)
        counts, totals = (_with_rest(each, pair) for each in (counts, totals))
        draws = contrast_draws(shares, counts, totals, 1, 0)
        means = [arm_draws(shares, counts, totals, arm) for arm in (0, 1)]
        bounds = zip((draws, *means), (0.0, self._truth, self._truth), strict=True)
        return _Holds(*(_always(covers(pair_, truth, self._planned, self._alpha)) for pair_, truth in bounds))


def _comparisons(experiment: Experiment, rows: Rows) -> Iterator[_Comparison]:
    for place in range(1, len(experiment.arms)):
        inside = np.zeros(len(rows.epochs), dtype=np.bool_)
        for first, last in sums.comparable_epochs(experiment.epochs, (0, place)):
            inside |= (rows.epochs >= first) & (rows.epochs <= last)
        if inside.any():
            yield _Comparison(place, inside, np.unique(rows.periods[inside], return_inverse=True)[1])


def _with_rest(sums_: Floats, pair: list[int]) -> Floats:
    """Return the sums of both arms and of all others."""
    both = sums_[..., pair]
    return np.concatenate([both, (sums_.sum(axis=-1) - both.sum(axis=-1))[..., np.newaxis]], axis=-1)


def _held(interval: Interval, truth: float) -> Bools:
    # An interval that does not exist yet excludes nothing.
    return _always(~((interval.low > truth) | (interval.high < truth)))


def _always(holds: Bools) -> Bools:
    return np.asarray(holds.all(axis=-1))


def _together(parts: Sequence[_Reading]) -> _Reading:
    sequence, t_test = (
        _Holds(*(np.concatenate(each) for each in zip(*holds, strict=True)))
        for holds in ([part.sequence for part in parts], [part.t_test for part in parts])
    )
    return _Reading(sequence, t_test, np.concatenate([part.width for part in parts]))


def _certificate(reader: _Reader, readings: Sequence[_Reading], runs: int) -> Certificate:
    rows, treatments = reader.rows, len(reader.setup.experiment.treatments)
    reason = _missing(reader, readings)
    sequences, t_tests = [each.sequence for each in readings], [each.t_test for each in readings]
    wrong, naively = (
        math.nan if reason else _percent(~np.all([each.difference for each in holds], axis=0))
        for holds in (sequences, t_tests)
    )
    return Certificate(
        metric=reader.metric.name,
        runs=runs,
        looks=max((int(each.looks.max()) + 1 for each in reader.comparisons), default=0),
        decisions=len(rows.units),
        part=rows.part,
        promised_percent=round(100 * (1 - reader.setup.confidence) * treatments, 9),
        false_positive_percent=wrong,
        error_percent=_error(wrong, runs),
        t_test_false_positive_percent=naively,
        t_test_error_percent=_error(naively, runs),
        arms=() if reason else tuple(_covered(reader, sequences, t_tests, [each.width for each in readings])),
        reason=reason,
    )


def _missing(reader: _Reader, readings: Sequence[_Reading]) -> str:
    """Say why there is nothing to certify, if there is not."""
    name = reader.metric.name
    if not reader.rows.values[:, 1].any():
        return f"nothing was observed of {name}"
    if not readings:
        return "no treatment had traffic while the control had some"
    if all(np.isinf(each.width).all() for each in readings):
        return f"no replay had an interval of {name}, which takes {LEAST_VALUES} decisions of each arm, and more"
    return ""


def _covered(
    reader: _Reader, sequences: Sequence[_Holds], t_tests: Sequence[_Holds], widths: Sequence[Floats]
) -> Iterator[Covered]:
    arms = reader.setup.experiment.arms
    first, naive = (_percent(np.all([each.control for each in holds], axis=0)) for holds in (sequences, t_tests))
    yield Covered(arms[0].name, first, math.nan, naive, math.nan, math.nan)
    for compared, sequence, t_test, width in zip(reader.comparisons, sequences, t_tests, widths, strict=True):
        yield Covered(
            arms[compared.place].name,
            _percent(sequence.treatment),
            _percent(sequence.difference),
            _percent(t_test.treatment),
            _percent(t_test.difference),
            float(np.median(width)),
        )


def _percent(shares: Bools) -> float:
    return 100 * float(np.mean(shares))


def _error(percent: float, runs: int) -> float:
    """Return the standard error of a simulated percentage; not 0 where it is 0, as one more run could change it."""
    share = (percent / 100 * runs + 1) / (runs + 2)
    return 100 * math.sqrt(share * (1 - share) / runs)
