"""Exactly-once folding: what outcomes change in the statistics, in the transaction that records them.

An outcome may come before its decision has reached the ledger, which then waits in another router's spool: it is
stored, and counted when the decision comes.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from router.decision_id import encode
from router.documents import Experiment
from router.ledger import schema
from router.ledger.contributions import NOTHING, Fold, Moments, Stated, contribution, folds, is_label
from router.ledger.records import ACCEPTED, DUPLICATE, Item, Observation, Receipt, decided_ms
from router.ledger.statements import among, insert_into, insert_missing, lock_outcomes

MS_PER_MINUTE = 60_000

_SHARD = 0

_predictions = msgspec.json.Decoder(list[float])
_Key = tuple[str, int]
_Statements = dict[Item, dict[_Key, Stated]]
_Statistic = tuple[int, int, str, int]
_Touched = dict[Item, tuple[int | None, int | None]]
"""Items whose outcomes changed, with the experiment and arm of their decision."""


class Folder:
    """Records outcomes and keeps the statistics equal to what they add up to."""

    def __init__(self) -> None:
        # A started experiment's metrics never change.
        self._folds: dict[tuple[int, str], tuple[Fold, ...]] = {}

    def record(self, connection: Connection, observations: Sequence[Observation], now_ms: int) -> list[Receipt]:
        """Insert outcomes, fold the new ones into the statistics and return a receipt for each, in order.

        An outcome already recorded with the same version and value is a duplicate; with another value it is rejected.
        """
        lock_outcomes(connection)
        ids = {observation.decision_id for observation in observations}
        predictions = _predictions_of(connection, ids)
        said = _stored_statements(connection, ids)
        waited = {about for about, statements in said.items() if not all(each.counted for each in statements.values())}
        receipts, new = [], []
        for observation in observations:
            receipt = _receipt(observation, said[observation.about], predictions.get(observation.decision_id))
            receipts.append(receipt)
            if receipt is ACCEPTED:
                new.append(observation)
                stated = Stated(observation.value, observation.occurred_ms, counted=False)
                said[observation.about][observation.outcome_id, observation.version] = stated
        self._insert(connection, new, predictions, now_ms)
        touched = {row.about: (row.experiment_id, row.arm) for row in new}
        self._mark_counted(connection, {about: touched[about] for about in touched.keys() & waited}, predictions)
        self._fold(connection, touched, said, predictions)
        return receipts

    def settle(self, connection: Connection, ids: Collection[bytes]) -> None:
        """Count the outcomes that came before these decisions did."""
        lock_outcomes(connection)
        table = schema.outcomes
        waiting: _Touched = {}
        columns = (table.c.decision_id, table.c.metric, table.c.item, table.c.experiment_id, table.c.arm)
        for these in among(connection, table.c.decision_id, ids):
            query = select(*columns).where(these, table.c.counted.is_(False))
            waiting |= {Item(*row[:3]): (row[3], row[4]) for row in connection.execute(query)}
        late = {about.decision_id for about in waiting}
        predictions = _predictions_of(connection, late)
        said = _stored_statements(connection, late)
        self._mark_counted(connection, waiting, predictions)
        self._fold(connection, waiting, said, predictions)

    def folds(self, connection: Connection, experiment_id: int | None, outcome: str) -> tuple[Fold, ...]:
        """Return the statistics that an outcome of this name feeds; none outside experiments."""
        if experiment_id is None:
            return ()
        known = self._folds.get((experiment_id, outcome))
        if known is None:
            table = schema.experiments
            document = connection.scalar(select(table.c.document).where(table.c.id == experiment_id))
            if document is None:
                return ()
            known = self._folds[experiment_id, outcome] = folds(msgspec.json.decode(document, type=Experiment), outcome)
        return known

    def _insert(
        self,
        connection: Connection,
        observations: Iterable[Observation],
        predictions: Mapping[bytes, Sequence[float]],
        now_ms: int,
    ) -> None:
        rows = [
            (
                *row[:6],
                self._prediction(connection, row.about, row.experiment_id, predictions),
                row.experiment_id,
                row.arm,
                row.decision_id in predictions,
                row.occurred_ms,
                now_ms,
            )
            for row in observations
        ]
        insert_missing(connection, schema.outcomes, rows)

    def _mark_counted(
        self, connection: Connection, waiting: _Touched, predictions: Mapping[bytes, Sequence[float]]
    ) -> None:
        """Say of outcomes that came before their decision that they are counted now."""
        rows = [
            {
                "about_decision": about.decision_id,
                "about_metric": about.metric,
                "about_item": about.item,
                "prediction": self._prediction(connection, about, experiment_id, predictions),
            }
            for about, (experiment_id, _) in waiting.items()
            if _is_known(about, predictions)
        ]
        if rows:
            connection.execute(_COUNT, rows)

    def _prediction(
        self,
        connection: Connection,
        about: Item,
        experiment_id: int | None,
        predictions: Mapping[bytes, Sequence[float]],
    ) -> float | None:
        """Return what was predicted for an item whose outcome is a label."""
        if _is_known(about, predictions) and is_label(self.folds(connection, experiment_id, about.metric)):
            return predictions[about.decision_id][about.item]
        return None

    def _fold(
        self,
        connection: Connection,
        touched: _Touched,
        said: _Statements,
        predictions: Mapping[bytes, Sequence[float]],
    ) -> None:
        """Add the difference between what the items are worth now and what was counted of them."""
        changes: dict[_Statistic, Moments] = defaultdict(lambda: NOTHING)
        for about, (experiment_id, arm) in touched.items():
            if experiment_id is None or arm is None or not _is_known(about, predictions):
                continue
            counted = {key: stated for key, stated in said[about].items() if stated.counted}
            made_ms, prediction = decided_ms(about.decision_id), predictions[about.decision_id][about.item]
            for fold in self.folds(connection, experiment_id, about.metric):
                after = contribution(fold.metric, said[about], prediction, made_ms)
                before = contribution(fold.metric, counted, prediction, made_ms)
                changes[experiment_id, arm, fold.statistic, made_ms // MS_PER_MINUTE] += after - before
        rows = [_statistics_row(key, change) for key, change in sorted(changes.items()) if change != NOTHING]
        if rows:
            connection.execute(_adding(connection), rows)


def _receipt(observation: Observation, said: Mapping[_Key, Stated], predictions: Sequence[float] | None) -> Receipt:
    known = said.get((observation.outcome_id, observation.version))
    if known is not None:
        return DUPLICATE if known.value == observation.value else _contradiction(observation, known.value)
    if predictions is not None and observation.item >= len(predictions):
        return Receipt(
            "rejected", f"item {observation.item} is out of range: the decision has {len(predictions)} input(s)"
        )
    return ACCEPTED


def _contradiction(observation: Observation, recorded: float | None) -> Receipt:
    stands = "retracted" if recorded is None else f"recorded as {recorded:g}"
    says = "a retraction" if observation.value is None else f"{observation.value:g}"
    return Receipt(
        "rejected",
        f"{observation.metric!r} of decision {encode(observation.decision_id)!r}, item {observation.item}, is already "
        f"{stands} in version {observation.version}, not {says}; correct it with a higher version, or give each of "
        "several outcomes its own id",
    )


def _is_known(about: Item, predictions: Mapping[bytes, Sequence[float]]) -> bool:
    return about.item < len(predictions.get(about.decision_id, ()))


def _predictions_of(connection: Connection, ids: Collection[bytes]) -> dict[bytes, list[float]]:
    table = schema.decisions
    found: dict[bytes, list[float]] = {}
    for these in among(connection, table.c.id, ids):
        query = select(table.c.id, table.c.predictions).where(these)
        found.update({key: _predictions.decode(text) for key, text in connection.execute(query)})
    return found


def _stored_statements(connection: Connection, ids: Collection[bytes]) -> _Statements:
    table = schema.outcomes
    columns = [table.c[name] for name in (*Item._fields, "outcome_id", "version", *Stated._fields)]
    said: _Statements = defaultdict(dict)
    # By decision alone: SQLite would scan the table for a list of whole keys.
    for these in among(connection, table.c.decision_id, ids):
        for row in connection.execute(select(*columns).where(these)):
            said[Item(*row[:3])][row[3], row[4]] = Stated(*row[5:])
    return said


def _statistics_row(key: _Statistic, change: Moments) -> dict[str, object]:
    experiment_id, arm, metric, minute = key
    return {
        "experiment_id": experiment_id,
        "arm": arm,
        "metric": metric,
        "minute": minute,
        "shard": _SHARD,
        "count": change.n,
        "sum": change.total,
        "sum_squares": change.squares,
    }


def _adding(connection: Connection) -> Any:
    table = schema.statistics
    statement = insert_into(connection, table)
    added = {name: table.c[name] + statement.excluded[name] for name in ("count", "sum", "sum_squares")}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=added)


_COUNT = (
    update(schema.outcomes)
    .where(
        schema.outcomes.c.decision_id == bindparam("about_decision"),
        schema.outcomes.c.metric == bindparam("about_metric"),
        schema.outcomes.c.item == bindparam("about_item"),
    )
    .values(counted=True, prediction=bindparam("prediction"))
)
