"""Small real ledgers and rows for the tests of this folder."""

import os
from itertools import count

from sqlalchemy import Engine, Table, func, select

from router.allocation.tables import fixed_counts
from router.assignment.epochs import Epoch, fresh
from router.decision_id import NO_EXPERIMENT, DecisionId, Signer
from router.documents import (
    AnyMetric,
    Arm,
    BinaryMetric,
    Contextual,
    Experiment,
    NumberFeature,
    NumericMetric,
    RatioMetric,
    ScoreMetric,
    Split,
)
from router.keys import LOCAL
from router.ledger.control import ControlTables
from router.ledger.control_writing import Change
from router.ledger.records import DecisionRow, Observation

SIGNER = Signer(["a secret of enough length"])
NOW_MS = 1_700_000_000_000
_sequence = count()

EXPERIMENT = Experiment(
    name="first",
    endpoint="delay",
    arms=[Arm(name="control", model="delay@1"), Arm(name="new", model="delay@2"), Arm(name="newer", model="delay@3")],
    allocation=Split(weights={"control": 0.5, "new": 0.25, "newer": 0.25}),
    metrics=[
        ScoreMetric(name="brier", score="brier", label="late", direction="decrease", role="primary"),
        BinaryMetric(name="click", default=0, window_s=60, direction="increase"),
        NumericMetric(name="revenue", direction="increase"),
        RatioMetric(name="yield", numerator="revenue", denominator="seats", direction="increase"),
    ],
)


def store_experiment(engine: Engine, document: Experiment = EXPERIMENT) -> None:
    """Store a started experiment."""
    tables = ControlTables(engine)
    tables.create_experiment(document, NOW_MS, actor=LOCAL)
    record = tables.experiment(document.name)
    epoch = Epoch(1, fresh(fixed_counts(document)))
    change = Change(document, "running", NOW_MS, None, epoch, "start")
    tables.change_experiment(record, change, NOW_MS, actor=LOCAL, action="start")


def store_contextual(engine: Engine, metric: AnyMetric) -> int:
    """Store a bandit that learns the metric from the hour; return its id."""
    allocation = Contextual(metric=metric.name, features=[NumberFeature(name="hour", low=0, high=24)])
    document = Experiment(
        name="learns", endpoint="delay", arms=EXPERIMENT.arms[:2], allocation=allocation, metrics=[metric]
    )
    tables = ControlTables(engine)
    tables.create_experiment(document, NOW_MS, actor=LOCAL)
    return tables.experiment(document.name).id


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
    value: float | None = 1.0,
    metric: str = "late",
    item: int = 0,
    outcome_id: str = "",
    version: int = 0,
    after_s: int = 1,
    dated: bool = True,
) -> Observation:
    """Return an outcome of a decision that happened so many seconds after it."""
    return Observation(
        decision_id=row.id,
        metric=metric,
        item=item,
        outcome_id=outcome_id,
        version=version,
        value=value,
        experiment_id=row.experiment_id,
        arm=row.arm,
        occurred_ms=row.decided_ms + 1000 * after_s,
        dated=dated,
    )


def rows_in(engine: Engine, table: Table) -> int:
    """Return how many rows a table has."""
    with engine.connect() as connection:
        found: int = connection.execute(select(func.count()).select_from(table)).scalar_one()
    return found
