"""Finds the decisions without a label that are most worth one; rows leave the engine only for the queue itself."""

from typing import Any

import ibis
import ibis.expr.types as ir
import msgspec
import pandas as pd

from analysis.shadow_sums import item_of
from analysis.source import Source
from orchestration.drift.windows import live_of
from orchestration.endpoints.declaration import Endpoint
from orchestration.labelling import DISAGREEMENT, UNCERTAINTY
from orchestration.lake import Lake
from router.decision_id import encode

_COLUMNS = {
    "decision_id": "str",
    "decided_ms": "int64",
    "unit": "str",
    "inputs": "str",
    "model": "str",
    "prediction": "float64",
    "shadow": "str",
    "shadow_prediction": "float64",
    "score": "float64",
    "reason": "str",
}


def most_informative(endpoint: Endpoint, lake: Lake) -> pd.DataFrame:
    """The queue: both reasons take turns, as their scores do not compare, and equal ones go by the decision's id."""
    source, log, _ = live_of(endpoint, lake)
    unlabelled = _unlabelled(log.decisions, log.outcomes, endpoint.label)
    asked = _with_shadows(unlabelled, source.tables["shadow_predictions"])
    turns = [
        _ranked(source, asked, DISAGREEMENT, (asked["shadow_prediction"] - asked["prediction"]).abs(), endpoint.queue),
        _ranked(source, asked, UNCERTAINTY, 1 - (2 * asked["prediction"] - 1).abs(), endpoint.queue),
    ]
    merged = pd.concat(turns).sort_values(["turn", "reason", "decision_id"], ignore_index=True)
    rows = merged.drop_duplicates("decision_id").head(endpoint.queue).reset_index(drop=True)
    return rows[list(_COLUMNS)].astype(_COLUMNS)


def _unlabelled(decisions: ir.Table, outcomes: ir.Table, label: str) -> ir.Table:
    said = outcomes.filter(outcomes["metric"] == label).select("decision_id").distinct()
    first = decisions.mutate(prediction=item_of(decisions["predictions"], ibis.literal(0).cast("int64")))
    known = first.filter(first["prediction"].notnull())
    return known.anti_join(said, known["id"] == said["decision_id"])


def _with_shadows(decisions: ir.Table, predicted: ir.Table) -> ir.Table:
    """One row per decision and shadow; a decision that no shadow saw has one without."""
    answered = predicted.filter(predicted["predictions"].notnull())
    shadows = answered.select(
        "decision_id",
        shadow="model",
        shadow_prediction=item_of(answered["predictions"], ibis.literal(0).cast("int64")),
    )
    joined = decisions.left_join(shadows, decisions["id"] == shadows["decision_id"])
    return joined.select(
        "id", "decided_ms", "unit", "inputs", "prediction", "shadow", "shadow_prediction", model="served_model"
    )


def _ranked(source: Source, asked: ir.Table, reason: str, score: ir.Value, most: int) -> pd.DataFrame:
    """The decisions with the highest scores, each with the shadow that disagrees most."""
    scored = asked.mutate(score=score).filter(ibis._["score"] > 0)
    by_shadow = ibis.row_number().over(
        group_by="id", order_by=[(ibis._["shadow_prediction"] - ibis._["prediction"]).abs().desc(), ibis._["shadow"]]
    )
    each = scored.mutate(place=by_shadow).filter(ibis._["place"] == 0).drop("place")
    rows: list[dict[str, Any]] = source.rows(each.order_by([ibis.desc("score"), "id"]).limit(most))
    return pd.DataFrame(
        [
            {**row, "decision_id": encode(row["id"]), "inputs": _first(row["inputs"]), "reason": reason, "turn": turn}
            for turn, row in enumerate(rows)
        ],
        columns=pd.Index([*_COLUMNS, "turn"]),
    )


def _first(inputs: str) -> str:
    return msgspec.json.encode(msgspec.json.decode(inputs)[0]).decode()
