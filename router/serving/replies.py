"""The JSON that predict and rank calls answer with."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from router.decision_id import encode
from router.ledger.decided import read_shown
from router.ledger.records import DecisionRow
from router.serving.requests import PredictReply, RankedItem, RankReply

_encode_json = msgspec.json.Encoder().encode


class Answered(NamedTuple):
    """A durable decision, the names of its experiment and arm, and its predictions."""

    row: DecisionRow
    experiment: str | None
    arm: str | None
    predictions: Sequence[float | None]


def predict_reply(answered: Answered, *, single: bool) -> bytes:
    """Return the reply to a predict request."""
    content = PredictReply(**_decided(answered))
    if single:
        content.prediction = answered.predictions[0]
    else:
        content.predictions = list(answered.predictions)
    return _encode_json(content)


def rank_reply(answered: Answered, candidates: Sequence[Any]) -> bytes:
    """Return the reply to a rank request of these candidates."""
    shown = [] if answered.row.shown is None else read_shown(answered.row.shown)
    items = [RankedItem(candidates[item].id, rank, item) for rank, item in enumerate(shown, start=1)]
    return _encode_json(RankReply(**_decided(answered), items=items))


def _decided(answered: Answered) -> dict[str, Any]:
    """Return what every reply says of its decision."""
    row, experiment, arm, _ = answered
    return {
        "decision_id": encode(row.id),
        "endpoint": row.endpoint,
        "experiment": experiment,
        "epoch": row.epoch,
        "arm": arm,
        "model": row.model,
        "propensity": row.propensity,
        "served_model": None if row.fallback is None else row.served_model,
        "fallback": row.fallback,
    }
