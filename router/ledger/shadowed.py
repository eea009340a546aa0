"""Reads what a shadow did since a moment: how often it failed, and its predictions beside the served ones."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, or_, select

from router.decision_id import FORCED
from router.ledger import schema
from router.ledger.decided import read_predictions

MOST_LABELS = 50_000
"""The first so many labels, corrections included, are compared: every look reads them all again."""

_TIME_BYTES = 6


class Shadowed(NamedTuple):
    """A shadow of an endpoint since a moment, beside the champion of then."""

    endpoint: str
    model: str
    champion: str
    since_ms: int


class Calls(NamedTuple):
    """How many predictions a shadow was asked for, and how many of these calls failed."""

    asked: int
    failed: int


class Pair(NamedTuple):
    """A label, and what was served and what the shadow predicted for it."""

    unit: str
    label: float
    served: float
    shadow: float


class Pairs(NamedTuple):
    """Pairs in the order of their decisions, and whether there are more labels than may be read."""

    found: list[Pair]
    cut: bool


def read_calls(connection: Connection, shadow: Shadowed) -> Calls:
    """Return how often a shadow was asked for what the champion answered, and failed."""
    table, decisions = schema.shadow_predictions, schema.decisions
    failed = func.coalesce(func.sum(case((table.c.error.is_not(None), 1), else_=0)), 0)
    query = (
        select(func.count(), failed)
        .select_from(table)
        .join(decisions, decisions.c.id == table.c.decision_id)
        .where(table.c.decision_id >= _first_id(shadow), table.c.model == shadow.model, *_compared(shadow))
    )
    asked, failures = connection.execute(query).one()
    return Calls(int(asked), int(failures))


def read_pairs(connection: Connection, shadow: Shadowed, label: str) -> Pairs:
    """Return the labels of what the champion answered and a shadow saw."""
    outcomes, decisions, shadows = schema.outcomes, schema.decisions, schema.shadow_predictions
    query = (
        select(
            outcomes.c.decision_id,
            outcomes.c.item,
            outcomes.c.outcome_id,
            outcomes.c.value,
            decisions.c.unit,
            decisions.c.predictions,
            shadows.c.predictions,
        )
        .join(decisions, decisions.c.id == outcomes.c.decision_id)
        .join(shadows, (shadows.c.decision_id == outcomes.c.decision_id) & (shadows.c.model == shadow.model))
        .where(
            outcomes.c.decision_id >= _first_id(shadow),
            outcomes.c.metric == label,
            *_compared(shadow),
            shadows.c.predictions.is_not(None),
        )
        # Of each id the highest version comes last, and stands.
        .order_by(outcomes.c.decision_id, outcomes.c.item, outcomes.c.outcome_id, outcomes.c.version)
        .limit(MOST_LABELS)
    )
    found: dict[tuple[bytes, int, str], Pair | None] = {}
    read = 0
    for decision_id, item, outcome_id, value, unit, served, shadowed in connection.execute(query):
        found[decision_id, item, outcome_id] = _pair(unit, value, item, served, shadowed)
        read += 1
    return Pairs([pair for pair in found.values() if pair is not None], cut=read == MOST_LABELS)


def _pair(unit: str, value: float | None, item: int, served: str, shadow: str) -> Pair | None:
    predictions = read_predictions(served), read_predictions(shadow)
    if value is None or not all(0 <= item < len(each) for each in predictions):
        return None
    one, other = predictions[0][item], predictions[1][item]
    return None if one is None or other is None else Pair(unit, value, one, other)


def _compared(shadow: Shadowed) -> tuple[ColumnElement[bool], ...]:
    """Return which decisions count: those that the champion answered, and none of whoever tests an arm by hand."""
    table = schema.decisions
    drawn = or_(table.c.epoch.is_(None), table.c.epoch != FORCED)
    return (table.c.endpoint == shadow.endpoint, table.c.served_model == shadow.champion, drawn)


def _first_id(shadow: Shadowed) -> bytes:
    return shadow.since_ms.to_bytes(_TIME_BYTES)
