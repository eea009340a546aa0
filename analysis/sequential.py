"""Two arms compared at every look: intervals that hold however often they are read, on fixed and adaptive traffic.

Sums per period come from the engine, scores and confidence sequences from analysis.statistics. Looks are the ends of
the periods so far, of which the last one is now.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import bets, sums
from analysis.experiment import AnyMetric, Experiment
from analysis.fixed_horizon import Effect
from analysis.periods import Periods
from analysis.queries import Log
from analysis.source import Source
from analysis.statistics import effects
from analysis.statistics.adaptive import Scores, after_pilot, linearised, scores
from analysis.statistics.cells import Cells
from analysis.statistics.sequences import Interval, always_valid_p_values
from analysis.sums import ENTRIES, PAIRS, Scope, Sums

Floats = NDArray[np.float64]

_CONTROL, _TREATMENT = 0, 1
_VALUES = ("n", "d")


class Setup(NamedTuple):
    """What every comparison of an experiment shares."""

    experiment: Experiment
    log: Log
    periods: Periods
    units_return: bool
    """Whether a unit has several decisions."""
    confidence: float
    """Of each sequence."""


class Looks(NamedTuple):
    """A treatment beside the control after each period in which something was decided [looks].

    Estimates are nan, and their intervals infinite, until both arms have what a first score needs.
    """

    ends_ms: NDArray[np.int64]
    decisions: Floats
    """Of all arms, so far."""
    control: effects.Estimate
    """Mean of the control, had it got all traffic."""
    treatment: effects.Estimate
    difference: effects.Estimate
    lift: effects.Estimate
    """Treatment / control - 1."""
    log_e_values: Floats
    """Natural logarithms of the evidence against no difference."""
    p_values: Floats
    """Valid at all looks together, and so never rising."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether there are an estimate and an interval [looks]."""
        return np.isfinite(self.difference.value) & np.isfinite(self.difference.interval.low)

    @property
    def last(self) -> Effect | None:
        """The effect now; None while nothing can be said of it."""
        if not self.ends_ms.size or not self.known[-1]:
            return None
        return Effect(
            *_end(self.difference),
            *_percent(_end(self.lift)),
            float(self.p_values[-1]),
        )


class Metrics:
    """Compares treatments with the control in one metric after the other."""

    def __init__(self, source: Source, setup: Setup) -> None:
        self._source = source
        self._setup = setup
        self._decided: dict[tuple[Scope, int | None], list[dict[str, Any]]] = {}

    def compare(self, metric: AnyMetric) -> dict[int, Looks]:
        """Compare treatments with the control, by their numbers; without those that had no traffic when it had some."""
        found: dict[int, Looks] = {}
        for scope in scopes_of(self._setup):
            selected = sums.sums_of(self._setup.log, metric, scope)
            numbers, cells = self._read_cells(selected, scope, metric)
            if numbers.size:
                looks = self._compare(selected, numbers, cells)
                found |= dict(self._with_bets(selected, numbers, looks)) if self._bets_on(metric) else looks
        return found

    def _bets_on(self, metric: AnyMetric) -> bool:
        return bets.are_needed(self._setup.experiment, metric, units_return=self._setup.units_return)

    def _with_bets(
        self, selected: Sums, numbers: NDArray[np.int64], looks: Mapping[int, Looks]
    ) -> Iterator[tuple[int, Looks]]:
        """Yield looks with the intervals of betting in place of asymptotic ones, where that is possible."""
        experiment = self._setup.experiment
        rows = self._source.rows(sums.observed_by_epoch(selected))
        for number, each in looks.items():
            draws = bets.draws_of(rows, numbers, experiment, number)
            if draws is None:
                yield number, each
                continue
            found = bets.bets(draws, len(numbers), experiment.planned_decisions, 1 - self._setup.confidence)
            yield (
                number,
                each._replace(
                    control=bets.estimate(each.control.value, found.control),
                    treatment=bets.estimate(each.treatment.value, found.treatment),
                    difference=bets.estimate(each.difference.value, found.difference),
                    lift=bets.estimate(each.lift.value, found.lift),
                    log_e_values=found.log_e_values,
                    p_values=found.p_values,
                ),
            )

    def _compare(self, selected: Sums, numbers: NDArray[np.int64], cells: Cells) -> dict[int, Looks]:
        pairs = {place: pair_of(cells, place) for place in range(1, len(selected.arms))}
        products = self._read_unit_products(selected, numbers, pairs) if self._setup.units_return else {}
        ends = np.array([self._setup.periods.end_of(number) for number in numbers.tolist()], dtype=np.int64)
        # The last period goes on; what it holds was known when the result was read.
        ends[-1] = min(ends[-1], self._setup.log.now_ms)
        planned, alpha = self._setup.experiment.planned_decisions, 1 - self._setup.confidence
        return {
            selected.arms[place]: _looks(
                linearised(scores(pair, unit_products=products.get(place))), ends, pair.decisions, planned, alpha
            )
            for place, pair in pairs.items()
        }

    def _read_cells(self, selected: Sums, scope: Scope, metric: AnyMetric) -> tuple[NDArray[np.int64], Cells]:
        """Return the numbers of the periods with decisions [periods], and their sums of the scope's arms."""
        # Which decisions count depends on the window of a metric with a default, and on nothing else.
        key = scope, None if getattr(metric, "default", None) is None else metric.window_s
        if key not in self._decided:
            self._decided[key] = self._source.rows(sums.decided_cells(selected))
        return cells_of(self._decided[key], self._source.rows(sums.observed_cells(selected)), scope.arms)

    def _read_unit_products(
        self, selected: Sums, numbers: NDArray[np.int64], pairs: Mapping[int, Cells]
    ) -> dict[int, Floats]:
        """Return by how much each period changes the sum over units of X X' [periods, entries, entries], by place."""
        after = {place: after_pilot(pair) for place, pair in pairs.items()}
        firsts = {place: int(numbers[int(each.argmax())]) for place, each in after.items() if each.any()}
        changes = {place: np.zeros((len(numbers), ENTRIES, ENTRIES)) for place in pairs}
        index = {number: index for index, number in enumerate(numbers.tolist())}
        for row in self._source.rows(sums.unit_products(selected, firsts)) if firsts else ():
            for place in firsts:
                matrix = changes[place][index[row["period"]]]
                for i, j in PAIRS:
                    matrix[i, j] = matrix[j, i] = row[f"p{place}_{i}{j}"]
        return changes


def frame(looks: Looks) -> pd.DataFrame:
    """Return the looks that have an interval as rows; columns as `Report.contrast` says."""
    lift = np.stack([looks.lift.value, *looks.lift.interval])
    # Where the control's mean may be 0 there is no base.
    lift = np.where(np.isfinite(lift).all(axis=0), 100 * lift, math.nan)
    table = pd.DataFrame(
        {
            "time": pd.to_datetime(looks.ends_ms, unit="ms", utc=True),
            "decisions": looks.decisions.astype(np.int64),
            "control_mean": looks.control.value,
            "arm_mean": looks.treatment.value,
            "difference": looks.difference.value,
            "difference_low": looks.difference.interval.low,
            "difference_high": looks.difference.interval.high,
            "lift_percent": lift[0],
            "lift_low_percent": lift[1],
            "lift_high_percent": lift[2],
            "log_e_value": looks.log_e_values,
            "p_value": looks.p_values,
        }
    )
    return table.loc[looks.known].reset_index(drop=True)


def nothing() -> Looks:
    """Return no looks at all."""
    none = np.zeros(0)
    estimate = effects.Estimate(none, Interval(none, none))
    return Looks(none.astype(np.int64), none, estimate, estimate, estimate, estimate, none, none)


def scopes_of(setup: Setup) -> list[Scope]:
    """Return treatments together whose epochs with traffic beside the control are the same."""
    experiment, epochs = setup.experiment, setup.experiment.epochs
    together: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for position, arm in enumerate(experiment.treatments, start=1):
        comparable = sums.comparable_epochs(epochs, (0, position))
        if experiment.allocation == "contextual" and epochs:
            # Every request has shares of its own, of which none is 0.
            comparable = ((epochs[0].number, epochs[-1].number),)
        if comparable:
            together.setdefault(comparable, []).append(arm.number)
    control = experiment.control.number
    return [Scope((control, *arms), comparable, epochs, setup.periods) for comparable, arms in together.items()]


def _looks(found: Scores, ends: NDArray[np.int64], decided: Floats, planned: float, alpha: float) -> Looks:
    log_e_values = effects.log_evidence(found, _TREATMENT, _CONTROL, planned, alpha=alpha)
    return Looks(
        ends_ms=ends,
        decisions=np.cumsum(decided),
        control=effects.mean(found, _CONTROL, planned, alpha),
        treatment=effects.mean(found, _TREATMENT, planned, alpha),
        difference=effects.contrast(found, _TREATMENT, _CONTROL, planned, alpha),
        lift=effects.lift(found, _TREATMENT, _CONTROL, planned, alpha),
        log_e_values=log_e_values,
        p_values=always_valid_p_values(log_e_values),
    )


def cells_of(
    decided: Sequence[dict[str, Any]], observed: Sequence[dict[str, Any]], arms: Sequence[int]
) -> tuple[NDArray[np.int64], Cells]:
    """Return the numbers of the periods with decisions [periods], and their sums of these arms, from rows of both."""
    numbers = np.unique(np.array([row["period"] for row in decided], dtype=np.int64))
    period = {number: index for index, number in enumerate(numbers.tolist())}
    place = {number: index for index, number in enumerate(arms)}
    cells = _empty(len(numbers), len(arms))
    for row in decided:
        cells.decisions[period[row["period"]]] += row["decisions"]
        if row["arm"] in place:
            here = period[row["period"]], place[row["arm"]]
            cells.counts[here] = row["decisions"]
            cells.weights[here], cells.squared_weights[here] = row["weights"], row["squared_weights"]
    for row in observed:
        if row["arm"] in place:
            _add_observed(cells, (period[row["period"]], place[row["arm"]]), row)
    return numbers, cells


def pair_of(cells: Cells, place: int) -> Cells:
    """Return the sums of the first arm and of the one at this place; decisions are still those of all arms."""
    decisions, *per_arm = cells
    return Cells(decisions, *(np.take(each, [0, place], axis=1) for each in per_arm))


def _empty(periods: int, arms: int) -> Cells:
    per_arm, one = (periods, arms), np.zeros
    return Cells(
        decisions=one(periods),
        counts=one(per_arm),
        totals=one((*per_arm, 2)),
        squares=one((*per_arm, 2, 2)),
        weights=one(per_arm),
        weighted=one((*per_arm, 2)),
        squared_weights=one(per_arm),
        squared_weighted=one((*per_arm, 2)),
        products=one((*per_arm, 2, 2)),
    )


def _add_observed(cells: Cells, here: tuple[int, int], row: dict[str, Any]) -> None:
    for sums_, prefix in ((cells.totals, ""), (cells.weighted, "w"), (cells.squared_weighted, "ww")):
        sums_[here] = [row[f"{prefix}{value}"] for value in _VALUES]
    for products, prefix in ((cells.squares, ""), (cells.products, "ww")):
        cross = row[f"{prefix}nd"]
        products[here] = [[row[f"{prefix}nn"], cross], [cross, row[f"{prefix}dd"]]]


def _end(estimate: effects.Estimate) -> tuple[float, float, float]:
    return float(estimate.value[-1]), float(estimate.interval.low[-1]), float(estimate.interval.high[-1])


def _percent(ends: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return percents; nan where the control's mean may be 0, which is no base."""
    if not all(math.isfinite(end) for end in ends):
        return math.nan, math.nan, math.nan
    return 100 * ends[0], 100 * ends[1], 100 * ends[2]
