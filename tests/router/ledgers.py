"""Small real ledgers and rows for the tests of this folder."""

import os
from itertools import count

from sqlalchemy import Engine, Table, func, select

from router.decision_id import NO_EXPERIMENT, DecisionId, Signer
from router.ledger.records import DecisionRow, Fold, Observation

SIGNER = Signer(["a secret of enough length"])
NOW_MS = 1_700_000_000_000
_sequence = count()


def decision(predictions: str = "[0.25]", experiment_id: int = 1, arm: int = 0, unit: str = "u") -> DecisionRow:
    """Return a decision row that no other call returns."""
    now_ms = NOW_MS + next(_sequence)
    content = DecisionId(now_ms, experiment_id, 1, arm, 5000, os.urandom(8))
    return DecisionRow(
        id=SIGNER.sign(content),
        decided_ms=now_ms,
        endpoint="delay",
        experiment_id=experiment_id if experiment_id != NO_EXPERIMENT else None,
        epoch=1,
        arm=arm,
        propensity=0.5,
        unit=unit,
        model="delay@1",
        served_model="delay@1",
        fallback=None,
        context=None,
        inputs='[{"x":1.0}]',
        predictions=predictions,
    )


def outcome(
    row: DecisionRow,
    value: float = 1.0,
    metric: str = "late",
    item: int = 0,
    outcome_id: str = "",
    folds: tuple[Fold, ...] = (Fold("brier", "brier"),),
) -> Observation:
    """Return an outcome of a decision."""
    return Observation(
        decision_id=row.id,
        metric=metric,
        item=item,
        outcome_id=outcome_id,
        value=value,
        experiment_id=row.experiment_id,
        arm=row.arm,
        minute=row.decided_ms // 60_000,
        occurred_ms=row.decided_ms + 1000,
        folds=folds if row.experiment_id is not None else (),
    )


def rows_in(engine: Engine, table: Table) -> int:
    """Return how many rows a table has."""
    with engine.connect() as connection:
        found: int = connection.execute(select(func.count()).select_from(table)).scalar_one()
    return found
