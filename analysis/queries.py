"""Queries over the ledger's tables, written once in Ibis; only aggregates leave the engine.

A metric becomes observations, each with the decision's arm (intention to treat), unit and time:

- an outcome with a default counts once per item of every matured decision, whether or not something was observed;
- any other outcome, and every label, counts once per item that has one, whenever it arrives;
- a ratio sums its two outcomes per decision, and an outcome that did not happen adds nothing;
- an outcome that happened after the window counts, unless the metric ignores late ones.

Several outcomes of one item: values add up, and then are pulled to the metric's limits; a binary one happened or not,
and the scores of repeated labels are averaged. Of every outcome the highest version counts, and not at all if that
retracts it.

The router folds outcomes into its statistics by the same rules (router/ledger/contributions.py).
"""

from typing import NamedTuple

import ibis
import ibis.expr.types as ir

from analysis.errors import InvalidExperiment
from analysis.experiment import (
    FORCED,
    HOLDOUT,
    INTERLEAVED,
    AnyMetric,
    BinaryMetric,
    Experiment,
    Limits,
    NumericMetric,
    RatioMetric,
    ScoreMetric,
)
from analysis.periods import Periods
from analysis.source import Source
from analysis.statistics.scores import SCORES, SMALLEST_PROBABILITY

_OUTCOME = ("decision_id", "metric", "item", "outcome_id")

_OF_DECISION = ("arm", "unit", "decided_ms", "epoch", "propensity")

# To PostgreSQL the literal 1.0 is a decimal, and so is what it adds up to.
_ONE = ibis.literal(1).cast("float64")


class Log(NamedTuple):
    """The decisions and outcomes of one experiment, as they were known at `now_ms`.

    `drawn` has those decisions too that held their unit out; `decisions` are those that an arm got.
    """

    drawn: ir.Table
    decisions: ir.Table
    outcomes: ir.Table
    now_ms: int


def log_of(source: Source, experiment: Experiment, now_ms: int) -> Log:
    """Select what belongs to the experiment, was drawn, and was recorded until `now_ms`."""
    decisions, outcomes = source.tables["decisions"], source.tables["outcomes"]
    drawn = decisions.filter(
        decisions["experiment_id"] == experiment.id, decisions["epoch"] != FORCED, decisions["decided_ms"] <= now_ms
    )
    said = outcomes.filter(
        outcomes["experiment_id"] == experiment.id,
        outcomes["arm"] != HOLDOUT,
        outcomes["received_ms"] <= now_ms,
        # The others wait for their decision, or name an item that it does not have.
        outcomes["counted"],
    )
    return Log(drawn, drawn.filter(drawn["arm"] != HOLDOUT), standing(said), now_ms)


def standing(said: ir.Table) -> ir.Table:
    """Of every outcome the highest version, unless that retracts it."""
    # Corrections are few: to look up the newest of those costs less than to rank all that was said.
    corrected = said.filter(said["version"] > 0)
    newest = corrected.group_by(*_OUTCOME).aggregate(newest=corrected["version"].max())
    joined = said.left_join(newest, list(_OUTCOME))
    return joined.filter(joined["version"] == joined["newest"].fill_null(0), joined["value"].notnull()).select(
        *said.columns
    )


def observations(log: Log, metric: AnyMetric) -> ir.Table:
    """What was observed: arm, unit, decided_ms, epoch, propensity and decision_id of its decision; numerator,
    denominator, and observations (a count).
    """
    match metric:
        case RatioMetric():
            return _ratio_observations(log, metric)
        case ScoreMetric():
            return _scored_items(log, metric)
        case BinaryMetric(default=None) | NumericMetric(default=None):
            return _observed_items(log, metric)
        case BinaryMetric() | NumericMetric():
            return _matured_decisions(log, metric)


def _ratio_observations(log: Log, metric: RatioMetric) -> ir.Table:
    posted = _posted(log, metric, metric.numerator, metric.denominator)
    nothing = ibis.literal(0.0)
    per_decision = posted.group_by("decision_id").aggregate(
        numerator=ibis.ifelse(posted["metric"] == metric.numerator, posted["value"], nothing).sum(),
        denominator=ibis.ifelse(posted["metric"] == metric.denominator, posted["value"], nothing).sum(),
    )
    return _with_decision(log, per_decision.mutate(observations=1))


def _scored_items(log: Log, metric: ScoreMetric) -> ir.Table:
    labels = _labels(log, metric)
    score = score_expression(metric.score, labels["prediction"], labels["value"])
    per_item = labels.group_by("decision_id", "item").aggregate(numerator=score.mean())
    return _with_decision(log, per_item.mutate(denominator=_ONE, observations=1))


def _observed_items(log: Log, metric: BinaryMetric | NumericMetric) -> ir.Table:
    posted = _posted(log, metric, metric.name)
    per_item = posted.group_by("decision_id", "item").aggregate(numerator=_value_of_item(posted, metric))
    return _with_decision(log, per_item.mutate(denominator=_ONE, observations=1))


def _matured_decisions(log: Log, metric: BinaryMetric | NumericMetric) -> ir.Table:
    matured = _matured(log, metric)
    posted = _posted(log, metric, metric.name)
    per_item = posted.group_by("decision_id", "item").aggregate(value=_value_of_item(posted, metric))
    answered = per_item.group_by("decision_id").aggregate(total=per_item["value"].sum(), items=per_item.count())
    decisions = matured.left_join(answered, matured["id"] == answered["decision_id"])
    # A list counts what it showed, anything else its inputs.
    items = number_of_items(ibis.coalesce(decisions["shown"], decisions["predictions"]))
    silent = items - decisions["items"].fill_null(0)
    return decisions.select(
        *_OF_DECISION,
        decision_id=decisions["id"],
        numerator=decisions["total"].fill_null(0.0) + silent * float(metric.default or 0.0),
        denominator=items.cast("float64"),
        observations=items,
    )


def counted_decisions(log: Log, metric: AnyMetric) -> ir.Table:
    """The decisions that count for a metric: where it has a default those that matured, else all of them."""
    return log.decisions if getattr(metric, "default", None) is None else _matured(log, metric)


def _matured(log: Log, metric: AnyMetric) -> ir.Table:
    return log.decisions.filter(log.decisions["decided_ms"] + 1000 * metric.window_s <= log.now_ms)


def posted_items(log: Log, metric: AnyMetric) -> ir.Table:
    """Items of interleaved lists with an outcome of the metric above 0: decision_id, item."""
    posted = _posted(log, metric, *metric_names(metric))
    return posted.filter(posted["arm"] == INTERLEAVED, posted["value"] > 0).select("decision_id", "item").distinct()


def metric_names(metric: AnyMetric) -> tuple[str, ...]:
    """The names under which outcomes of the metric are posted."""
    match metric:
        case RatioMetric():
            return (metric.numerator, metric.denominator)
        case ScoreMetric():
            return (metric.label,)
        case _:
            return (metric.name,)


def _value_of_item(posted: ir.Table, metric: AnyMetric) -> ir.Value:
    if isinstance(metric, BinaryMetric):
        return posted["value"].max()
    total = posted["value"].sum()
    return _limited(total, metric.winsorise) if isinstance(metric, NumericMetric) and metric.winsorise else total


def _limited(value: ir.Value, limits: Limits) -> ir.Value:
    """Pull values to the limits (winsorising)."""
    if limits.low is not None:
        value = ibis.greatest(value, ibis.literal(limits.low).cast("float64"))
    return value if limits.high is None else ibis.least(value, ibis.literal(limits.high).cast("float64"))


def _posted(log: Log, metric: AnyMetric, *names: str) -> ir.Table:
    """Outcomes of these names that count for the metric."""
    posted = log.outcomes.filter(log.outcomes["metric"].isin(names))
    if not metric.ignores_late:
        return posted
    joined = posted.join(log.decisions, posted["decision_id"] == log.decisions["id"])
    in_time = joined.filter(joined["occurred_ms"] <= joined["decided_ms"] + 1000 * metric.window_s)
    return in_time.select(*posted.columns)


def _labels(log: Log, metric: ScoreMetric) -> ir.Table:
    posted = _posted(log, metric, metric.label)
    return posted.filter(posted["prediction"].notnull())


def _with_decision(log: Log, values: ir.Table) -> ir.Table:
    joined = values.join(log.decisions, values["decision_id"] == log.decisions["id"])
    return joined.select(*_OF_DECISION, "decision_id", "numerator", "denominator", "observations")


def number_of_items(predictions: ir.Value) -> ir.Value:
    """How many numbers a JSON array of them has, one at least."""
    # An array of numbers has one comma fewer than numbers; engines disagree on JSON functions, not on this.
    return predictions.length() - predictions.replace(",", "").length() + 1


def score_expression(name: str, prediction: ir.Value, label: ir.Value) -> ir.Value:
    """The score of that name (analysis.statistics.scores) as an expression for the engine."""
    match name:
        case "brier":
            return (prediction - label) * (prediction - label)
        case "log_loss":
            happened = (label - 1 + prediction).abs()
            return -ibis.greatest(happened, SMALLEST_PROBABILITY).ln()
        case "absolute_error":
            return (prediction - label).abs()
        case "correct":
            # PostgreSQL makes no number of a boolean.
            return ibis.ifelse((prediction >= 0.5) == (label == 1), 1, 0).cast("float64")
        case _:
            raise InvalidExperiment(f"score {name!r} cannot be analysed; scores: {', '.join(SCORES)}")


def per_unit(observed: ir.Table) -> ir.Table:
    """Sums per (arm, unit), the cluster of every comparison: arm, unit, numerator, denominator, observations."""
    return observed.group_by("arm", "unit").aggregate(
        numerator=observed["numerator"].sum(),
        denominator=observed["denominator"].sum(),
        observations=observed["observations"].sum(),
    )


def weighted(observed: ir.Table) -> ir.Table:
    """Sums per arm, plain and weighted by 1 / propensity: what the arm stands for in all of the traffic."""
    weight = 1 / observed["propensity"]
    return observed.group_by("arm").aggregate(
        observations=observed["observations"].sum(),
        numerator=observed["numerator"].sum(),
        denominator=observed["denominator"].sum(),
        weighted_numerator=(observed["numerator"] * weight).sum(),
        weighted_denominator=(observed["denominator"] * weight).sum(),
    )


def per_period(observed: ir.Table, width_ms: int) -> ir.Table:
    """Sums and sums of products over units, per arm and period of `width_ms`: what a ratio and its error need."""
    start = (observed["decided_ms"] - observed["decided_ms"] % width_ms).name("start_ms")
    units = observed.group_by("arm", start, "unit").aggregate(
        n=observed["numerator"].sum(), d=observed["denominator"].sum(), observations=observed["observations"].sum()
    )
    return (
        units.group_by("arm", "start_ms")
        .aggregate(
            units=units.count(),
            observations=units["observations"].sum(),
            numerator=units["n"].sum(),
            denominator=units["d"].sum(),
            nn=(units["n"] * units["n"]).sum(),
            nd=(units["n"] * units["d"]).sum(),
            dd=(units["d"] * units["d"]).sum(),
        )
        .order_by("start_ms", "arm")
    )


def traffic(log: Log) -> ir.Table:
    """Per arm with decisions: units, decisions, fallbacks (answered by the champion), first_ms, last_ms."""
    decisions = log.decisions
    return decisions.group_by("arm").aggregate(
        units=decisions["unit"].nunique(),
        decisions=decisions.count(),
        fallbacks=decisions["fallback"].count(),
        first_ms=decisions["decided_ms"].min(),
        last_ms=decisions["decided_ms"].max(),
    )


def held_out(log: Log) -> ir.Table:
    """One row: how many units were held out."""
    held = log.drawn.filter(log.drawn["arm"] == HOLDOUT)
    return held.aggregate(units=held["unit"].nunique())


def shared_units(log: Log) -> ir.Table:
    """One row: how many units got more than one arm."""
    arms = log.decisions.group_by("unit").aggregate(arms=log.decisions["arm"].nunique())
    shared = arms.filter(arms["arms"] > 1)
    return shared.aggregate(units=shared.count())


def shadowed_labels(log: Log, metric: ScoreMetric, predicted: ir.Table) -> ir.Table:
    """Labels of decisions that a shadow predicted: model, decision_id, unit, item, predictions, prediction, value.

    `predictions` is the shadow's JSON array, `prediction` what was served for the item.
    """
    labels, answered = _labels(log, metric), predicted.filter(predicted["predictions"].notnull())
    # An arm's label; one of a unit that was held out is compared with nobody.
    drawn = labels.join(log.decisions, labels["decision_id"] == log.decisions["id"]).select(
        "decision_id", "unit", "item", "prediction", "value"
    )
    joined = answered.join(drawn, answered["decision_id"] == drawn["decision_id"])
    return joined.select("model", "decision_id", "unit", "item", "predictions", "prediction", "value")


def waiting(log: Log, metric: AnyMetric) -> ir.Table:
    """One row: how many decisions are not matured yet for the metric."""
    closes_ms = log.decisions["decided_ms"] + 1000 * metric.window_s
    open_ = log.decisions.filter(closes_ms > log.now_ms)
    return open_.aggregate(decisions=open_.count())


def draws(log: Log, randomise: str, periods: Periods) -> ir.Table:
    """Independent draws per (period, epoch, arm): a unit's first decision, or every one when requests are randomised.

    A unit that was held out at first and got an arm later, because the holdout shrank, was not drawn independently.
    """
    decisions = log.drawn
    if randomise == "unit":
        order = ibis.row_number().over(group_by=decisions["unit"], order_by=decisions["id"])
        numbered = decisions.select("epoch", "arm", "decided_ms", order=order)
        decisions = numbered.filter(numbered["order"] == 0)
    decisions = decisions.filter(decisions["arm"] != HOLDOUT)
    period = periods.number_of(decisions["decided_ms"]).name("period")
    return decisions.group_by(period, "epoch", "arm").aggregate(draws=decisions.count())


def reliability(log: Log, metric: ScoreMetric, bins: int) -> ir.Table:
    """Per arm and equal-width bin of the predicted probability: labels, mean prediction, mean label."""
    labels = _labels(log, metric)
    joined = labels.join(log.decisions, labels["decision_id"] == log.decisions["id"])
    number = (joined["prediction"] * bins).floor().cast("int64")
    placed = joined.select(
        log.decisions["arm"], "prediction", "value", bin=ibis.ifelse(number >= bins, bins - 1, number)
    )
    return (
        placed.group_by("arm", "bin")
        .aggregate(labels=placed.count(), predicted=placed["prediction"].mean(), observed=placed["value"].mean())
        .order_by("arm", "bin")
    )
