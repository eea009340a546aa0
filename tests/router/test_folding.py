import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from router.decision_id import NO_EXPERIMENT
from router.documents import NumericMetric
from router.ledger import schema
from router.ledger.folding import Folder
from router.ledger.records import ACCEPTED, DUPLICATE, DecisionRow, Observation, Receipt
from router.ledger.regressions import read_regressions
from router.ledger.writing import insert_decisions
from tests.router.ledgers import NOW_MS, decision, outcome, rows_in, store_contextual


def store(engine: Engine, *rows: DecisionRow) -> None:
    with engine.begin() as connection:
        insert_decisions(connection, rows)


def record(engine: Engine, *observations: Observation) -> list[Receipt]:
    with engine.begin() as connection:
        return Folder().record(connection, observations, NOW_MS)


def statistics(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(schema.statistics)).mappings()]


def summed(engine: Engine) -> dict[str, tuple[int, float, float]]:
    table = schema.statistics
    sums = (func.sum(table.c[name]) for name in ("count", "sum", "sum_squares"))
    with engine.connect() as connection:
        rows = connection.execute(select(table.c.metric, *sums).group_by(table.c.metric)).all()
    return {metric: (int(count), total, squares) for metric, count, total, squares in rows}


def test_a_label_is_scored_against_the_stored_prediction(engine: Engine) -> None:
    row = decision(predictions="[0.25]")
    store(engine, row)
    assert record(engine, outcome(row, 1.0)) == [Receipt("accepted")]
    [brier] = statistics(engine)
    assert brier["metric"] == "brier"
    assert brier["sum"] == pytest.approx(0.5625)
    assert brier["sum_squares"] == pytest.approx(0.5625**2)
    assert brier["minute"] == row.decided_ms // 60_000
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
    record(engine, outcome(row, 1.0, metric="click"))
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
    assert "already recorded as 1 in version 0, not 0; correct it with a higher version" in (receipts[1].reason or "")


def test_outcomes_with_ids_are_several_and_add_up_to_one_value_of_their_item(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    bought = [outcome(row, 5.0, "revenue", outcome_id=key) for key in ("a", "b", "a")]
    assert [receipt.status for receipt in record(engine, *bought)] == ["accepted", "accepted", "duplicate"]
    record(engine, outcome(row, 2.0, "revenue", outcome_id="c"))
    assert summed(engine) == {"revenue": (1, 12.0, 144.0), "yield/numerator": (1, 12.0, 144.0)}


def test_a_binary_outcome_happened_or_not_however_often(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    record(
        engine, *(outcome(row, value, "click", outcome_id=key) for key, value in (("a", 0.0), ("b", 1.0), ("c", 1.0)))
    )
    assert summed(engine) == {"click": (1, 1.0, 1.0)}


def test_the_highest_version_counts_in_any_order(engine: Engine) -> None:
    for order in itertools.permutations(range(3)):
        row = decision()
        store(engine, row)
        versions = [outcome(row, value, "revenue", version=version) for version, value in enumerate((5.0, 7.0, 6.0))]
        before = summed(engine).get("revenue", (0, 0.0, 0.0))
        for version in order:
            assert record(engine, versions[version], versions[version]) == [ACCEPTED, DUPLICATE]
        count, total, _ = summed(engine)["revenue"]
        assert (count - before[0], total - before[1]) == (1, 6.0)


def test_a_retraction_takes_the_outcome_back_and_a_later_version_restates_it(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    record(engine, outcome(row, 1.0))
    record(engine, outcome(row, None, version=1))
    assert summed(engine) == {"brier": (0, 0.0, 0.0)}
    assert rows_in(engine, schema.outcomes) == 2
    record(engine, outcome(row, 0.0, version=2))
    assert summed(engine)["brier"] == pytest.approx((1, 0.0625, 0.00390625))


def test_another_value_for_the_same_version_is_rejected(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    record(engine, outcome(row, None, version=1))
    receipt = record(engine, outcome(row, 1.0, version=1))[0]
    assert receipt.status == "rejected"
    assert "already retracted in version 1, not 1; correct it with a higher version" in (receipt.reason or "")


def test_an_outcome_after_the_window_is_kept_and_counts_where_the_metric_says_so(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    late = [outcome(row, 1.0, metric, after_s=200_000) for metric in ("click", "late")]
    assert record(engine, *late) == [ACCEPTED, ACCEPTED]
    assert summed(engine).keys() == {"brier"}
    assert rows_in(engine, schema.outcomes) == 2


def late_click(row: DecisionRow, value: float, **fields: Any) -> Observation:
    return outcome(row, value, "click", after_s=3600, **fields)


@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "one by one"])
def test_a_correction_happened_when_what_it_corrects_did_unless_it_says_so(engine: Engine, apart: bool) -> None:
    row = decision()
    store(engine, row)
    said = [
        outcome(row, 1.0, "click", after_s=5),
        late_click(row, 0.0, version=1, dated=False),
        late_click(row, 1.0, version=3, dated=False),
        late_click(row, 1.0, outcome_id="b", dated=False),
        late_click(row, 0.0, version=2),
    ]
    for batch in [[each] for each in said] if apart else [said]:
        assert {receipt.status for receipt in record(engine, *batch)} == {"accepted"}
    with engine.connect() as connection:
        table = schema.outcomes
        order = (table.c.outcome_id, table.c.version)
        stored = connection.scalars(select(table.c.occurred_ms).order_by(*order)).all()
    assert [(each - row.decided_ms) // 1000 for each in stored] == [5, 5, 3600, 5, 3600]
    assert summed(engine) == {"click": (1, 1.0, 1.0)}
    record(engine, late_click(row, 1.0, version=4))
    assert summed(engine) == {"click": (0, 0.0, 0.0)}


def test_a_correction_of_nothing_happened_when_it_came(engine: Engine) -> None:
    row = decision()
    store(engine, row)
    record(engine, outcome(row, 1.0, "click", version=1, after_s=3600, dated=False), outcome(row, 0.0, "click"))
    assert summed(engine) == {}


def test_an_outcome_may_come_before_its_decision_and_counts_when_that_comes(engine: Engine) -> None:
    row = decision(predictions="[0.25,0.5]")
    early = [outcome(row, 1.0), outcome(row, 1.0, item=1), outcome(row, 1.0, item=7), outcome(row, 1.0, "click")]
    assert record(engine, *early, early[0]) == [ACCEPTED] * 4 + [DUPLICATE]
    assert statistics(engine) == []
    store(engine, row)
    for _ in range(2):
        with engine.begin() as connection:
            Folder().settle(connection, {row.id})
        assert summed(engine) == {
            "brier": (2, pytest.approx(0.8125), pytest.approx(0.37890625)),
            "click": (1, 1.0, 1.0),
        }
    assert record(engine, outcome(row, 0.0, version=1)) == [ACCEPTED]
    assert summed(engine)["brier"] == pytest.approx((2, 0.3125, 0.06640625))


def test_a_waiting_outcome_counts_with_the_next_one_of_its_item(engine: Engine) -> None:
    row = decision()
    record(engine, outcome(row, 5.0, "revenue", outcome_id="a"))
    store(engine, row)
    record(engine, outcome(row, 2.0, "revenue", outcome_id="b"))
    with engine.begin() as connection:
        Folder().settle(connection, {row.id})
    assert summed(engine)["revenue"] == (1, 7.0, 49.0)


def test_an_item_out_of_range_is_rejected(engine: Engine) -> None:
    row = decision(predictions="[0.5,0.5]")
    store(engine, row)
    receipt = record(engine, outcome(row, item=2))[0]
    assert receipt == Receipt("rejected", "item 2 is out of range: the decision has 2 inputs, 0 to 1", "item")


def test_an_outcome_of_a_list_names_its_item(engine: Engine) -> None:
    row, first = listed(), decision()
    store(engine, row, first)
    silent = outcome(row, item=0)._replace(itemised=False)
    assert record(engine, silent)[0] == Receipt(
        "rejected",
        "item is missing: the decision is a list, so name a candidate by the `item` that the reply has for it",
        "item",
    )
    assert record(engine, outcome(first, item=0)._replace(itemised=False))[0].status == "accepted"


def listed(**fields: Any) -> DecisionRow:
    """Return a decision that listed the last of three candidates."""
    return decision(predictions="[0.1,0.2,0.3]", **fields)._replace(shown="[2]")


@pytest.mark.parametrize("metric", ["click", "revenue", "seats"])
def test_nothing_comes_of_a_candidate_that_was_not_shown(engine: Engine, metric: str) -> None:
    row = listed()
    store(engine, row)
    receipts = record(engine, outcome(row, 1.0, metric), outcome(row, 1.0, metric, item=2))
    reason = f"item 0 was not shown, so that no {metric!r} can have come of it"
    assert [receipt.status for receipt in receipts] == ["rejected", "accepted"]
    assert (receipts[0].reason or "").startswith(f"{reason}; name a candidate by the `item` that the reply has for it")
    assert {count for count, _, _ in summed(engine).values()} == {1}


def test_what_came_early_of_a_candidate_that_was_not_shown_never_counts(engine: Engine) -> None:
    row = listed()
    assert record(engine, outcome(row, 1.0, "click"), outcome(row, 0.0, "click", item=2)) == [ACCEPTED] * 2
    store(engine, row)
    with engine.begin() as connection:
        Folder().settle(connection, {row.id})
        table = schema.outcomes
        counted = connection.execute(select(table.c.item, table.c.counted).order_by(table.c.item)).all()
    assert [tuple(each) for each in counted] == [(0, False), (2, True)]
    assert summed(engine) == {"click": (1, 0.0, 0.0)}


def test_a_label_of_a_candidate_that_was_not_shown_is_scored(engine: Engine) -> None:
    row = listed()
    store(engine, row)
    assert record(engine, outcome(row, 0.0, "late", item=1)) == [ACCEPTED]
    assert summed(engine)["brier"] == pytest.approx((1, 0.04, 0.0016))


def test_outside_experiments_a_candidate_need_not_be_shown(engine: Engine) -> None:
    row = listed(experiment_id=NO_EXPERIMENT)
    store(engine, row)
    assert record(engine, outcome(row, 1.0, "click")) == [ACCEPTED]


TIMESTAMP = 1.7e12


@pytest.mark.parametrize("stays", [None, 4.0], ids=["retracted", "corrected"])
def test_a_blunder_that_is_taken_back_leaves_the_other_values_as_they_were(engine: Engine, stays: float | None) -> None:
    rows = [decision() for _ in range(12)]
    store(engine, *rows)
    record(engine, *(outcome(row, 3.5 + number % 2, "revenue") for number, row in enumerate(rows[:8])))
    record(engine, *(outcome(row, TIMESTAMP + number, "revenue") for number, row in enumerate(rows[8:])))
    for row in rows[8:]:
        record(engine, outcome(row, stays, "revenue", version=1))
    values = [3.5, 4.5] * 4 + ([] if stays is None else [stays] * 4)
    expected = (len(values), sum(values), sum(value * value for value in values))
    assert summed(engine) == {"revenue": expected, "yield/numerator": expected}


def test_a_blunder_in_a_batch_of_sound_values_is_taken_back(engine: Engine) -> None:
    rows = [decision(arm=number % 2) for number in range(6)]
    store(engine, *rows)
    record(engine, outcome(rows[0], TIMESTAMP, "revenue"))
    sound = [outcome(row, 3.0, "revenue") for row in rows[1:]]
    record(engine, *sound[:2], outcome(rows[0], 3.0, "revenue", version=1), *sound[2:])
    assert summed(engine)["revenue"] == (6, 18.0, 54.0)


def test_a_blunder_that_was_the_only_value_leaves_nothing(engine: Engine) -> None:
    rows = [decision() for _ in range(2)]
    store(engine, *rows)
    record(engine, outcome(rows[0], 0.1, "revenue"), outcome(rows[1], TIMESTAMP, "revenue"))
    record(engine, outcome(rows[0], None, "revenue", version=1))
    record(engine, outcome(rows[1], None, "revenue", version=1))
    assert summed(engine).get("revenue", (0, 0.0, 0.0)) == (0, 0.0, 0.0)


def test_a_blunder_that_is_taken_back_leaves_a_contextual_bandit_what_it_knew(engine: Engine) -> None:
    learns = store_contextual(engine, NumericMetric(name="revenue", direction="increase", role="primary"))
    rows = [decision(experiment_id=learns)._replace(context=f'{{"hour":{number}.0}}') for number in range(9)]
    store(engine, *rows)
    record(engine, *(outcome(row, 3.0 + number % 2, "revenue") for number, row in enumerate(rows[:-1])))

    def known() -> Any:
        with engine.connect() as connection:
            return sum((each.sums for each in read_regressions(connection, learns, "revenue")), np.zeros(7))

    before = known()
    record(engine, outcome(rows[-1], TIMESTAMP, "revenue"))
    record(engine, outcome(rows[-1], None, "revenue", version=1))
    assert known() == pytest.approx(before, rel=1e-12)


def test_outcomes_outside_experiments_are_kept_but_feed_nothing(engine: Engine) -> None:
    row = decision(experiment_id=NO_EXPERIMENT)
    store(engine, row)
    assert record(engine, outcome(row)) == [Receipt("accepted")]
    assert statistics(engine) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(st.permutations(range(30)), st.lists(st.integers(1, 7), min_size=1))
def test_any_order_and_batching_gives_the_same_statistics(engine: Engine, order: list[int], sizes: list[int]) -> None:
    rows = [decision(predictions=f"[{number / 30}]", arm=number % 3) for number in range(30)]
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
