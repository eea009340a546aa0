"""Experiments that never were: decisions of many runs at once, with known truth, read at the looks that a report has.

Bandits are the router's own: shares from the evidence, quantised to its table of 10 000 buckets. A decision is made
every second, and periods are those of reports.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.periods import Periods
from analysis.statistics import replay
from analysis.statistics.buckets import BUCKETS, live_buckets
from analysis.statistics.cells import Cells, Visits
from analysis.statistics.thompson import Evidence, probabilities
from router.documents import Thompson

UNITS = 2_000
"""Units that return."""

_LOGARITHM_SD = 1.0
"""Of a lognormal outcome, the skewness of which is then 6.2."""
_UNIT_EFFECT = 0.05
_CLICK_SPREAD = 0.1
_SECOND_MS = 1000

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


class Setting(NamedTuple):
    """Traffic and outcomes; `equal` and `different` are the arms' parameters in two worlds."""

    name: str
    outcome: str
    equal: tuple[float, ...]
    different: tuple[float, ...]
    floor: float | None = None
    """A bandit's floor; fixed shares without one."""
    min_matured: int = 100
    shares: tuple[tuple[float, ...], ...] = ((0.5, 0.5),)
    """Fixed shares in equal parts of time."""
    delay: int = 0
    """Decisions after which an outcome is known to the bandit."""
    late: bool = False
    """Whether outcomes are labels that come late, with exponential delays of that mean, and are not known before."""
    returning: bool = False
    """Whether units return, always to the arm of their bucket, and are alike at each return."""
    epochs: int = 80
    """With a bandit the shares change after each of them."""
    batch: int = 200
    """Decisions in an epoch."""
    by_epoch: bool = False
    """Whether results are read after each epoch, instead of after each period of a report."""

    @property
    def decisions(self) -> int:
        """Decisions of one run: the planned size."""
        return self.epochs * self.batch

    @property
    def bounded(self) -> bool:
        """Whether outcomes are between 0 and 1, each by itself, and all known."""
        return self.outcome in {"binary", "rare binary"} and not self.returning and not self.late

    @property
    def moves(self) -> bool:
        """Whether shares change."""
        return self.floor is not None or len(self.shares) > 1

    @property
    def tables(self) -> Ints:
        """The epoch of each decision [decisions]."""
        return np.arange(self.decisions) // self.batch

    @property
    def periods(self) -> Ints:
        """The period of each decision [decisions]: of those in which there are decisions, from 0."""
        if self.by_epoch:
            return self.tables
        of_report = Periods(0, _SECOND_MS * (self.decisions - 1))
        numbers = [of_report.number(_SECOND_MS * decision) for decision in range(self.decisions)]
        return np.unique(numbers, return_inverse=True)[1]


class Log(NamedTuple):
    """What the analysis gets of many runs."""

    setting: Setting
    shares: Floats
    """Of each epoch [runs, epochs, arms]."""
    arms: Ints
    """[runs, decisions]."""
    values: Floats
    """Numerators and denominators [runs, decisions, 2]."""
    known: Ints
    """After how many decisions the values are known [runs, decisions]."""
    units: Ints | None = None
    """[runs, decisions], where units return."""

    @property
    def weights(self) -> Floats:
        """1 / share of the arm that was drawn [runs, decisions]."""
        return replay.Drawn(self.arms, self.shares).weights(self.setting.tables)

    @property
    def cells(self) -> Cells:
        """The sums over each period."""
        return self._cells(self.setting.periods, self.values)

    def cells_after(self, decisions: int) -> Cells:
        """Return the sums over each period so far, as they were known after so many decisions."""
        values = self.values * (self.known <= decisions)[..., np.newaxis]
        return self._cells(self.setting.periods[:decisions], values[:, :decisions])

    def _cells(self, periods: Ints, values: Floats) -> Cells:
        size, count = (int(periods[-1]) + 1, self.shares.shape[-1]), len(periods)
        return replay.decision_cells(periods, self.arms[:, :count], self.weights[:, :count], values, size)

    @property
    def by_table(self) -> tuple[Floats, Floats, Floats]:
        """Shares, decisions and sums of values of each epoch in each period, each [runs, both, arms]."""
        both, places = np.unique(np.stack([self.setting.periods, self.setting.tables]), axis=1, return_inverse=True)
        size = both.shape[1], self.shares.shape[-1]
        cells = replay.decision_cells(places, self.arms, np.ones(self.arms.shape), self.values, size)
        return self.shares[:, both[1]], cells.counts, cells.totals[..., 0]

    @property
    def known_shares(self) -> Floats:
        """The shares at the start of each period [runs, periods, arms]."""
        starts = np.flatnonzero(np.diff(self.setting.periods, prepend=-1))
        return np.asarray(self.shares[:, self.setting.tables[starts]])

    def first(self, runs: int) -> "Log":
        """Return the first runs."""
        return self._replace(
            shares=self.shares[:runs], arms=self.arms[:runs], values=self.values[:runs], known=self.known[:runs]
        )

    def visits(self, run: int) -> Visits:
        """Return the decisions of a run in which units returned."""
        if self.units is None:
            raise ValueError("units did not return")
        one = self._replace(shares=self.shares[run : run + 1], arms=self.arms[run : run + 1])
        periods, arms = self.setting.periods, self.shares.shape[-1]
        return replay.visits_of(self.units[run], periods, self.arms[run], one.weights[0], self.values[run], arms)


def settings() -> list[Setting]:
    """Return every kind of traffic and outcome."""
    same, better = (0.10, 0.10), (0.10, 0.12)
    ramp = ((0.95, 0.05), (0.9, 0.1), (0.75, 0.25), (0.5, 0.5))
    arms, published = (0.11, 0.11, 0.11), (0.10, 0.11, 0.13)
    bandit = Setting("Thompson 5 %", "binary", arms, published, floor=0.05, epochs=40, batch=400)
    few = bandit._replace(epochs=20, batch=500, min_matured=0)
    return [
        Setting("A/A, fixed split", "binary", same, better),
        Setting("A/A, fixed split", "rare binary", (0.01, 0.01), (0.01, 0.015)),
        Setting("A/A, fixed split", "lognormal", (1.0, 1.0), (1.0, 1.1)),
        Setting("A/A, fixed split", "ratio", (0.2, 0.2), (0.2, 0.215)),
        Setting("A/A, labels that arrive late", "binary", same, better, delay=2_000, late=True),
        Setting("ramp from 5 %", "binary", same, better, shares=ramp),
        Setting("ramp from 5 %", "lognormal", (1.0, 1.0), (1.0, 1.1), shares=ramp),
        Setting("ramp from 5 %", "ratio", (0.2, 0.2), (0.2, 0.215), shares=ramp),
        Setting("units return", "binary", same, (0.10, 0.14), returning=True),
        Setting("units return, ramp", "binary", same, (0.10, 0.14), returning=True, shares=ramp),
        bandit,
        bandit._replace(name="Thompson 1 %", floor=0.01),
        bandit._replace(name="Thompson 5 %, delay of 5 epochs", delay=2_000),
        bandit._replace(name="Thompson 5 %, labels that arrive late", delay=2_000, late=True),
        bandit._replace(outcome="lognormal", equal=(1.0, 1.0), different=(1.0, 1.1)),
        few._replace(name="Thompson 5 %, 20 epochs"),
        few._replace(name="Thompson 1 %, 20 epochs", floor=0.01),
    ]


def draw_values(outcome: str, parameter: Floats, generator: np.random.Generator) -> Floats:
    """Return numerators and denominators [.., 2] for each parameter [..], which is the ratio of their sums."""
    match outcome:
        case "binary" | "rare binary":
            value = (generator.random(parameter.shape) < parameter).astype(np.float64)
        case "lognormal":
            noise = np.exp(_LOGARITHM_SD * generator.standard_normal(parameter.shape) - _LOGARITHM_SD**2 / 2)
            value = parameter * noise
        case "ratio":
            views = 1 + generator.poisson(2.0, parameter.shape)
            rate = parameter + _CLICK_SPREAD * generator.uniform(-1, 1, parameter.shape)
            return np.stack([generator.binomial(views, rate), views], axis=-1).astype(np.float64)
        case _:
            raise ValueError(f"no outcomes are called {outcome!r}")
    return np.stack([value, np.ones(value.shape)], axis=-1)


def play(setting: Setting, truth: Sequence[float], runs: int, generator: np.random.Generator) -> Log:
    """Play one world, several runs at a time."""
    parameters, shape = np.array(truth), (runs, setting.decisions)
    units = generator.integers(UNITS, size=shape)
    effects = _UNIT_EFFECT * generator.choice([-1.0, 1.0], (runs, UNITS))
    own = np.take_along_axis(effects, units, axis=1) if setting.returning else np.zeros(shape)
    # An arm has the places below the sum of shares, so that a share that grows keeps its units.
    buckets = generator.random((runs, UNITS))
    places = np.take_along_axis(buckets, units, axis=1) if setting.returning else generator.random(shape)
    delays = generator.exponential(setting.delay, shape) if setting.late else np.full(shape, setting.delay)
    known = np.arange(1, setting.decisions + 1) + delays.astype(np.intp)
    shares = np.zeros((runs, setting.epochs, len(truth)))
    arms, values = np.zeros(shape, dtype=np.intp), np.zeros((*shape, 2))
    for epoch in range(setting.epochs):
        first, last = epoch * setting.batch, (epoch + 1) * setting.batch
        shares[:, epoch] = _shares(setting, epoch, arms[:, :first], values[:, :first, 0], known[:, :first] <= first)
        arms[:, first:last] = replay.draw(places[:, first:last], shares[:, epoch, np.newaxis])
        chosen = parameters[arms[:, first:last]] + own[:, first:last]
        values[:, first:last] = draw_values(setting.outcome, chosen, generator)
    return Log(setting, shares, arms, values, known, units if setting.returning else None)


def _shares(setting: Setting, epoch: int, arms: Ints, values: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return the shares of each run's next epoch [runs, arms], from decisions so far and whether they are known."""
    if setting.floor is None:
        return np.tile(np.array(setting.shares[epoch * len(setting.shares) // setting.epochs]), (len(arms), 1))
    allocation = Thompson(metric="reward", floor=setting.floor, min_matured=setting.min_matured)
    cell = np.where(known, np.arange(len(arms))[:, np.newaxis] * len(setting.equal) + arms, -1)
    shape = len(arms), len(setting.equal)
    n, total, squares = (
        np.bincount(cell[known], each, minlength=math.prod(shape)).reshape(shape).astype(np.float64)
        for each in (None, values[known], values[known] ** 2)
    )
    return np.array([_table(allocation, setting.outcome, *run) for run in zip(n, total, squares, strict=True)])


def _table(allocation: Thompson, outcome: str, n: Floats, total: Floats, squares: Floats) -> list[float]:
    """Return the arms' parts of a bandit's table of buckets."""
    columns = zip(n.tolist(), total.tolist(), squares.tolist(), strict=True)
    evidence = [Evidence(count, sum_, square, math.ceil(count)) for count, sum_, square in columns]
    kind = "binary" if outcome == "binary" else "numeric"
    *counts, _ = live_buckets(probabilities(allocation, kind, "increase", evidence))
    return [count / BUCKETS for count in counts]
