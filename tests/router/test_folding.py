from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from router.decision_id import NO_EXPERIMENT
from router.ledger import schema
from router.ledger.folding import record_outcomes
from router.ledger.records import DecisionRow, Fold, Observation, Receipt
from router.ledger.writing import insert_decisions
from tests.router.ledgers import NOW_MS, decision, outcome, rows_in


def store(engine: Engine, *rows: DecisionRow) -> None:
    with engine.begin() as connection:
        insert_decisions(connection, rows)


def record(engine: Engine, *observations: Observation) -> list[Receipt]:
    with engine.begin() as connection:
        return record_outcomes(connection, observations, NOW_MS)


def statistics(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(schema.statistics)).mappings()]


def test_a_label_is_scored_against_the_stored_prediction(engine: Engine) -> None:
    row = decision(predictions="[0.25]")
    store(engine, row)
    folds = (Fold("brier", "brier"), Fold("late", None))
    assert record(engine, outcome(row, 1.0, folds=folds)) == [Receipt("accepted")]
    by_metric = {each["metric"]: each for each in statistics(engine)}
    assert by_metric["brier"]["sum"] == pytest.approx(0.5625)
    assert by_metric["brier"]["sum_squares"] == pytest.approx(0.5625**2)
    assert by_metric["late"]["sum"] == 1.0
    assert {each["minute"] for each in by_metric.values()} == {row.decided_ms // 60_000}
    with engine.connect() as connection:
        stored = connection.execute(select(schema.outcomes)).mappings().one()
    assert stored["prediction"] == 0.25
    assert stored["received_ms"] == NOW_MS


def test_a_label_of_an_item_is_scored_against_that_item(engine: Engine) -> None:
    row = decision(predictions="[0.25,0.75]")
    store(engine, row)
    record(engine, outcome(row, 1.0, item=1))
    assert statistics(engine)[0]["sum"] == pytest.approx(0.0625)


def test_a_reward_stores_no_prediction(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    record(engine, outcome(row, 1.0, metric="click", folds=(Fold("click", None),)))
    with engine.connect() as connection:
        assert connection.execute(select(schema.outcomes.c.prediction)).scalar() is None


def test_the_same_outcome_again_is_a_duplicate_and_counts_once(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    twice = [outcome(row), outcome(row)]
    assert [receipt.status for receipt in record(engine, *twice)] == ["accepted", "duplicate"]
    assert [receipt.status for receipt in record(engine, *twice)] == ["duplicate", "duplicate"]
    assert statistics(engine)[0]["count"] == 1
    assert rows_in(engine, schema.outcomes) == 1


def test_another_value_for_the_same_outcome_is_rejected(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    receipts = record(engine, outcome(row, 1.0), outcome(row, 0.0))
    assert receipts[0].status == "accepted"
    assert receipts[1].status == "rejected"
    assert "already recorded as 1, not 0" in (receipts[1].reason or "")


def test_outcomes_with_ids_are_several(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    folds = (Fold("revenue", None),)
    bought = [outcome(row, 5.0, "revenue", outcome_id=key, folds=folds) for key in ("a", "b", "a")]
    assert [receipt.status for receipt in record(engine, *bought)] == ["accepted", "accepted", "duplicate"]
    assert statistics(engine)[0]["sum"] == 10.0


def test_an_outcome_of_no_stored_decision_is_rejected(engine: Engine) -> None:
    receipt = record(engine, outcome(decision()))[0]
    assert receipt.status == "rejected"
    assert "not in this ledger" in (receipt.reason or "")
    assert rows_in(engine, schema.outcomes) == 0


def test_an_item_out_of_range_is_rejected(engine: Engine) -> None:
    row = decision(predictions="[0.5,0.5]")
    store(engine, row)
    receipt = record(engine, outcome(row, item=2))[0]
    assert receipt == Receipt("rejected", "item 2 is out of range: the decision has 2 input(s)")


def test_outcomes_outside_experiments_are_kept_but_feed_nothing(engine: Engine) -> None:
    row = decision(experiment_id=NO_EXPERIMENT)
    store(engine, row)
    assert record(engine, outcome(row)) == [Receipt("accepted")]
    assert statistics(engine) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(st.permutations(range(30)), st.lists(st.integers(1, 7), min_size=1))
def test_any_order_and_batching_gives_the_same_statistics(engine: Engine, order: list[int], sizes: list[int]) -> None:
    rows = [decision(predictions=f"[{number / 30}]", arm=number % 3, experiment_id=99) for number in range(30)]
    store(engine, *rows)
    with engine.begin() as connection:
        connection.execute(schema.statistics.delete())
    shuffled = [outcome(rows[index], float(index % 2)) for index in order] * 2
    start = 0
    while start < len(shuffled):
        size = sizes[start % len(sizes)]
        record(engine, *shuffled[start : start + size])
        start += size
    expected = [sum((index / 30 - index % 2) ** 2 for index in range(arm, 30, 3)) for arm in range(3)]
    assert [sum(each["sum"] for each in statistics(engine) if each["arm"] == arm) for arm in range(3)] == pytest.approx(
        expected
    )
    assert sum(each["count"] for each in statistics(engine)) == 30
