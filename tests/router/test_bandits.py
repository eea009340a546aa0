"""Publishing the epochs of bandits: what is known, and what one that cannot be computed does to the others."""

import math
import os
from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, update

from analysis.statistics.thompson import Evidence
from router.allocation.bandit import Known, bandit_epoch
from router.bandits import BanditPublisher, what_is_known
from router.decision_id import DecisionId
from router.documents import Arm, BinaryMetric, Contextual, Experiment, NumericMetric, Thompson
from router.documents.allocations import AnyAllocation, AnyFeature, NumberFeature
from router.documents.metrics import AnyMetric
from router.errors import Conflict
from router.ledger import schema
from router.ledger.control import ControlTables
from router.ledger.control_writing import Change, ExperimentRecord
from router.ledger.folding import Folder
from router.ledger.records import DecisionRow, Observation
from router.ledger.rollup import roll_up
from router.ledger.writing import insert_decisions
from router.verification import Failure, verify
from tests.router.ledgers import NOW_MS, SIGNER, decision, outcome

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
HOUR = NOW_MS // HOUR_MS * HOUR_MS

ARMS = [Arm(name="control", model="delay@1"), Arm(name="new", model="delay@2")]
FEATURES: list[AnyFeature] = [NumberFeature(name="hour", low=0, high=24)]
CLICK = BinaryMetric(name="click", default=0, window_s=60, direction="increase", role="primary")
REVENUE = NumericMetric(name="revenue", direction="increase", role="primary")

BANDITS = pytest.mark.parametrize("kind", ["thompson", "contextual"])


def bandit(kind: str, metric: AnyMetric, window_s: int | None = None) -> AnyAllocation:
    if kind == "contextual":
        return Contextual(metric=metric.name, min_matured=1, features=FEATURES, window_s=window_s)
    return Thompson(metric=metric.name, min_matured=1, window_s=window_s)


def started(
    engine: Engine, allocation: AnyAllocation, metric: AnyMetric, name: str = "x"
) -> tuple[ControlTables, ExperimentRecord]:
    """Store a running bandit."""
    document = Experiment(name=name, endpoint="delay", arms=ARMS, allocation=allocation, metrics=[metric])
    tables = ControlTables(engine)
    tables.create_experiment(document, NOW_MS, actor="x")
    record = tables.experiment(name)
    epoch = bandit_epoch(document, None, what_is_known(tables, record, NOW_MS), NOW_MS)
    tables.change_experiment(
        record, Change(document, "running", NOW_MS, None, epoch), NOW_MS, actor="x", action="start"
    )
    return tables, tables.experiment(name)


def decided(record: ExperimentRecord, at_ms: int, arm: int = 0) -> DecisionRow:
    content = DecisionId(at_ms, record.id, 1, arm, 5000, os.urandom(8))
    row = decision(experiment_id=record.id, arm=arm)
    return row._replace(id=SIGNER.sign(content), decided_ms=at_ms, context='{"hour":12.0}')


def write(
    engine: Engine, rows: Sequence[DecisionRow], outcomes: Sequence[Observation] = (), now_ms: int = NOW_MS
) -> None:
    with engine.begin() as connection:
        Folder().count(connection, insert_decisions(connection, rows), 1)
        Folder().record(connection, outcomes, now_ms)


def sums_are_wrong(engine: Engine) -> list[Failure]:
    return [each for each in verify(engine, SIGNER).first if each.table in {"statistics", "regressions"}]


@BANDITS
def test_sums_of_the_first_hour_are_proved_when_they_are_rolled_up(engine: Engine, kind: str) -> None:
    _, record = started(engine, bandit(kind, CLICK), CLICK)
    rows = [decided(record, HOUR + 17 * 60_000 + number) for number in range(5)]
    write(engine, rows, [outcome(rows[0], metric="click")])
    assert sums_are_wrong(engine) == []
    roll_up(engine, HOUR + 3 * DAY_MS)
    assert sums_are_wrong(engine) == []


def test_a_late_success_waits_for_the_failures_of_its_hour(engine: Engine) -> None:
    metric = BinaryMetric(name="click", default=0, window_s=3 * 86_400, direction="increase", role="primary")
    tables, record = started(engine, bandit("thompson", metric), metric)
    rows = [decided(record, HOUR + number, number % 2) for number in range(40)]
    write(engine, rows)
    closes_ms = HOUR + 3 * DAY_MS
    roll_up(engine, closes_ms - 30 * 60_000)
    write(engine, [], [outcome(rows[1], 1.0, "click", after_s=3 * 86_400 - 60)], closes_ms)
    found = [what_is_known(tables, record, closes_ms + minutes * 60_000).evidence[1] for minutes in (10, 70)]
    assert found == [Evidence(0, 0, 0, 0), Evidence(20, 1, 1, 20)]


@BANDITS
def test_evidence_is_never_negative(engine: Engine, kind: str) -> None:
    tables, record = started(engine, bandit(kind, REVENUE, 3 * 86_400), REVENUE)
    made_ms = HOUR + 59 * 60_000
    rows = [decided(record, made_ms + number, number % 2) for number in range(40)]
    write(engine, rows, [outcome(row, 100.0 + number % 7, "revenue") for number, row in enumerate(rows)])
    now_ms = made_ms + 3 * DAY_MS - 5 * 60_000
    roll_up(engine, now_ms)
    write(engine, [], [outcome(row, None, "revenue", version=1) for row in rows[1::2]], now_ms)
    known = what_is_known(tables, record, now_ms)
    assert bandit_epoch(record.document, record.epoch, known, now_ms).basis is not None
    assert all(arm.n >= 0 for arm in known.evidence)
    assert all(each.n >= 0 for each in known.regressions)


def test_what_is_no_number_is_never_published() -> None:
    document = Experiment(
        name="x", endpoint="delay", arms=ARMS, allocation=bandit("thompson", REVENUE), metrics=[REVENUE]
    )
    known = Known((Evidence(2, 1.0, math.inf, 2), Evidence(2, 1.0, 1.0, 2)))
    with pytest.raises(Conflict, match="experiment 'x' cannot be allocated: values of its metric add up to what is no"):
        bandit_epoch(document, None, known, NOW_MS)


def test_one_bandit_that_cannot_be_computed_does_not_stop_the_others(
    sqlite_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    tables, sick = started(sqlite_engine, bandit("thompson", REVENUE), REVENUE, "sick")
    _, well = started(sqlite_engine, bandit("thompson", REVENUE), REVENUE, "well")
    rows = [decided(record, NOW_MS + n, n % 2) for n in range(200) for record in (sick, well)]
    write(sqlite_engine, rows, [outcome(row, float(n % 4), "revenue") for n, row in enumerate(rows)])
    with sqlite_engine.begin() as connection:
        table = schema.statistics
        connection.execute(update(table).where(table.c.experiment_id == sick.id).values(sum_squares=math.inf))
    publisher = BanditPublisher(tables, lambda: NOW_MS + 120_000)
    assert publisher.publish(publisher.due(tables.experiments()))
    numbers = {name: epoch.number for name in ("sick", "well") if (epoch := tables.experiment(name).epoch)}
    assert numbers == {"sick": 1, "well": 2}
    assert "cannot publish an epoch of experiment 'sick'" in caplog.text


def test_the_first_look_is_at_once_though_the_machine_came_up_just_now(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, record = started(sqlite_engine, bandit("thompson", CLICK), CLICK)
    monkeypatch.setattr("router.bandits.time.monotonic", lambda: 0.001)
    publisher = BanditPublisher(tables, lambda: NOW_MS)
    assert publisher.due([record]) == [record]
    assert publisher.due([record]) == []
