"""From an assignment to the signed row of its decision."""

from typing import NamedTuple

import msgspec

from router.assignment.audience import Context
from router.assignment.hashing import BUCKETS
from router.decision_id import NO_EXPERIMENT, DecisionId, Signer
from router.ledger.records import DecisionRow
from router.serving.assign import Assignment

_encode_json = msgspec.json.Encoder().encode


class Content(NamedTuple):
    """What a decision was about and what was answered; texts are JSON."""

    endpoint: str
    unit: str
    context: Context
    model: str
    served_model: str
    fallback: str | None
    inputs: str
    predictions: str
    shown: str | None = None
    draw: str | None = None
    latency_ms: float | None = None


def signed_row(
    signer: Signer, now_ms: int, assignment: Assignment | None, nonce: bytes, content: Content
) -> DecisionRow:
    """Return the row of a decision made now, under a new id."""
    if assignment is None:
        decision = DecisionId(now_ms, NO_EXPERIMENT, 0, 0, BUCKETS, nonce)
        drawn: tuple[int | None, int | None, int | None] = (None, None, None)
    else:
        drawn = (assignment.experiment.id, assignment.epoch, assignment.number)
        decision = DecisionId(now_ms, *drawn, assignment.slots, nonce)
    return DecisionRow(
        signer.sign(decision),
        now_ms,
        content.endpoint,
        *drawn,
        decision.propensity,
        content.unit,
        content.model,
        content.served_model,
        content.fallback,
        json_text(content.context) if content.context else None,
        content.inputs,
        content.predictions,
        content.shown,
        content.draw,
        content.latency_ms,
    )


def json_text(value: object) -> str:
    """Return a value as the ledger stores it."""
    return _encode_json(value).decode()
