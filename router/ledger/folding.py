"""Exactly-once folding: what outcomes change in the statistics, in the transaction that records them.

An outcome may come before its decision has reached the ledger, which then waits in another router's spool: it is
stored, and counted when the decision comes.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from sqlalchemy import Connection, bindparam, select, update

from router.allocation.contextual import encode as encode_context
from router.decision_id import FORCED, epoch_of
from router.documents import AnyFeature, Experiment
from router.ledger import schema
from router.ledger.contributions import (
    ITEMS,
    NOTHING,
    Fold,
    Moments,
    Stated,
    contribution,
    counted_features,
    folds,
    is_label,
)
from router.ledger.decided import Decided, context_of, credited_arms, items_of, known_decisions, read_context
from router.ledger.evidence import Evidence, add_evidence
from router.ledger.receipts import happened_ms, receipt_of
from router.ledger.records import ACCEPTED, DecisionRow, Item, Observation, Receipt, decided_ms
from router.ledger.regressions import Sums, add_regressions, sums_of
from router.ledger.restoring import Taken, note_taken, restore
from router.ledger.restoring_evidence import restore_evidence
from router.ledger.statements import copied, equal_to_any, insert_missing, lock_outcomes, select_by_key
from router.ledger.statistics import MS_PER_MINUTE, OUTCOMES_SHARD, Statistic, add_statistics
from router.ledger.weights import Weights

_Statements = dict[Item, dict[tuple[str, int], Stated]]
_Known = Mapping[bytes, Decided]
_Touched = dict[Item, tuple[int | None, int | None]]
"""Items whose outcomes changed, with the experiment and arm of their decision."""


class _Draw(NamedTuple):
    """What decisions have in common that count alike."""

    experiment_id: int
    epoch: int
    arm: int
    propensity: float
    minute: int


class Folder:
    """Records outcomes and keeps the statistics equal to what they add up to."""

    def __init__(self) -> None:
        # Of a started experiment, what is read of it here never changes: metrics, features and `slow_ms`.
        self._folds: dict[tuple[int, str], tuple[Fold, ...]] = {}
        self._experiments: dict[int, Experiment] = {}
        self._weights = Weights()

    def record(self, connection: Connection, observations: Sequence[Observation], now_ms: int) -> list[Receipt]:
        """Insert outcomes, fold the new ones into the statistics and return a receipt for each, in order.

        An outcome already recorded with the same version and value is a duplicate; with another value it is rejected.
        """
        lock_outcomes(connection)
        ids = {observation.decision_id for observation in observations}
        known = known_decisions(connection, ids)
        said = _stored_statements(connection, ids)
        waited = {about for about, statements in said.items() if not all(each.counted for each in statements.values())}
        receipts, new = [], []
        for observation in observations:
            folded = self.folds(connection, observation.experiment_id, observation.metric)
            about = said[observation.about]
            receipt = receipt_of(observation, about, known.get(observation.decision_id), folded)
            receipts.append(receipt)
            if receipt is ACCEPTED:
                occurred_ms = happened_ms(observation, about)
                is_new = occurred_ms == observation.occurred_ms
                new.append(observation if is_new else observation._replace(occurred_ms=occurred_ms))
                stated = Stated(observation.value, occurred_ms, counted=False)
                about[observation.outcome_id, observation.version] = stated
        self._insert(connection, new, known, now_ms)
        touched = {row.about: (row.experiment_id, row.arm) for row in new}
        self._mark_counted(connection, {about: touched[about] for about in touched.keys() & waited}, known)
        self._fold(connection, touched, said, known)
        return receipts

    def settle(self, connection: Connection, ids: Collection[bytes]) -> None:
        """Count the outcomes that came before these decisions did."""
        lock_outcomes(connection)
        table = schema.outcomes
        waiting: _Touched = {}
        columns = (table.c.decision_id, table.c.metric, table.c.item, table.c.experiment_id, table.c.arm)
        for these in equal_to_any(connection, table.c.decision_id, ids):
            query = select(*columns).where(these, table.c.counted.is_(False))
            waiting |= {Item(*row[:3]): (row[3], row[4]) for row in connection.execute(query)}
        late = {about.decision_id for about in waiting}
        known = known_decisions(connection, late)
        said = _stored_statements(connection, late)
        self._mark_counted(connection, waiting, known)
        self._fold(connection, waiting, said, known)

    def count(self, connection: Connection, rows: Iterable[DecisionRow], shard: int) -> None:
        """Count the items of decisions that have just been inserted and that an experiment drew."""
        counts: dict[Statistic, Moments] = defaultdict(lambda: NOTHING)
        regressions: dict[Statistic, Sums] = {}
        evidence = Evidence()
        for draw, drawn in _by_draw(rows).items():
            statistic = Statistic(draw.experiment_id, draw.arm, ITEMS, draw.minute)
            items = [items_of(row.predictions, row.shown) for row in drawn]
            counts[statistic] += Moments(len(items), sum(items), sum(each * each for each in items))
            document = self._document(connection, draw.experiment_id)
            if document is None:
                continue
            weight = self._weights.weigh(connection, draw.experiment_id, draw.epoch, draw.arm, draw.propensity)
            if weight is not None:
                evidence.decided(document, statistic, drawn, items, weight)
            if features := counted_features(document):
                added = _regression(features, drawn, items)
                regressions[statistic] = regressions[statistic] + added if statistic in regressions else added
        add_statistics(connection, counts, shard)
        add_evidence(connection, evidence.sums(), shard)
        if regressions:
            lock_outcomes(connection)
            add_regressions(connection, regressions)

    def folds(self, connection: Connection, experiment_id: int | None, outcome: str) -> tuple[Fold, ...]:
        """Return the statistics that an outcome of this name feeds; none outside experiments."""
        if experiment_id is None:
            return ()
        known = self._folds.get((experiment_id, outcome))
        if known is None:
            document = self._document(connection, experiment_id)
            if document is None:
                return ()
            known = self._folds[experiment_id, outcome] = folds(document, outcome)
        return known

    def _document(self, connection: Connection, experiment_id: int) -> Experiment | None:
        known = self._experiments.get(experiment_id)
        if known is None:
            table = schema.experiments
            document = connection.scalar(select(table.c.document).where(table.c.id == experiment_id))
            if document is None:
                return None
            known = self._experiments[experiment_id] = msgspec.json.decode(document, type=Experiment)
        return known

    def _insert(
        self,
        connection: Connection,
        observations: Iterable[Observation],
        known: _Known,
        now_ms: int,
    ) -> None:
        rows = [
            (
                *row[:6],
                self._prediction(connection, row.about, row.experiment_id, known),
                row.experiment_id,
                row.arm,
                row.decision_id in known,
                row.occurred_ms,
                now_ms,
            )
            for row in observations
        ]
        # What is known was looked up under the lock, so these are new.
        if not copied(connection, schema.outcomes, rows):
            insert_missing(connection, schema.outcomes, rows)

    def _mark_counted(self, connection: Connection, waiting: _Touched, known: _Known) -> None:
        """Say of outcomes that came before their decision that they are counted now."""
        rows = [
            {
                "about_decision": about.decision_id,
                "about_metric": about.metric,
                "about_item": about.item,
                "prediction": self._prediction(connection, about, experiment_id, known),
            }
            for about, (experiment_id, _) in waiting.items()
            if self._counts(connection, about, experiment_id, known)
        ]
        if rows:
            connection.execute(_COUNT, rows)

    def _prediction(
        self,
        connection: Connection,
        about: Item,
        experiment_id: int | None,
        known: _Known,
    ) -> float | None:
        """Return what was predicted for an item whose outcome is a label."""
        if about.decision_id in known and is_label(self.folds(connection, experiment_id, about.metric)):
            return known[about.decision_id].prediction(about.item)
        return None

    def _counts(self, connection: Connection, about: Item, experiment_id: int | None, known: _Known) -> bool:
        """Return whether the statistics contain the outcomes of an item, if they are fed by any."""
        folded = self.folds(connection, experiment_id, about.metric)
        return about.decision_id in known and known[about.decision_id].counts(about.item, folded)

    def _fold(
        self,
        connection: Connection,
        touched: _Touched,
        said: _Statements,
        known: _Known,
    ) -> None:
        """Add the difference between what the items are worth now and what was counted of them."""
        changes: dict[Statistic, Moments] = defaultdict(lambda: NOTHING)
        regressions: dict[Statistic, Sums] = {}
        taken: dict[Statistic, Taken] = {}
        evidence = Evidence()
        for about, (experiment_id, arm) in touched.items():
            if experiment_id is None or arm is None or not self._counts(connection, about, experiment_id, known):
                continue
            statements = said[about]
            counted = {key: stated for key, stated in statements.items() if stated.counted}
            decided, made_ms = known[about.decision_id], decided_ms(about.decision_id)
            prediction, credited = decided.prediction(about.item), credited_arms(arm, about.item, decided)
            weight = self._weights.weigh(
                connection, experiment_id, epoch_of(about.decision_id), arm, decided.propensity
            )
            for fold in self.folds(connection, experiment_id, about.metric):
                after = contribution(fold.metric, statements, prediction, made_ms)
                before = contribution(fold.metric, counted, prediction, made_ms) if counted else NOTHING
                for number, credit in credited.items():
                    statistic = Statistic(experiment_id, number, fold.statistic, made_ms // MS_PER_MINUTE)
                    changed = after.scaled(credit) - before.scaled(credit)
                    changes[statistic] += changed
                    if weight is not None:
                        evidence.observed(statistic, fold.metric, decided.unit, weight, changed)
                    if before.squares and after != before:
                        note_taken(taken, statistic, Taken(before.scaled(credit).squares, about.metric, fold))
                if fold.features:
                    added = sums_of(encode_context(fold.features, context_of(decided)), *(after - before))
                    regressions[statistic] = regressions[statistic] + added if statistic in regressions else added
        add_statistics(connection, changes, OUTCOMES_SHARD)
        add_evidence(connection, evidence.sums(), OUTCOMES_SHARD)
        add_regressions(connection, regressions)
        restore(connection, taken)
        restore_evidence(connection, taken, self._weights)


def _by_draw(rows: Iterable[DecisionRow]) -> dict[_Draw, list[DecisionRow]]:
    """Return the decisions that an experiment drew, those together that count alike: looking up costs once for all."""
    found: dict[tuple[int, int, int, float, int], list[DecisionRow]] = defaultdict(list)
    for row in rows:
        experiment_id, epoch, arm = row.experiment_id, row.epoch, row.arm
        if experiment_id is not None and epoch is not None and arm is not None and epoch != FORCED:
            found[experiment_id, epoch, arm, row.propensity, row.decided_ms // MS_PER_MINUTE].append(row)
    return {_Draw(*key): drawn for key, drawn in found.items()}


def _regression(features: Sequence[AnyFeature], rows: Sequence[DecisionRow], items: Sequence[int]) -> Sums:
    """Return what decisions add to the sums of a regression whatever comes of them."""
    contexts = ({} if row.context is None else read_context(row.context) for row in rows)
    sums = [sums_of(encode_context(features, each), n, 0.0, 0.0) for each, n in zip(contexts, items, strict=True)]
    total: Sums = np.sum(sums, axis=0)
    return total


def _stored_statements(connection: Connection, ids: Collection[bytes]) -> _Statements:
    names = (*Item._fields, "outcome_id", "version", *Stated._fields)
    said: _Statements = defaultdict(dict)
    # By decision alone: SQLite would scan the table for a list of whole keys.
    for *about, outcome_id, version, value, occurred_ms, counted in select_by_key(
        connection, schema.outcomes, names, "decision_id", ids
    ):
        said[Item(*about)][outcome_id, version] = Stated(value, occurred_ms, bool(counted))
    return said


_COUNT = (
    update(schema.outcomes)
    .where(
        schema.outcomes.c.decision_id == bindparam("about_decision"),
        schema.outcomes.c.metric == bindparam("about_metric"),
        schema.outcomes.c.item == bindparam("about_item"),
    )
    .values(counted=True, prediction=bindparam("prediction"))
)
