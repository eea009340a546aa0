"""Sums of what shadows and served models did for the same decisions, written once in Ibis; no rows leave the engine.

Predictions are JSON arrays of numbers. Engines disagree on JSON functions, but not on `replace`, `substr` and `cast`.
"""

from collections.abc import Callable

import ibis
import ibis.expr.types as ir

from analysis import queries
from analysis.experiment import ScoreMetric
from analysis.queries import Log

Agrees = Callable[[ir.Value, ir.Value], ir.Value]
"""Whether two predictions, of the shadow and served, say the same; as an expression for the engine."""


def seen(log: Log, predicted: ir.Table) -> ir.Table:
    """Per shadow: decisions that it saw, errors, mean latency in ms where it answered, and most items of a decision."""
    known = _known(log, predicted).semi_join(log.decisions, predicted["decision_id"] == log.decisions["id"])
    found = known.group_by("model").aggregate(
        decisions=known.count(),
        errors=known["error"].count(),
        latency_ms=known["latency_ms"].mean(where=known["error"].isnull()),
        items=queries.number_of_items(known["predictions"]).max(),
    )
    return found.order_by("model")


def scored(log: Log, metric: ScoreMetric, predicted: ir.Table, most: int) -> ir.Table:
    """Per shadow, from items with a label: sums of both scores, and moments over units of (shadow - served, labels).

    The scores of repeated labels of an item are averaged. `most` is the most items of a decision.
    """
    said = queries.shadowed_labels(log, metric, _known(log, predicted))
    labels = said.filter(said["item"] < queries.number_of_items(said["predictions"]))
    shadow = _prediction(labels, "predictions", most)
    of = labels.mutate(
        shadow=queries.score_expression(metric.score, shadow, labels["value"]),
        served=queries.score_expression(metric.score, labels["prediction"], labels["value"]),
    )
    items = of.group_by("model", "unit", "decision_id", "item").aggregate(
        shadow=of["shadow"].mean(), served=of["served"].mean()
    )
    units = items.group_by("model", "unit").aggregate(
        a=(items["shadow"] - items["served"]).sum(),
        b=items.count().cast("float64"),
        shadow=items["shadow"].sum(),
        served=items["served"].sum(),
    )
    return _moments(units, shadow=units["shadow"].sum(), served=units["served"].sum())


def agreeing(log: Log, predicted: ir.Table, agrees: Agrees, most: int) -> ir.Table:
    """Per shadow: moments over units of (agreeing predictions, predictions), with a label or without.

    `most` is the most items of a decision. Lists that mixed several rankings are left out: what was served is no one's.
    """
    known, decisions = _known(log, predicted), log.decisions.select("id", "unit", served="predictions")
    joined = known.join(decisions, known["decision_id"] == decisions["id"])
    pairs = joined.filter(joined["predictions"].notnull(), joined["served"].notnull())
    items = (
        pairs.cross_join(_numbers(predicted, most)) if most > 1 else pairs.mutate(item=ibis.literal(0).cast("int64"))
    )
    counts = (queries.number_of_items(items[name]) for name in ("predictions", "served"))
    both = items.filter(items["item"] < ibis.least(*counts)) if most > 1 else items
    agreed = agrees(*(_prediction(both, name, most) for name in ("predictions", "served")))
    said = both.mutate(agreed=ibis.ifelse(agreed, 1, 0).cast("float64"))
    return _moments(said.group_by("model", "unit").aggregate(a=said["agreed"].sum(), b=said.count().cast("float64")))


def _prediction(rows: ir.Table, name: str, most: int) -> ir.Value:
    return item_of(rows[name], rows["item"]) if most > 1 else _bare(rows[name]).cast("float64")


def item_of(predictions: ir.Value, item: ir.Value) -> ir.Value:
    """The number at this place, from 0, of a JSON array of numbers; null beyond its end.

    Every comma becomes as many blanks as there are letters, so that the number at place k, and nothing else, is among
    the letters from k times as many on.
    """
    numbers = _bare(predictions)
    # PostgreSQL counts letters in integers of four bytes.
    letters = (numbers.length() + 1).cast("int32")
    spaced = numbers.replace(",", ibis.literal(" ").repeat(letters))
    return spaced.substr((item * letters).cast("int32"), letters).strip().nullif("").cast("float64")


def _bare(predictions: ir.Value) -> ir.Value:
    return predictions.replace("[", "").replace("]", "")


def _known(log: Log, predicted: ir.Table) -> ir.Table:
    return predicted.filter(predicted["recorded_ms"] <= log.now_ms)


def _numbers(table: ir.Table, count: int) -> ir.Table:
    """The numbers from 0 to count - 1 at least, made of bits: engines disagree on how to make a series."""
    one = table.limit(1)
    bit = ibis.union(one.select(item=ibis.literal(0).cast("int64")), one.select(item=ibis.literal(1).cast("int64")))
    numbers = bit
    for _ in range((count - 1).bit_length() - 1):
        low = bit.view()
        crossed = numbers.cross_join(low, rname="low_{name}")
        numbers = crossed.select(item=2 * crossed["item"] + crossed["low_item"])
    return numbers


def _moments(units: ir.Table, **sums: ir.Value) -> ir.Table:
    """Sums of a, b and their products over units, per model, as `analysis.statistics.ratios.Moments` has them."""
    a, b = units["a"], units["b"]
    return units.group_by("model").aggregate(
        units=units.count(), a=a.sum(), b=b.sum(), aa=(a * a).sum(), ab=(a * b).sum(), bb=(b * b).sum(), **sums
    )
