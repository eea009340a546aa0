"""What an analyst would write without the report: all rows in pandas, and the same statistics at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import deltalake
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.experiment import PLANNED_DECISIONS
from analysis.periods import Periods
from analysis.statistics import effects
from analysis.statistics.adaptive import linearised, scores
from analysis.statistics.cells import Cells, Visits
from analysis.statistics.sequential_ratio import sequential_ratio
from bench.decisions import SHARES

Floats = NDArray[np.float64]
Frame = pd.DataFrame

_ALPHA = 0.05 / (len(SHARES) - 1)
_ARMS = ("control", "boosting", "forest")


class Metric(NamedTuple):
    """The decisions that count for a metric, and what was observed of each, with its arm, unit and period."""

    decided: Frame
    observed: Frame


def summarise(lake: Path, now_ms: int) -> list[dict[str, object]]:
    """Return a row per metric and arm: units, decisions, observations, mean, and each treatment's difference."""
    decisions = _read(lake, "decisions", ["id", "decided_ms", "epoch", "arm", "propensity", "unit", "predictions"])
    decisions = decisions[(decisions["epoch"] > 0) & (decisions["arm"] < 254) & (decisions["decided_ms"] <= now_ms)]
    decisions = _placed(decisions)
    traffic = decisions.groupby("arm").agg(units=("unit", "nunique"), decisions=("unit", "size"))
    split = _split(decisions)
    outcomes = _standing(lake, now_ms)
    return [
        row | {"sample_ratio_p_value": split}
        for name, metric in (("brier", _scores(decisions, outcomes)), ("click", _clicks(decisions, outcomes, now_ms)))
        for row in _rows(name, metric, traffic)
    ]


def _read(lake: Path, name: str, columns: list[str]) -> Frame:
    frame: Frame = deltalake.DeltaTable(lake / "logs" / name).to_pyarrow_table(columns=columns).to_pandas()
    return frame


def _placed(decisions: Frame) -> Frame:
    """Add the period, the weight and the number of the unit."""
    at_ms = decisions["decided_ms"]
    periods = Periods(int(at_ms.min()), int(at_ms.max()))
    ends = [periods.end_of(number) for number in range(periods.number(periods.end_ms) + 1)]
    return decisions.assign(
        period=np.searchsorted(ends, at_ms.to_numpy(), side="right"),
        weight=1 / decisions["propensity"],
        number=pd.factorize(decisions["unit"])[0],
    )


def _split(decisions: Frame) -> float:
    first = decisions.sort_values("id").drop_duplicates("number")
    counts = pd.crosstab(first["period"], first["arm"]).to_numpy()
    return sequential_ratio(counts, np.broadcast_to(SHARES, counts.shape)).p_value


def _standing(lake: Path, now_ms: int) -> Frame:
    columns = [
        "decision_id",
        "metric",
        "item",
        "outcome_id",
        "version",
        "value",
        "prediction",
        "counted",
        "received_ms",
    ]
    said = _read(lake, "outcomes", columns)
    said = said[said["counted"] & (said["received_ms"] <= now_ms)]
    identity = ["decision_id", "metric", "item", "outcome_id"]
    corrected = said[said["version"] > 0].groupby(identity, as_index=False).agg(newest=("version", "max"))
    if len(corrected):
        said = said.merge(corrected, "left", on=identity)
        said = said[said["version"] == said["newest"].fillna(0)]
    return said[said["value"].notna()]


def _scores(decisions: Frame, outcomes: Frame) -> Metric:
    labels = outcomes[(outcomes["metric"] == "late") & outcomes["prediction"].notna()]
    labels = labels.assign(score=(labels["prediction"] - labels["value"]) ** 2)
    items = labels.groupby(["decision_id", "item"], as_index=False)["score"].mean()
    each = items.groupby("decision_id").agg(n=("score", "sum"), d=("score", "size"))
    observed = decisions.merge(each, left_on="id", right_index=True)
    return Metric(decisions, observed.assign(items=observed["d"], d=observed["d"].astype(np.float64)))


def _clicks(decisions: Frame, outcomes: Frame, now_ms: int) -> Metric:
    matured = decisions[decisions["decided_ms"] + 3_600_000 <= now_ms]
    clicks = outcomes[outcomes["metric"] == "click"]
    items = clicks.groupby(["decision_id", "item"], as_index=False)["value"].max()
    each = items.groupby("decision_id").agg(n=("value", "sum"))
    observed = matured.merge(each, "left", left_on="id", right_index=True)
    shown = observed["predictions"].str.count(",") + 1
    return Metric(matured, observed.assign(n=observed["n"].fillna(0.0), items=shown, d=shown.astype(np.float64)))


def _rows(name: str, metric: Metric, traffic: Frame) -> list[dict[str, object]]:
    units = metric.observed.groupby(["arm", "number"])[["n", "d", "items"]].sum()
    arms = units.groupby("arm").agg(n=("n", "sum"), d=("d", "sum"), items=("items", "sum"), units=("n", "size"))
    return [
        {
            "metric": name,
            "arm": _ARMS[arm],
            "units": int(traffic["units"][arm]),
            "decisions": int(traffic["decisions"][arm]),
            "observed_units": int(arms["units"][arm]),
            "observations": int(arms["items"][arm]),
            "mean": float(arms["n"][arm] / arms["d"][arm]),
            **(_difference(metric, arm) if arm else {}),
        }
        for arm in range(len(_ARMS))
    ]


def _difference(metric: Metric, arm: int) -> Mapping[str, float]:
    found = linearised(scores(_cells(metric, arm), _visits(metric, arm)))
    difference = effects.contrast(found, 1, 0, PLANNED_DECISIONS, _ALPHA)
    low, high = difference.interval
    return {
        "difference": float(difference.value[-1]),
        "difference_low": float(low[-1]),
        "difference_high": float(high[-1]),
    }


def _cells(metric: Metric, arm: int) -> Cells:
    periods, decided = np.unique(metric.decided["period"].to_numpy(), return_inverse=True)
    count = len(periods)
    per_arm: list[tuple[Floats, ...]] = []
    for each in (0, arm):
        chosen = (metric.decided["arm"] == each).to_numpy()
        weights = metric.decided["weight"].to_numpy()[chosen]
        rows = metric.observed[metric.observed["arm"] == each]
        place = np.searchsorted(periods, rows["period"].to_numpy())
        values = rows[["n", "d"]].to_numpy()
        products = values[:, :, np.newaxis] * values[:, np.newaxis, :]
        w = rows["weight"].to_numpy()
        per_arm.append(
            (
                _sums(decided[chosen], np.ones(len(weights)), count),
                _sums(place, values, count),
                _sums(place, products, count),
                _sums(decided[chosen], weights, count),
                _sums(place, values * w[:, np.newaxis], count),
                _sums(decided[chosen], weights**2, count),
                _sums(place, values * w[:, np.newaxis] ** 2, count),
                _sums(place, products * w[:, np.newaxis, np.newaxis] ** 2, count),
            )
        )
    control, treatment = per_arm
    of_both = (np.stack(pair, axis=1) for pair in zip(control, treatment, strict=True))
    return Cells(np.bincount(decided, minlength=count).astype(np.float64), *of_both)


def _sums(place: NDArray[np.intp], values: Floats, count: int) -> Floats:
    flat = values.reshape(len(values), -1)
    sums = np.empty((count, flat.shape[1]))
    for column in range(flat.shape[1]):
        sums[:, column] = np.bincount(place, flat[:, column], count)
    return sums.reshape(count, *values.shape[1:])


def _visits(metric: Metric, arm: int) -> Visits:
    periods = np.unique(metric.decided["period"].to_numpy())
    key = ["number", "period"]
    decided = {"decisions": np.ones(len(metric.decided))}
    observed: dict[str, Floats] = {}
    for each in (0, arm):
        decided[f"w{each}"] = np.where(metric.decided["arm"] == each, metric.decided["weight"], 0.0)
        weights = np.where(metric.observed["arm"] == each, metric.observed["weight"], 0.0)
        observed |= {f"{name}{each}": weights * metric.observed[name].to_numpy() for name in ("n", "d")}
    visits = metric.decided[key].assign(**decided).groupby(key).sum()
    visits = visits.join(metric.observed[key].assign(**observed).groupby(key).sum()).fillna(0.0)
    return Visits(
        visits.index.get_level_values("number").to_numpy(),
        np.searchsorted(periods, visits.index.get_level_values("period").to_numpy()),
        visits["decisions"].to_numpy(),
        visits[["w0", f"w{arm}"]].to_numpy(),
        visits[["n0", "d0", f"n{arm}", f"d{arm}"]].to_numpy().reshape(-1, 2, 2),
    )
