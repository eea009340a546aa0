"""Do inputs, predictions and labels still look as they did? By statistics of `analysis.statistics.drift`.

Every unit counts once, by its first decision of a period: many rows of one unit would alarm too often.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.experiment import Experiment, ScoreMetric
from analysis.queries import Log
from analysis.shadow_sums import item_of
from analysis.source import Source
from analysis.statistics.drift import (
    NOTABLE_STABILITY_INDEX,
    Drift,
    Drifts,
    categorical_drift,
    compare_features,
    numeric_drift,
    quantile_edges,
)

Floats = NDArray[np.float64]

BINS = 20
"""Of equal width between the extremes of the reference, and one more on each side."""

_FEW_VALUES = 12
"""A number with no more values than this is a category."""

_ANY_ARM = 0
_NOTHING = numeric_drift([0], [0])


class Found(NamedTuple):
    """Drift of every distribution, which of them count as found, and a sentence."""

    drifts: Drifts
    found: tuple[str, ...]
    reason: str

    def frame(self) -> pd.DataFrame:
        """One row per distribution: what was compared, the columns of `Drift`, adjusted_p_value and drifted."""
        rows = [
            {"feature": name, **drift._asdict(), "adjusted_p_value": self.drifts.adjusted[name]}
            for name, drift in self.drifts.features.items()
        ]
        frame = pd.DataFrame(rows, columns=pd.Index(["feature", *Drift._fields, "adjusted_p_value"]))
        return frame.assign(drifted=frame["feature"].isin(self.found))


def compare_frames(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    rate: float = 0.05,
    index: float = NOTABLE_STABILITY_INDEX,
) -> Found:
    """Compare the columns that both frames have, such as a dataset version and `recent_inputs`.

    Numbers by Kolmogorov-Smirnov in bins that hold equal parts of the reference, others and numbers with few values by
    chi-square. Missing values are a distribution of their own, where there are any. Both need one row per unit.

    Args:
        reference: what it looked like.
        current: what it looks like.
        rate: of false discoveries among all columns.
        index: least stability index, beyond what chance makes of so many rows, that is called drift.
    """
    return compare_pairs([(reference, current)], rate=rate, index=index)


def compare_pairs(
    pairs: Iterable[tuple[pd.DataFrame, pd.DataFrame]], *, rate: float = 0.05, index: float = NOTABLE_STABILITY_INDEX
) -> Found:
    """Compare the columns of each pair of frames, reference first, as `compare_frames` does, and judge all together."""
    drifts: dict[str, Drift] = {}
    for reference, current in pairs:
        for column in (column for column in reference.columns if column in current.columns):
            drifts |= _compare_column(str(column), reference[column], current[column])
    return _found(drifts, rate, index)


def compare_periods(
    source: Source,
    log: Log,
    experiment: Experiment,
    metric: ScoreMetric,
    at_ms: int,
    *,
    rate: float = 0.05,
    index: float = NOTABLE_STABILITY_INDEX,
) -> Found:
    """Compare each arm's predictions, and the labels of a score, before a moment with those from it on.

    Predictions of each arm by themselves: those of all would drift whenever shares move. Of a list its first item
    counts. Bins are counted in the engine. Arguments as for `compare_frames`.
    """
    by_arm = _counts_per_bin(source, _first_of_units(_predictions(log), at_ms))
    labels = _counts_per_bin(source, _first_of_units(_labels(log, metric.label), at_ms))
    drifts = {f"prediction of {arm.name}": by_arm.get(arm.number, _NOTHING) for arm in experiment.arms}
    drifts[f"label {metric.label}"] = labels.get(_ANY_ARM, _NOTHING)
    return _found(drifts, rate, index)


def recent_inputs(source: Source, log: Log, most: int = 10_000) -> pd.DataFrame:
    """Read the first input of the latest decision of so many units at most: the rows that `compare_frames` needs.

    Which features there are is known to models and not to the ledger, which has them as JSON: so rows leave the engine.
    """
    latest = _latest_of_units(log.decisions, "inputs", most=most)
    return pd.DataFrame([json.loads(row["inputs"])[0] for row in source.rows(latest)])


def recent_predictions(source: Source, log: Log, model: str, most: int = 10_000) -> pd.DataFrame:
    """Read the model's first prediction in the latest decision of so many units at most: a column `prediction`.

    Of one model only: those of all would drift whenever shares move.
    """
    served = _predictions(log._replace(decisions=log.decisions.filter(log.decisions["served_model"] == model)))
    rows = source.rows(_latest_of_units(served.rename(prediction="value"), "prediction", most=most))
    return pd.DataFrame(rows, columns=pd.Index(["prediction"]), dtype=float)


def recent_labels(source: Source, log: Log, label: str, most: int = 10_000) -> pd.DataFrame:
    """Read the label of the latest decision that has one, of so many units at most: a column of the label's name."""
    rows = source.rows(_latest_of_units(_labels(log, label).rename({label: "value"}), label, most=most))
    return pd.DataFrame(rows, columns=pd.Index([label]), dtype=float)


def recent_judged(source: Source, log: Log, label: str, model: str, most: int = 10_000) -> pd.DataFrame:
    """Read what the model had predicted where a label is known, as `recent_labels` does: `prediction` and the label."""
    known = _labels(log._replace(decisions=log.decisions.filter(log.decisions["served_model"] == model)), label)
    judged = known.filter(known["prediction"].notnull()).rename({label: "value"})
    rows = source.rows(_latest_of_units(judged, "prediction", label, most=most))
    return pd.DataFrame(rows, columns=pd.Index(["prediction", label]), dtype=float)


def _latest_of_units(rows: ir.Table, *columns: str, most: int) -> ir.Table:
    order = ibis.row_number().over(group_by=rows["unit"], order_by=rows["id"].desc())
    numbered = rows.select("id", *columns, order=order)
    return numbered.filter(numbered["order"] == 0).order_by(ibis.desc("id")).limit(most).select(*columns)


def _compare_column(name: str, before: "pd.Series[float]", after: "pd.Series[float]") -> dict[str, Drift]:
    drifts = {name: _compare(before.dropna(), after.dropna())}
    if before.isna().any() or after.isna().any():
        missing = [[side.notna().sum(), side.isna().sum()] for side in (before, after)]
        drifts[f"{name} is missing"] = categorical_drift(*missing)
    return drifts


def _compare(before: "pd.Series[float]", after: "pd.Series[float]") -> Drift:
    is_number = pd.api.types.is_numeric_dtype(before) and pd.api.types.is_numeric_dtype(after)
    if is_number and len(before) and before.nunique() > _FEW_VALUES:
        edges = quantile_edges(before.to_numpy(dtype=np.float64), BINS)
        counts = [
            np.bincount(np.searchsorted(edges, side.to_numpy(dtype=np.float64), side="right"), minlength=edges.size + 1)
            for side in (before, after)
        ]
        return numeric_drift(*counts)
    counted = [side.astype(float if is_number else str).value_counts() for side in (before, after)]
    categories = counted[0].index.union(counted[1].index)
    return categorical_drift(*(each.reindex(categories, fill_value=0).to_numpy() for each in counted))


def _predictions(log: Log) -> ir.Table:
    decisions = log.decisions.filter(log.decisions["predictions"].notnull())
    first = item_of(decisions["predictions"], ibis.literal(0).cast("int64"))
    return decisions.select("id", "unit", "arm", "decided_ms", value=first)


def _labels(log: Log, label: str) -> ir.Table:
    said = log.outcomes.filter(log.outcomes["metric"] == label, log.outcomes["item"] == 0)
    # Of repeated labels the mean, as scores have it.
    each = said.group_by("decision_id").aggregate(value=said["value"].mean())
    joined = each.join(log.decisions, each["decision_id"] == log.decisions["id"])
    # Labels are the same whichever arm predicted them, so that a unit counts once over all arms.
    # Outcomes name the prediction only where an experiment scores it.
    first = item_of(joined["predictions"], ibis.literal(0).cast("int64"))
    return joined.select(
        "id", "unit", "decided_ms", "value", prediction=first, arm=ibis.literal(_ANY_ARM).cast("int64")
    )


def _first_of_units(rows: ir.Table, at_ms: int) -> ir.Table:
    """The first row of each unit and arm in either period: arm, is_late, value."""
    placed = rows.mutate(is_late=ibis.ifelse(rows["decided_ms"] >= at_ms, 1, 0))
    order = ibis.row_number().over(group_by=[placed["unit"], placed["arm"], placed["is_late"]], order_by=placed["id"])
    numbered = placed.select("arm", "is_late", "value", order=order)
    return numbered.filter(numbered["order"] == 0).drop("order")


def _counts_per_bin(source: Source, rows: ir.Table) -> dict[int, Drift]:
    """The drift of the values of each arm that has any before the moment."""
    before = rows.filter(rows["is_late"] == 0)
    extremes = source.rows(
        before.group_by("arm").aggregate(
            low=before["value"].min(), high=before["value"].max(), values=before["value"].nunique()
        )
    )
    if not extremes:
        return {}
    placed = rows.mutate(place=ibis.cases(*((rows["arm"] == row["arm"], _place(rows, row)) for row in extremes)))
    counted = placed.group_by("arm", "is_late", "place").aggregate(count=placed.count())
    counts = {row["arm"]: np.zeros((2, BINS + 2)) for row in extremes}
    for row in source.rows(counted):
        if row["place"] is not None:
            counts[row["arm"]][row["is_late"], row["place"]] = row["count"]
    is_category = {row["arm"]: row["values"] <= 2 for row in extremes}
    return {arm: (categorical_drift if is_category[arm] else numeric_drift)(*each) for arm, each in counts.items()}


def _place(rows: ir.Table, extremes: Mapping[str, float]) -> ir.Value:
    """The number of the bin: 0 is below the reference, and the greatest above it."""
    low, high, value = extremes["low"], extremes["high"], rows["value"]
    # One value alone is a bin that ends with it.
    inner = ((value - low) / ((high - low) or 1.0) * BINS).floor().cast("int64")
    return ibis.cases((value < low, 0), (value > high, BINS + 1), (value == high, BINS), else_=inner + 1)


def _found(drifts: Mapping[str, Drift], rate: float, index: float) -> Found:
    compared = compare_features(drifts)
    found = compared.found(rate, index)
    return Found(compared, found, _sentence(drifts, found, index))


def _sentence(drifts: Mapping[str, Drift], found: tuple[str, ...], index: float) -> str:
    known = {name: drift for name, drift in drifts.items() if not math.isnan(drift.stability_index)}
    if not known:
        return "not enough evidence: nothing has rows, and more than one value, on both sides"
    if found:
        each = ", ".join(
            f"{name} (stability index {known[name].stability_index:.2f})"
            for name in sorted(found, key=lambda name: -known[name].stability_index)
        )
        return f"{len(found)} of {len(known)} drifted: {each}"
    most = max(known, key=lambda name: known[name].stability_index - known[name].index_by_chance)
    return (
        f"none of {len(known)} drifted: the largest stability index is {known[most].stability_index:.2f}, of {most}, "
        f"where chance alone makes {known[most].index_by_chance:.2f} and {index:g} more would count"
    )
