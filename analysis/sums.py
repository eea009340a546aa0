"""Sums per period of what confidence sequences of arms are made of, as queries: no decision leaves the engine.

A decision that nothing was observed of counts as 0 observed. Weights are 1 / propensity among the units that were not
held out (analysis.statistics.adaptive).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations_with_replacement, groupby
from typing import NamedTuple

import ibis
import ibis.expr.types as ir

from analysis import queries
from analysis.experiment import AnyMetric, BinaryMetric, Epoch, NumericMetric, RatioMetric
from analysis.periods import Periods
from analysis.queries import Log

ENTRIES = 5
"""Of a unit's sum: the constant, and numerator and denominator of the control's score and of a treatment's."""

PAIRS = tuple(combinations_with_replacement(range(ENTRIES), 2))
"""Of entries: on and above the diagonal of a matrix."""

_VALUES = ("n", "d")
_CELL = ("period", "arm", "weight")
_NOTHING = ibis.literal(0).cast("float64")


class Scope(NamedTuple):
    """Arms, the control first, and the epochs in which all of them could be drawn, as (first, last) numbers."""

    arms: tuple[int, ...]
    comparable: tuple[tuple[int, int], ...]
    epochs: tuple[Epoch, ...]
    """All of them."""
    periods: Periods


class Sums(NamedTuple):
    """The decisions of a metric in a scope, and what was observed of them."""

    decided: ir.Table
    """period, arm, weight, unit, epoch."""
    observed: ir.Table
    """The same and numerator, denominator: one row per decision."""
    arms: tuple[int, ...]


def comparable_epochs(epochs: Sequence[Epoch], positions: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return runs of epochs, (first, last), in which the arms at these positions all had a share."""
    there = ((epoch.number, all(epoch.shares[position] > 0 for position in positions)) for epoch in epochs)
    return tuple(
        _ends(number for number, _ in run) for has_share, run in groupby(there, lambda each: each[1]) if has_share
    )


def sums_of(log: Log, metric: AnyMetric, scope: Scope) -> Sums:
    """Select the decisions of a scope with their periods and weights."""
    decided = _placed(queries.counted_decisions(log, metric), scope)
    observed = _placed(queries.observations(log, metric), scope)
    if not _is_per_decision(metric):
        per_decision = observed.group_by("decision_id", *_CELL, "unit", "epoch")
        observed = per_decision.aggregate(
            numerator=observed["numerator"].sum(), denominator=observed["denominator"].sum()
        )
    columns = (*_CELL, "unit", "epoch")
    return Sums(decided.select(*columns), observed.select(*columns, "numerator", "denominator"), scope.arms)


def decided_cells(sums: Sums) -> ir.Table:
    """Per period and arm: decisions, and sums of weights and of their squares."""
    decided, weight = sums.decided, sums.decided["weight"]
    return decided.group_by("period", "arm").aggregate(
        decisions=decided.count(), weights=weight.sum(), squared_weights=(weight * weight).sum()
    )


def observed_cells(sums: Sums) -> ir.Table:
    """Per period and arm: sums of numerators n and denominators d, and of products with each other and weights w."""
    observed = sums.observed
    w, n, d = observed["weight"], observed["numerator"], observed["denominator"]
    return observed.group_by("period", "arm").aggregate(
        n=n.sum(),
        d=d.sum(),
        nn=(n * n).sum(),
        nd=(n * d).sum(),
        dd=(d * d).sum(),
        wn=(w * n).sum(),
        wd=(w * d).sum(),
        wwn=(w * w * n).sum(),
        wwd=(w * w * d).sum(),
        wwnn=(w * w * n * n).sum(),
        wwnd=(w * w * n * d).sum(),
        wwdd=(w * w * d * d).sum(),
    )


def observed_by_epoch(sums: Sums) -> ir.Table:
    """Per period, epoch and arm: sums of numerators n and denominators d, and of squares of those, dd."""
    observed, d = sums.observed, sums.observed["denominator"]
    return observed.group_by("period", "epoch", "arm").aggregate(
        n=observed["numerator"].sum(), d=d.sum(), dd=(d * d).sum()
    )


def unit_products(sums: Sums, firsts: Mapping[int, int]) -> ir.Table:
    """Per period: by how much it changes the sum over units of X X', X being a unit's sum so far beside the control.

    Takes the first period that counts, by the place of the treatment among the arms. Columns are period and p1_02 for
    the treatment at place 1 and the entries 0 and 2, and so on.
    """
    rows = _rows(sums)
    entries = _unit_entries(rows, _past_means(rows), firsts)
    so_far = ibis.cumulative_window(group_by="unit", order_by="period")
    names = [name for name in entries.columns if name.startswith("x")]
    known = entries.mutate(**{f"s{name}": entries[name].sum().over(so_far) for name in names})
    return known.group_by("period").aggregate(
        **{
            f"p{place}_{i}{j}": _change(known, f"x{place}_{i}", f"x{place}_{j}").sum()
            for place in firsts
            for i, j in PAIRS
        }
    )


def _change(known: ir.Table, first: str, second: str) -> ir.Value:
    """By how much the product of two running sums changes."""
    before = (known[f"s{first}"] - known[first]) * (known[f"s{second}"] - known[second])
    return known[f"s{first}"] * known[f"s{second}"] - before


def _placed(rows: ir.Table, scope: Scope) -> ir.Table:
    if not _are_all(scope.comparable, scope.epochs):
        rows = rows.filter(_is_in(rows["epoch"], scope.comparable))
    weight = _drawn(rows["epoch"], scope.epochs) / rows["propensity"]
    return rows.mutate(period=scope.periods.number_of(rows["decided_ms"]), weight=weight)


def _are_all(runs: Sequence[tuple[int, int]], epochs: Sequence[Epoch]) -> bool:
    return len(runs) == 1 and runs[0] == (epochs[0].number, epochs[-1].number)


def _is_in(epoch: ir.Value, runs: Iterable[tuple[int, int]]) -> ir.Value:
    return ibis.or_(*(epoch.between(first, last) for first, last in runs))


def _drawn(epoch: ir.Value, epochs: Sequence[Epoch]) -> ir.Value:
    """The part of the units that was not held out when the epoch was drawn from."""
    runs = [(part, _ends(each.number for each in run)) for part, run in groupby(epochs, lambda each: each.drawn)]
    *earlier, (latest, _) = runs
    if not earlier:
        return ibis.literal(latest).cast("float64")
    cases = [(epoch <= last, ibis.literal(part).cast("float64")) for part, (_, last) in earlier]
    return ibis.cases(*cases, else_=ibis.literal(latest).cast("float64"))


def _ends(numbers: Iterator[int]) -> tuple[int, int]:
    every = list(numbers)
    return every[0], every[-1]


def _is_per_decision(metric: AnyMetric) -> bool:
    match metric:
        case RatioMetric():
            return True
        case BinaryMetric() | NumericMetric():
            return metric.default is not None
        case _:
            return False


def _rows(sums: Sums) -> ir.Table:
    """Decisions and what was observed of them, below each other: unit, period, decisions, and sums of each arm.

    Those are c0 (decisions), n0, d0 and w0, wn0, wd0, which are weighted, and the same of the other arms.
    """
    decided, observed = sums.decided, sums.observed
    both = [
        decided.select("unit", "period", decisions=_one(), **_of_arms(decided, sums.arms, _one(), _NOTHING, _NOTHING)),
        observed.select(
            "unit",
            "period",
            decisions=_NOTHING,
            **_of_arms(observed, sums.arms, _NOTHING, observed["numerator"], observed["denominator"]),
        ),
    ]
    # Engines must be told that a column may be null in either part, or in none.
    kinds = {
        name: "string" if name == "unit" else "int64" if name == "period" else "float64" for name in both[0].columns
    }
    return ibis.union(*(rows.cast(kinds) for rows in both))


def _one() -> ir.Value:
    return ibis.literal(1).cast("float64")


def _of_arms(
    rows: ir.Table, arms: tuple[int, ...], count: ir.Value, numerator: ir.Value, denominator: ir.Value
) -> dict[str, ir.Value]:
    weight = rows["weight"]
    values = {"c": count, "n": numerator, "d": denominator}
    values |= {"w": weight * count, "wn": weight * numerator, "wd": weight * denominator}
    return {
        f"{name}{place}": ibis.ifelse(rows["arm"] == arm, value, _NOTHING)
        for place, arm in enumerate(arms)
        for name, value in values.items()
    }


def _past_means(rows: ir.Table) -> ir.Table:
    """Per period: means of each arm's numerators and denominators in earlier periods, mn0, md0 and so on."""
    places = _places(rows)
    names = [f"{name}{place}" for place in places for name in ("c", *_VALUES)]
    period = rows.group_by("period").aggregate(**{name: rows[name].sum() for name in names})
    so_far = ibis.cumulative_window(order_by="period")
    earlier = period.select("period", **{name: period[name].sum().over(so_far) - period[name] for name in names})
    means = {
        f"m{name}{place}": (earlier[f"{name}{place}"] / earlier[f"c{place}"].nullif(0.0)).fill_null(0.0)
        for place in places
        for name in _VALUES
    }
    return earlier.select("period", **means)


def _unit_entries(rows: ir.Table, means: ir.Table, firsts: Mapping[int, int]) -> ir.Table:
    """Per unit and period: the entries x1_0 to x1_4 of its sum of scores beside the first treatment, and so on."""
    counted = rows.filter(rows["period"] >= min(firsts.values()))
    names = ["decisions", *(f"{name}{place}" for place in _places(rows) for name in ("w", "wn", "wd"))]
    units = counted.group_by("unit", "period").aggregate(**{name: counted[name].sum() for name in names})
    joined = units.join(means, "period")
    scores = joined.select(
        "unit",
        "period",
        "decisions",
        **{f"{name}{place}": _score(joined, name, place) for place in _places(rows) for name in _VALUES},
    )
    entries = {
        f"x{place}_{entry}": ibis.ifelse(scores["period"] >= first, scores[name], _NOTHING)
        for place, first in firsts.items()
        for entry, name in enumerate(("decisions", "n0", "d0", f"n{place}", f"d{place}"))
    }
    return scores.select("unit", "period", **entries)


def _score(units: ir.Table, name: str, place: int) -> ir.Value:
    mean = units[f"m{name}{place}"]
    return units["decisions"] * mean + units[f"w{name}{place}"] - units[f"w{place}"] * mean


def _places(rows: ir.Table) -> range:
    return range(sum(name.startswith("c") for name in rows.columns))
