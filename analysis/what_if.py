"""What would the metric have been, had another policy chosen the arms? From the propensities that were logged."""

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import contexts, queries
from analysis.errors import InvalidPolicy, UnknownArm, UnknownMetric
from analysis.experiment import AnyMetric, Experiment, RatioMetric
from analysis.queries import Log
from analysis.source import Source
from analysis.statistics import off_policy
from analysis.statistics.off_policy import DEFAULT_LIMITS, Estimates, Limits, Overlap
from analysis.statistics.ratios import Estimate, moments, ratio_of_sums

Floats = NDArray[np.float64]
Shares = Mapping[str, float]
"""By the name of the arm; one that is not named has none."""

ByValue = Mapping[Any, Shares]
"""By the value of a context field: a text, number or boolean. None stands for every other value and for none."""

_BINS = 30


class WhatIf(NamedTuple):
    """A policy's value beside that of the traffic as it was: means per observation, in the metric's unit."""

    policy: str
    metric: str
    overlap: Overlap
    estimates: Estimates | None
    """None without overlap."""
    logged: Estimate
    """The mean of the traffic as it was."""
    has_all_propensities: bool
    """Whether the probability of every arm is known, and not only that of the chosen one; SWITCH-DR needs all."""
    weights: pd.DataFrame
    """How many observations had a weight from `low` to `high`: the policy's probability over the logged one."""
    confidence: float
    verdict: Literal["better", "worse", "insufficient", "no overlap"]
    reason: str

    def frame(self) -> pd.DataFrame:
        """One row per estimator and one for the logged traffic: estimator, value, error, low, high; nan if refused."""
        unknown = Estimate(math.nan, math.nan, math.nan, math.nan)
        names = ["ips", "snips", "dm", "dr", *(["switch_dr"] if self.has_all_propensities else [])]
        rows = [(name, *(getattr(self.estimates, name) if self.estimates else unknown)) for name in names]
        columns = ["estimator", "value", "error", "low", "high"]
        return pd.DataFrame([*rows, ("logged", *self.logged)], columns=pd.Index(columns))


class _Rows(NamedTuple):
    """The log as arrays, and the policy's group of each row."""

    log: off_policy.Log
    groups: NDArray[np.intp]


class _Policy(NamedTuple):
    said: str
    shares: Floats
    """[groups, arms]; the last group is what remains."""
    field: str | None
    values: tuple[str, ...]
    """Of the field, as JSON texts; one less than groups."""


def what_if(
    source: Source,
    log: Log,
    experiment: Experiment,
    metric: AnyMetric,
    policy: Shares | ByValue,
    *,
    field: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    alpha: float = 0.05,
) -> WhatIf:
    """Judge whether the log covers the policy and, if so, estimate what the metric would have been.

    Intervals are fixed-horizon ones by unit, each by itself. The log's own epochs give the probability of every arm;
    in a contextual experiment only that of the chosen one is known, so there SWITCH-DR is left out. What its floor
    makes possible everywhere is supported.

    Args:
        source: of the tables.
        log: of the experiment.
        experiment: with its epochs.
        metric: but no ratio of two outcomes.
        policy: shares of the arms, such as `{"boosting": 1.0}`; or with a `field` such shares by its value, where None
            stands for the rest.
        field: of the context.
        limits: where overlap ends.
        alpha: chance that an interval is wrong.

    Raises:
        InvalidPolicy: Shares are no probabilities, or the rest is missing.
        UnknownArm: It names an arm that the experiment does not have.
        UnknownMetric: The metric is a ratio, or lists mixed the arms.
    """
    _refuse(experiment, metric)
    chosen = _read_policy(experiment, policy, field)
    observed = queries.observations(log, metric)
    cells = _arrow(source, _cells(log, observed, experiment, chosen))
    read = _rows(cells, experiment)
    shares = chosen.shares[read.groups]
    has_all = experiment.allocation != "contextual" or len(experiment.arms) == 2
    if read.log.arms.size == 0:
        evaluation = off_policy.Evaluation(off_policy.overlap_of(read.log, shares, limits=limits), None)
    else:
        expected = off_policy.group_means(read.log, read.groups)
        evaluation = off_policy.evaluate(read.log, shares, expected, limits=limits, confidence=1 - alpha)
    overlap = evaluation.overlap._replace(**_what_is_missing(source, log, observed))
    rows = read.log
    logged = ratio_of_sums(moments(rows.units, rows.rewards, rows.counts), 1 - alpha)
    found = WhatIf(
        chosen.said,
        metric.name,
        overlap,
        evaluation.estimates,
        logged,
        has_all,
        _histogram(rows, shares),
        1 - alpha,
        "no overlap",
        "",
    )
    return _judged(found, metric)


def _refuse(experiment: Experiment, metric: AnyMetric) -> None:
    if experiment.is_interleaved:
        raise UnknownMetric(f"experiment {experiment.name!r} interleaves rankings: no policy chose one arm")
    if isinstance(metric, RatioMetric):
        raise UnknownMetric(
            f"what a policy would have earned is a mean, and {metric.name!r} is a ratio; declare metrics of "
            f"{metric.numerator!r} and {metric.denominator!r} and ask for those"
        )


def _read_policy(experiment: Experiment, policy: Shares | ByValue, field: str | None) -> _Policy:
    if field is None:
        shares: Any = policy
        named = [f"{name} {share:.4g}" for name, share in shares.items() if share]
        said = f"{named[0].rpartition(' ')[0]} alone" if len(named) == 1 else ", ".join(named)
        return _Policy(said, _vector(experiment, shares)[np.newaxis], None, ())
    by_value: Any = policy
    if None not in by_value:
        raise InvalidPolicy(f"the policy says nothing of other values of {field!r}; give their shares under None")
    values = [value for value in by_value if value is not None]
    vectors = [_vector(experiment, by_value[value]) for value in (*values, None)]
    texts = tuple(json.dumps(value, ensure_ascii=False) for value in values)
    return _Policy(f"the policy by {field}", np.array(vectors), field, texts)


def _vector(experiment: Experiment, shares: Any) -> Floats:
    names = [arm.name for arm in experiment.arms]
    if not isinstance(shares, Mapping):
        raise InvalidPolicy(f"a policy gives shares by arm, such as {{{names[-1]!r}: 1.0}}; this one is {shares!r}")
    for name in shares:
        if name not in names:
            known = ", ".join(names)
            raise UnknownArm(f"experiment {experiment.name!r} has no arm {name!r}; it has: {known}")
    vector = np.array([float(shares.get(name, 0.0)) for name in names])
    if not ((vector >= 0).all() and math.isclose(vector.sum(), 1.0, abs_tol=1e-6)):
        raise InvalidPolicy(f"shares of a policy must be at least 0 and sum to 1; these sum to {vector.sum():g}")
    return vector


def _cells(log: Log, observed: ir.Table, experiment: Experiment, policy: _Policy) -> ir.Table:
    """Sums per unit, arm, group and what is known of propensities: the epoch, or the arm's own one."""
    if policy.field is None:
        grouped = observed.mutate(group=ibis.literal(0).cast("int64"))
    else:
        decisions = log.decisions.select("id", value=contexts.value_of(log.decisions["context"], policy.field))
        joined = observed.join(decisions, observed["decision_id"] == decisions["id"])
        rest = ibis.literal(len(policy.values)).cast("int64")
        cases = [
            (joined["value"] == text, ibis.literal(place).cast("int64")) for place, text in enumerate(policy.values)
        ]
        grouped = joined.mutate(group=ibis.cases(*cases, else_=rest) if cases else rest)
    keys = ["unit", "arm", "group", "epoch"]
    if experiment.allocation == "contextual":
        keys.append("propensity")
    return grouped.group_by(*keys).aggregate(
        reward=grouped["numerator"].sum().cast("float64"), count=grouped["denominator"].sum().cast("float64")
    )


def _rows(cells: Any, experiment: Experiment) -> _Rows:
    places = {arm.number: place for place, arm in enumerate(experiment.arms)}
    epochs = {epoch.number: place for place, epoch in enumerate(experiment.epochs)}
    arms = np.array([places[arm] for arm in cells["arm"].to_pylist()], dtype=np.intp)
    drawn_from = np.array([epochs[epoch] for epoch in cells["epoch"].to_pylist()], dtype=np.intp)
    if experiment.allocation == "contextual":
        of_all = np.array([epoch.drawn for epoch in experiment.epochs])[drawn_from]
        propensities = _spread(cells["propensity"].to_numpy() / of_all, arms, len(experiment.arms))
    else:
        table = np.array([epoch.shares for epoch in experiment.epochs], dtype=np.float64)
        propensities = table.reshape(-1, len(experiment.arms))[drawn_from]
    units = np.array(cells["unit"].to_pylist(), dtype=np.str_)
    log = off_policy.make_log(units, arms, cells["reward"].to_numpy(), propensities, cells["count"].to_numpy())
    return _Rows(log, cells["group"].to_numpy().astype(np.intp))


def _spread(chosen: Floats, arms: NDArray[np.intp], number_of_arms: int) -> Floats:
    """Fill in the arms that were not chosen, each with an equal part of the rest: right for two arms.

    Of three or more, nothing that is kept depends on it but that none of them is 0, which the floor guarantees.
    """
    vectors = np.repeat(((1 - chosen) / (number_of_arms - 1))[:, np.newaxis], number_of_arms, axis=1)
    vectors[np.arange(arms.size), arms] = chosen
    return vectors


def _what_is_missing(source: Source, log: Log, observed: ir.Table) -> dict[str, Any]:
    """The share of decisions whose outcome is not known, and how often an arm got another model version."""
    by_arm = log.decisions.group_by("arm").aggregate(
        decisions=log.decisions.count(), models=log.decisions["model"].nunique()
    )
    rows = source.rows(by_arm)
    known = source.rows(observed.aggregate(decisions=observed["decision_id"].nunique()))[0]["decisions"]
    total = sum(row["decisions"] for row in rows)
    return {
        "censored_share": 1 - known / total if total else math.nan,
        "version_changes": sum(row["models"] - 1 for row in rows),
    }


def _histogram(log: off_policy.Log, shares: Floats) -> pd.DataFrame:
    if log.arms.size == 0:
        return pd.DataFrame({"low": [], "high": [], "observations": []}, dtype="float64")
    weights = off_policy.weights_of(log, shares)
    counts, edges = np.histogram(weights, _BINS, (0.0, max(float(weights.max()), 1.0)), weights=log.counts)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "observations": counts})


def _judged(found: WhatIf, metric: AnyMetric) -> WhatIf:
    if math.isnan(found.overlap.largest_weight):
        return found._replace(reason=f"no overlap: no decision has an outcome of {metric.name} yet")
    if found.estimates is None:
        return found._replace(reason=f"no overlap: {'; '.join(found.overlap.reasons)}")
    level = f"{100 * found.confidence:.4g} % CI for one look"
    dr, gain = found.estimates.dr, found.estimates.gain
    change, low, high = (said(value, gain, "+") for value in (gain.value, gain.low, gain.high))
    if not (gain.low > 0 or gain.high < 0):
        return found._replace(
            verdict="insufficient",
            reason=f"not enough evidence: the change that {found.policy} would have made to {metric.name} may be 0: "
            f"{change} ({level} {low} to {high})",
        )
    is_better = (gain.value < 0) == (metric.direction == "decrease")
    value = f"{said(dr.value, dr)} ({level} {said(dr.low, dr)} to {said(dr.high, dr)})"
    reason = (
        f"{found.policy} would have made {metric.name} {value} instead of {said(found.logged.value, dr)}: {change} "
        f"({low} to {high})"
    )
    return found._replace(verdict="better" if is_better else "worse", reason=reason)


def said(value: float, estimate: Estimate, sign: str = "") -> str:
    """With as many decimals as give the error of the estimate two digits."""
    decimals = max(0, 1 - math.floor(math.log10(estimate.error))) if estimate.error > 0 else 2
    return f"{value:{sign},.{decimals}f}"


def _arrow(source: Source, table: ir.Table) -> Any:
    """Rows as columns: there may be as many as units."""
    with source.reading():
        return table.to_pyarrow()
