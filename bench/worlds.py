"""Experiments that never were: traffic and outcomes of many runs at once, as sums per period, with known truth.

Bandits are the router's own: shares from the evidence, quantised to its table of 10 000 buckets.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.cells import Cells, Visits, cells_of
from analysis.statistics.thompson import Evidence, probabilities
from router.allocation.tables import live_counts
from router.assignment.hashing import BUCKETS
from router.documents import Thompson

UNITS = 2_000
"""Units that return."""

_LOGARITHM_SD = 1.0
"""Of a lognormal outcome, the skewness of which is then 6.2."""
_UNIT_EFFECT = 0.05
_CLICK_SPREAD = 0.1

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
    """Periods after which an outcome is known to the bandit."""
    returning: bool = False
    """Whether units return, always to the arm of their bucket, and are alike at each return."""
    looks: int = 80
    """Periods, after each of which the results are read and, with a bandit, the shares change."""
    batch: int = 200
    """Decisions in a period."""

    @property
    def decisions(self) -> int:
        """Decisions of one run: the planned size."""
        return self.looks * self.batch

    @property
    def bounded(self) -> bool:
        """Whether outcomes are between 0 and 1, and each by itself."""
        return self.outcome in {"binary", "rare binary"} and not self.returning

    @property
    def moves(self) -> bool:
        """Whether shares change."""
        return self.floor is not None or len(self.shares) > 1


class Log(NamedTuple):
    """What the analysis gets: propensities and counts [runs, periods, arms], sums and products of values."""

    propensities: Floats
    counts: Floats
    totals: Floats
    products: Floats
    units: Ints | None = None
    """Unit of each decision [runs, decisions], where units return, and then its arm and values, too."""
    arms: Ints | None = None
    values: Floats | None = None

    @property
    def cells(self) -> Cells:
        """The sums that scores need."""
        return cells_of(self.propensities, self.counts, self.totals, self.products)

    def first(self, runs: int) -> "Log":
        """Return the sums of the first runs."""
        return Log(self.propensities[:runs], self.counts[:runs], self.totals[:runs], self.products[:runs])

    def visits(self, run: int) -> Visits:
        """Return the decisions of a run in which units returned."""
        if self.units is None or self.arms is None or self.values is None:
            raise ValueError("units did not return")
        periods = np.repeat(np.arange(self.counts.shape[1]), self.units.shape[1] // self.counts.shape[1])
        mine = self.arms[run][:, np.newaxis] == np.arange(self.counts.shape[2])
        weight = mine / self.propensities[run, periods]
        weighted = weight[..., np.newaxis] * self.values[run][:, np.newaxis, :]
        return Visits(self.units[run], periods, np.ones(len(periods)), weight, weighted)


def settings() -> list[Setting]:
    """Return every kind of traffic and outcome."""
    same, better = (0.10, 0.10), (0.10, 0.12)
    ramp = ((0.95, 0.05), (0.9, 0.1), (0.75, 0.25), (0.5, 0.5))
    arms, published = (0.11, 0.11, 0.11), (0.10, 0.11, 0.13)
    bandit = Setting("Thompson 5 %", "binary", arms, published, floor=0.05, looks=40, batch=400)
    few = bandit._replace(looks=20, batch=500, min_matured=0)
    return [
        Setting("A/A, fixed split", "binary", same, better),
        Setting("A/A, fixed split", "rare binary", (0.01, 0.01), (0.01, 0.015)),
        Setting("A/A, fixed split", "lognormal", (1.0, 1.0), (1.0, 1.1)),
        Setting("A/A, fixed split", "ratio", (0.2, 0.2), (0.2, 0.215)),
        Setting("ramp from 5 %", "binary", same, better, shares=ramp),
        Setting("ramp from 5 %", "lognormal", (1.0, 1.0), (1.0, 1.1), shares=ramp),
        Setting("ramp from 5 %", "ratio", (0.2, 0.2), (0.2, 0.215), shares=ramp),
        Setting("units return", "binary", same, (0.10, 0.14), returning=True),
        Setting("units return, ramp", "binary", same, (0.10, 0.14), returning=True, shares=ramp),
        bandit,
        bandit._replace(name="Thompson 1 %", floor=0.01),
        bandit._replace(name="Thompson 5 %, delay of 5 looks", delay=5),
        bandit._replace(outcome="lognormal", equal=(1.0, 1.0), different=(1.0, 1.1)),
        few._replace(name="Thompson 5 %, 20 looks"),
        few._replace(name="Thompson 1 %, 20 looks", floor=0.01),
    ]


def draw_values(outcome: str, parameter: Floats, generator: np.random.Generator) -> Floats:
    """Return values [.., values] for each parameter [..], which is their mean, or the ratio of their sums."""
    match outcome:
        case "binary" | "rare binary":
            return (generator.random(parameter.shape) < parameter)[..., np.newaxis].astype(np.float64)
        case "lognormal":
            noise = np.exp(_LOGARITHM_SD * generator.standard_normal(parameter.shape) - _LOGARITHM_SD**2 / 2)
            return np.asarray((parameter * noise)[..., np.newaxis])
        case "ratio":
            views = 1 + generator.poisson(2.0, parameter.shape)
            rate = parameter + _CLICK_SPREAD * generator.uniform(-1, 1, parameter.shape)
            return np.stack([generator.binomial(views, rate), views], axis=-1).astype(np.float64)
        case _:
            raise ValueError(f"no outcomes are called {outcome!r}")


def play(setting: Setting, truth: Sequence[float], runs: int, generator: np.random.Generator) -> Log:
    """Play one world, several runs at a time."""
    parameters, numbers = np.array(truth), np.arange(len(truth))
    buckets = generator.random((runs, UNITS))
    effects = _UNIT_EFFECT * generator.choice([-1.0, 1.0], (runs, UNITS))
    seen: list[tuple[Floats, ...]] = []
    rows: list[tuple[Ints, Ints, Floats]] = []
    for look in range(setting.looks):
        shares = _shares(setting, seen[: max(look - setting.delay, 0)], look, (runs, len(truth)))
        unit = generator.integers(UNITS, size=(runs, setting.batch))
        place = np.take_along_axis(buckets, unit, axis=1) if setting.returning else generator.random(unit.shape)
        # An arm has the places below the sum of shares, so that a share that grows keeps its units.
        arm = (place[..., np.newaxis] >= np.cumsum(shares, axis=1)[:, np.newaxis, :-1]).sum(axis=-1)
        own = np.take_along_axis(effects, unit, axis=1) if setting.returning else 0.0
        values = draw_values(setting.outcome, parameters[arm] + own, generator)
        mine = (arm[..., np.newaxis] == numbers).astype(np.float64)
        products = np.einsum("rba,rbv,rbw->ravw", mine, values, values)
        seen.append((shares, mine.sum(axis=1), np.einsum("rba,rbv->rav", mine, values), products))
        if setting.returning:
            rows.append((unit, arm, values))
    propensities, counts, totals, squares = (np.stack(each, axis=1) for each in zip(*seen, strict=True))
    log = Log(propensities, counts, totals, squares)
    if not setting.returning:
        return log
    units, arms, outcomes = (np.concatenate(each, axis=1) for each in zip(*rows, strict=True))
    return log._replace(units=units, arms=arms, values=outcomes)


def _shares(setting: Setting, known: list[tuple[Floats, ...]], look: int, shape: tuple[int, int]) -> Floats:
    """Return the shares of each run's next period [runs, arms]."""
    if setting.floor is None:
        return np.tile(np.array(setting.shares[look * len(setting.shares) // setting.looks]), (shape[0], 1))
    allocation = Thompson(metric="reward", floor=setting.floor, min_matured=setting.min_matured)
    n, total, squares = (np.zeros(shape) for _ in range(3))
    for _, counts, totals, products in known:
        n, total, squares = n + counts, total + totals[..., 0], squares + products[..., 0, 0]
    return np.array([_table(allocation, setting.outcome, *run) for run in zip(n, total, squares, strict=True)])


def _table(allocation: Thompson, outcome: str, n: Floats, total: Floats, squares: Floats) -> list[float]:
    """Return the arms' parts of a bandit's table of buckets."""
    columns = zip(n.tolist(), total.tolist(), squares.tolist(), strict=True)
    evidence = [Evidence(count, sum_, square, math.ceil(count)) for count, sum_, square in columns]
    kind = "binary" if outcome == "binary" else "numeric"
    counts = live_counts(0.0, dict(enumerate(probabilities(allocation, kind, "increase", evidence))), len(evidence))
    return [counts[arm] / BUCKETS for arm in range(len(evidence))]
