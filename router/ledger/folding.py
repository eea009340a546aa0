"""Exactly-once folding: outcomes that were really inserted change the statistics, in the same transaction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import Insert, insert

from analysis.statistics.scores import score
from router.decision_id import encode
from router.ledger import schema
from router.ledger.records import ACCEPTED, DUPLICATE, Observation, Receipt
from router.ledger.writing import chunks

_SHARD = 0

_predictions = msgspec.json.Decoder(list[float])
_Key = tuple[bytes, str, int, str]


class _Moments(NamedTuple):
    n: int
    total: float
    squares: float


def record_outcomes(connection: Connection, observations: Sequence[Observation], now_ms: int) -> list[Receipt]:
    """Insert outcomes, fold the new ones into the statistics and return a receipt for each, in order.

    An outcome already recorded with the same value is a duplicate; with another value it is rejected.
    """
    predictions = _predictions_of(connection, {observation.decision_id for observation in observations})
    refusals = [_refusal(observation, predictions) for observation in observations]
    sound = [row for row, refusal in zip(observations, refusals, strict=True) if refusal is None]
    inserted = _insert(connection, sound, predictions, now_ms)
    known = _known_values(connection, sound, inserted)
    fresh: set[_Key] = set()
    receipts = []
    for observation, refusal in zip(observations, refusals, strict=True):
        first = refusal is None and observation.key in inserted and observation.key not in fresh
        if first:
            fresh.add(observation.key)
            known[observation.key] = observation.value
        receipts.append(refusal or (ACCEPTED if first else _repeated(observation, known)))
    new = [row for row, receipt in zip(observations, receipts, strict=True) if receipt is ACCEPTED]
    _fold(connection, new, predictions)
    return receipts


def _refusal(observation: Observation, predictions: Mapping[bytes, Sequence[float]]) -> Receipt | None:
    rows = predictions.get(observation.decision_id)
    if rows is None:
        return Receipt("rejected", f"decision {encode(observation.decision_id)!r} is not in this ledger")
    if observation.item >= len(rows):
        return Receipt("rejected", f"item {observation.item} is out of range: the decision has {len(rows)} input(s)")
    return None


def _repeated(observation: Observation, known: Mapping[_Key, float]) -> Receipt:
    recorded = known[observation.key]
    if recorded == observation.value:
        return DUPLICATE
    return Receipt(
        "rejected",
        f"{observation.metric!r} of this decision and item is already recorded as {recorded:g}, not "
        f"{observation.value:g}; give each of several outcomes its own id",
    )


def _predictions_of(connection: Connection, ids: Iterable[bytes]) -> dict[bytes, list[float]]:
    table = schema.decisions
    found: dict[bytes, list[float]] = {}
    for chunk in chunks(sorted(ids)):
        query = select(table.c.id, table.c.predictions).where(table.c.id.in_(chunk))
        found.update({key: _predictions.decode(text) for key, text in connection.execute(query)})
    return found


def _insert(
    connection: Connection,
    observations: Sequence[Observation],
    predictions: Mapping[bytes, Sequence[float]],
    now_ms: int,
) -> set[_Key]:
    table = schema.outcomes
    key_columns = (table.c.decision_id, table.c.metric, table.c.item, table.c.outcome_id)
    statement = insert(table).on_conflict_do_nothing().returning(*key_columns)
    rows = [
        {
            "decision_id": row.decision_id,
            "metric": row.metric,
            "item": row.item,
            "outcome_id": row.outcome_id,
            "value": row.value,
            "prediction": predictions[row.decision_id][row.item] if row.is_label else None,
            "experiment_id": row.experiment_id,
            "arm": row.arm,
            "occurred_ms": row.occurred_ms,
            "received_ms": now_ms,
        }
        for row in observations
    ]
    if not rows:
        return set()
    return {tuple(key) for key in connection.execute(statement, rows)}


def _known_values(
    connection: Connection, observations: Sequence[Observation], inserted: set[_Key]
) -> dict[_Key, float]:
    """Return the recorded values of the outcomes that were not inserted because they stood there already."""
    table = schema.outcomes
    key_columns = (table.c.decision_id, table.c.metric, table.c.item, table.c.outcome_id)
    # By decision alone: SQLite would scan the table for a list of whole keys.
    ids = sorted({row.decision_id for row in observations if row.key not in inserted})
    known: dict[_Key, float] = {}
    for chunk in chunks(ids):
        query = select(*key_columns, table.c.value).where(table.c.decision_id.in_(chunk))
        for decision_id, metric, item, outcome_id, value in connection.execute(query):
            known[decision_id, metric, item, outcome_id] = value
    return known


def _fold(
    connection: Connection, observations: Iterable[Observation], predictions: Mapping[bytes, Sequence[float]]
) -> None:
    sums: dict[tuple[int, int, str, int], _Moments] = defaultdict(lambda: _Moments(0, 0.0, 0.0))
    for row in observations:
        if row.experiment_id is None or row.arm is None:
            continue
        prediction = predictions[row.decision_id][row.item]
        for fold in row.folds:
            value = row.value if fold.score is None else score(fold.score, prediction, row.value)
            key = (row.experiment_id, row.arm, fold.metric, row.minute)
            total = sums[key]
            sums[key] = _Moments(total.n + 1, total.total + value, total.squares + value * value)
    if sums:
        connection.execute(_ADD, [_statistics_row(key, total) for key, total in sorted(sums.items())])


def _statistics_row(key: tuple[int, int, str, int], total: _Moments) -> dict[str, object]:
    experiment_id, arm, metric, minute = key
    return {
        "experiment_id": experiment_id,
        "arm": arm,
        "metric": metric,
        "minute": minute,
        "shard": _SHARD,
        "count": total.n,
        "sum": total.total,
        "sum_squares": total.squares,
    }


def _adding_statement() -> Insert:
    table = schema.statistics
    statement = insert(table)
    added = {name: table.c[name] + statement.excluded[name] for name in ("count", "sum", "sum_squares")}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=added)


_ADD = _adding_statement()
