"""Whether every outcome is about the decision that its id says, and the statistics are what outcomes add up to."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection

from router.assignment.epochs import INTERLEAVED
from router.decision_id import SIZE, DecisionId, Signer, unpack
from router.ledger.contributions import Fold, Moments, Stated, contribution, is_label
from router.ledger.decided import Decided, credited_arms, read_predictions
from router.ledger.evidence import Whose
from router.ledger.statistics import MS_PER_MINUTE
from router.verification.evidence import Evidence
from router.verification.experiments import Known
from router.verification.findings import Findings, shown, shown_id
from router.verification.reading import BYTES, INTEGER, NUMBER, OPTIONAL, TEXT, TRUTH, Kinds, of_experiment, stream
from router.verification.regressions import Regressions
from router.verification.statistics import Statistic, Statistics, oldest_minute

_KINDS: Kinds = {
    "decision_id": BYTES,
    "metric": TEXT,
    "item": INTEGER,
    "outcome_id": TEXT,
    "version": INTEGER,
    "value": NUMBER | OPTIONAL,
    "prediction": NUMBER | OPTIONAL,
    "experiment_id": INTEGER | OPTIONAL,
    "arm": INTEGER | OPTIONAL,
    "counted": TRUTH,
    "occurred_ms": INTEGER,
    "predictions": TEXT | OPTIONAL,
    "shown": TEXT | OPTIONAL,
    "draw": TEXT | OPTIONAL,
    "context": TEXT | OPTIONAL,
    "unit": TEXT | OPTIONAL,
}
_DECIDED = ("predictions", "shown", "draw", "context", "unit")
_SELECTED = ", ".join(f"{'decisions' if name in _DECIDED else 'outcomes'}.{name}" for name in _KINDS)


class _Outcome(NamedTuple):
    """A row of the query: an outcome, and the predictions of its decision (None if that is not there)."""

    decision_id: bytes
    metric: str
    item: int
    outcome_id: str
    version: int
    value: float | None
    prediction: float | None
    experiment_id: int | None
    arm: int | None
    counted: bool
    occurred_ms: int
    predictions: str | None
    shown: str | None
    draw: str | None
    context: str | None
    unit: str | None

    def __str__(self) -> str:
        said_by = f", id {self.outcome_id!r}" if self.outcome_id else ""
        correction = f", version {self.version}" if self.version else ""
        return f"{shown_id(self.decision_id)} {shown(self.metric)}[{self.item}]{said_by}{correction}"


class Outcomes:
    """Checks the outcomes of a ledger and adds them up again."""

    def __init__(
        self,
        connection: Connection,
        signer: Signer,
        experiments: Mapping[int, Known],
        findings: Findings,
        decided: Mapping[Statistic, Moments],
        regressions: Regressions,
        evidence: Evidence,
    ) -> None:
        self._decided = decided
        self._regressions = regressions
        self._evidence = evidence
        self._connection = connection
        self._signer = signer
        self._experiments = experiments
        self._findings = findings

    def check(self, only: int | None = None) -> None:
        """Check every outcome and every statistic, or those of one experiment."""
        # In the order of the primary key: by decision, and so by time.
        statement = (
            f"select {_SELECTED} from outcomes "  # noqa: S608 (our own names)
            f"left join decisions on decisions.id = outcomes.decision_id{of_experiment(only, 'outcomes')} "
            "order by outcomes.decision_id, outcomes.metric, outcomes.item"
        )
        chunks = stream(self._connection, statement)
        sound = self._findings.sound("outcomes", chunks, _KINDS, lambda row: str(_Outcome(*row)))
        statistics = Statistics(self._connection, self._findings, self._decided, only)
        for raw, rows in groupby(map(_Outcome._make, chain.from_iterable(sound)), key=itemgetter(0)):
            self._check_decision(raw, list(rows), statistics)
        statistics.complete()
        self._regressions.complete(self._connection, self._findings, oldest_minute(self._connection), only)
        self._evidence.complete(self._connection, self._findings, statistics.forgotten, only)

    def _check_decision(self, raw: bytes, rows: Sequence[_Outcome], statistics: Statistics) -> None:
        # The ids of decisions that are there have been checked with them.
        if len(raw) != SIZE or (rows[0].predictions is None and not self._signer.signed(raw)):
            for row in rows:
                self._fail(row, "signature", "one of our secrets", "none of them")
            return
        said, decided = unpack(raw), _read_decided(rows[0])
        for _, group in groupby(rows, key=itemgetter(1, 2)):
            self._check_item(said, decided, list(group), statistics)

    def _check_item(
        self, said: DecisionId, decided: Decided | None, rows: Sequence[_Outcome], statistics: Statistics
    ) -> None:
        folded = self._folds(said, rows)
        for row in rows:
            self._check_copies(row, said)
        prediction, credited = rows[0].prediction, {said.arm: 1.0}
        if decided is None:
            self._check_waiting(rows)
            # Their decision is gone, which is a failure already; what they were counted for must still be there.
            rows = [row for row in rows if row.counted]
        elif decided.counts(rows[0].item, folded):
            item = rows[0].item
            prediction, credited = decided.prediction(item), {**credited_arms(said.arm, item, decided)}
            self._check_counted(rows, prediction if is_label(folded) else None)
        else:
            self._check_not_there(rows, decided)
            return
        if rows:
            weight = self._evidence.weigh(said) if folded else None
            for arm, credit in credited.items():
                self._add(said._replace(arm=arm), folded, rows, prediction, credit, weight, statistics)

    def _add(
        self,
        said: DecisionId,
        folded: Iterable[Fold],
        rows: Sequence[_Outcome],
        prediction: float | None,
        credit: float,
        weight: float | None,
        statistics: Statistics,
    ) -> None:
        """Add what an item contributes to each statistic that it feeds."""
        statements = {(row.outcome_id, row.version): Stated(row.value, row.occurred_ms, row.counted) for row in rows}
        for fold in folded:
            moments = contribution(fold.metric, statements, prediction, said.decided_ms).scaled(credit)
            scale = abs(moments.total)
            if len(statements) > 1:
                alone = (
                    contribution(fold.metric, {key: each}, prediction, said.decided_ms)
                    for key, each in statements.items()
                )
                scale = sum(abs(each.total) for each in alone)
            minute = said.decided_ms // MS_PER_MINUTE
            statistic = Statistic(minute, said.experiment_id, said.arm, fold.statistic)
            statistics.add(statistic, moments, scale)
            self._regressions.observed(statistic, fold, moments, scale, rows[0].context)
            if weight is not None and rows[0].unit is not None:
                whose = Whose(*statistic[1:])
                self._evidence.observed(whose, rows[0].unit, weight, moments, scale, len(statements))

    def _folds(self, said: DecisionId, rows: Sequence[_Outcome]) -> tuple[Fold, ...]:
        """Return the statistics that an item feeds."""
        if not said.is_drawn:
            return ()
        known = self._experiments.get(said.experiment_id)
        for row in rows:
            if known is None:
                self._fail(row, "experiment_id", "an experiment of this ledger", said.experiment_id)
            elif row.metric not in known.folds:
                self._fail(row, "metric", f"one of {sorted(known.folds)}", row.metric)
        return () if known is None else known.folds.get(rows[0].metric, ())

    def _check_copies(self, row: _Outcome, said: DecisionId) -> None:
        expected = (said.experiment_id, said.arm) if said.is_drawn else (None, None)
        if (row.experiment_id, row.arm) != expected:
            self._fail(row, "experiment_id, arm", expected, (row.experiment_id, row.arm))
        if row.value is None and row.version == 0:
            self._fail(row, "value", "a number, for only a later version can retract", None)

    def _check_waiting(self, rows: Iterable[_Outcome]) -> None:
        for row in rows:
            if row.counted:
                self._fail(row, "decision_id", "a decision of this ledger, since it is counted", "none")
            elif row.prediction is not None:
                self._fail(row, "prediction", "null, until its decision comes", row.prediction)
            else:
                self._findings.waiting += 1

    def _check_counted(self, rows: Iterable[_Outcome], prediction: float | None) -> None:
        for row in rows:
            if row.counted != 1:
                self._fail(row, "counted", "true, since its decision is there", row.counted)
            if row.prediction != prediction:
                self._fail(row, "prediction", prediction, row.prediction)

    def _check_not_there(self, rows: Sequence[_Outcome], decided: Decided) -> None:
        inputs = len(decided.predictions)
        expected = f"0 to {inputs - 1}, for the decision has {inputs} input(s)"
        if decided.has(rows[0].item):
            expected = f"one of {decided.shown}, which were shown"
        for row in rows:
            if row.counted or row.item < 0:
                self._fail(row, "item", expected, row.item)
            else:
                self._findings.out_of_range += 1

    def _fail(self, row: _Outcome, what: str, expected: object, found: object) -> None:
        self._findings.fail("outcomes", str(row), what, expected, found)


def _read_decided(row: _Outcome) -> Decided | None:
    """Return what was decided, nothing if that cannot be read, and None if it is not there."""
    if row.predictions is None:
        return None
    try:
        decided = Decided(read_predictions(row.predictions), None, row.shown, row.draw)
        if decided.showed(row.item):
            credited_arms(INTERLEAVED, row.item, decided)
    except (msgspec.DecodeError, IndexError):
        # That is a failure of the decision, which has been found with it.
        return Decided((), None, None, None)
    return decided
