"""What decisions and outcomes leave in the table that rollouts go by, in either database."""

import itertools
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine, delete, insert, select, update

import router.ledger.restoring_evidence
from analysis.statistics.unit_groups import Sums, group_of, sums_of
from router.assignment.epochs import HOLDOUT, INTERLEAVED, fresh
from router.assignment.hashing import BUCKETS
from router.decision_id import FORCED, DecisionId
from router.documents import Arm, BinaryMetric, Experiment, NumericMetric, RatioMetric, Split
from router.errors import LedgerUnavailable
from router.ledger import schema
from router.ledger.contributions import ITEMS
from router.ledger.control import ControlTables
from router.ledger.control_writing import Change
from router.ledger.database import transaction
from router.ledger.evidence import ANY_MINUTE, BEFORE, FAILED, SLOW, close_minutes, read_evidence
from router.ledger.folding import Folder
from router.ledger.records import DecisionRow, Observation
from router.ledger.statements import lock_outcomes
from router.ledger.writing import insert_decisions
from router.verification import Failure, Summary, verify
from tests.router.ledgers import NOW_MS, SIGNER, decision, outcome, store_experiment

MINUTE_MS = 60_000
EVER = 2**31 - 1
TWO_ARMS = 2
"""The id of the experiment of two arms; that of id 1 has three, and no holdout."""

Values = Sequence[tuple[DecisionRow, float]]


def two_arms(engine: Engine, **fields: Any) -> None:
    """Store an experiment whose holdout is a fifth, and whose new arm has a quarter of the rest."""
    document = Experiment(
        name="two",
        endpoint="delay",
        arms=[Arm(name="control", model="delay@1"), Arm(name="new", model="delay@2")],
        allocation=Split(weights={"control": 0.75, "new": 0.25}),
        holdout=0.2,
        slow_ms=50,
        **{
            "metrics": [
                NumericMetric(name="revenue", direction="increase", role="primary"),
                RatioMetric(name="yield", numerator="revenue", denominator="seats", direction="increase"),
            ],
            **fields,
        },
    )
    store_experiment(engine, document)


SLOTS = {0: 6000, 1: 2000, HOLDOUT: 2000}
WEIGHTS = {0: 0.25, 1: 0.75}


def drawn(arm: int, unit: str = "u", epoch: int = 1, slots: int = 0, **fields: Any) -> DecisionRow:
    """Return a decision of the experiment of two arms."""
    row = decision(experiment_id=TWO_ARMS, arm=arm, unit=unit)
    decided_ms = fields.get("decided_ms", row.decided_ms)
    slots = slots or SLOTS.get(arm, BUCKETS)
    content = DecisionId(decided_ms, TWO_ARMS, epoch, arm, slots, os.urandom(8))
    return row._replace(id=SIGNER.sign(content), epoch=epoch, propensity=slots / BUCKETS, **fields)


def store(engine: Engine, *rows: DecisionRow, folder: Folder | None = None, shard: int = 1) -> None:
    with transaction(engine) as connection:
        (folder or Folder()).count(connection, insert_decisions(connection, rows), shard)


def record(engine: Engine, *observations: Observation, folder: Folder | None = None) -> None:
    with transaction(engine) as connection:
        (folder or Folder()).record(connection, observations, NOW_MS)


def close(engine: Engine, before_ms: int) -> None:
    with transaction(engine) as connection:
        lock_outcomes(connection)
        close_minutes(connection, TWO_ARMS, before_ms // MINUTE_MS)


def known(engine: Engine, metric: str, before: int = EVER, experiment_id: int = TWO_ARMS) -> dict[int, Sums]:
    """Return the sums of a statistic by arm, without those that are nothing."""
    with transaction(engine) as connection:
        found = read_evidence(connection, experiment_id, [metric], before)
    return {arm: sums for (arm, _), sums in found.items() if sums.vector.any()}


def minutes(engine: Engine) -> set[int]:
    with transaction(engine) as connection:
        return set(connection.scalars(select(schema.evidence.c.minute)))


def of(values: Values, weight: float) -> Any:
    """Return about the sums of one value for each decision."""
    v = [value for _, value in values]
    groups = [group_of(row.unit) for row, _ in values]
    sums = sums_of(groups, [weight] * len(v), [1] * len(v), v, [each * each for each in v])
    return pytest.approx(sums.vector, rel=1e-9, abs=1e-12)


def proof(engine: Engine) -> tuple[list[Failure], Summary]:
    """Return the failures of evidence; the decisions of these tests were not drawn by their epoch, but they count."""
    found: list[Failure] = []
    summary = verify(engine, SIGNER, report=found.append)
    return [each for each in found if each.table == "evidence"], summary


def test_decisions_of_two_arms_count_the_share_of_the_other_one_among_who_is_not_held_out(engine: Engine) -> None:
    two_arms(engine)
    rows = [drawn(arm, unit=f"unit-{number}") for number, arm in enumerate([0, 0, 0, 1, HOLDOUT])]
    forced = drawn(1, epoch=FORCED, slots=BUCKETS)
    broken = drawn(1, unit="b", fallback="it broke", served_model="delay@1", latency_ms=70.0)
    store(engine, *rows, forced, broken, drawn(0, unit="s", latency_ms=50.5), drawn(0, unit="q", latency_ms=50.0))
    decided = known(engine, ITEMS)
    assert decided.keys() == {0, 1}
    assert {arm: sums.count for arm, sums in decided.items()} == {0: 5, 1: 2}
    assert {arm: sums.weight / sums.count for arm, sums in decided.items()} == pytest.approx(WEIGHTS)
    assert known(engine, FAILED)[1].vector == of([(broken, 1.0)], WEIGHTS[1])
    assert {arm: sums.count for arm, sums in known(engine, SLOW).items()} == {0: 1, 1: 1}
    assert minutes(engine) == {ANY_MINUTE}
    store(engine, *rows, forced, broken)
    assert known(engine, ITEMS)[0].count == 5
    assert proof(engine)[0] == []


def test_decisions_of_more_arms_count_the_inverse_of_their_propensity(engine: Engine) -> None:
    rows = [decision(arm=number % 3) for number in range(6)]
    store(engine, *rows)
    record(engine, *(outcome(row, 1.0) for row in rows))
    # Of the others, these rows say that their arm was drawn with a half of all buckets.
    for metric in (ITEMS, "brier"):
        assert {arm: sums.weight for arm, sums in known(engine, metric, experiment_id=1).items()} == {0: 4, 1: 4, 2: 4}
    assert proof(engine)[0] == []


def test_outcomes_count_with_their_decision_however_they_came(engine: Engine) -> None:
    two_arms(engine)
    rows = [drawn(number % 2, unit=f"unit-{number % 5}") for number in range(20)]
    early, rest = rows[:4], rows[4:]
    store(engine, *rest)
    values = {row.id: 0.1 * number for number, row in enumerate(rows)}
    said = [outcome(row, values[row.id], "revenue") for row in rows] + [outcome(rows[7], 2.0, "seats")]
    for batch in (said[:9], said[5:], said):
        record(engine, *batch)
    record(engine, outcome(rows[5], 7.0, "revenue", version=2), outcome(rows[6], None, "revenue", version=1))
    record(engine, outcome(rows[5], 9.0, "revenue", version=1), outcome(rows[8], 0.5, "revenue", outcome_id="b"))
    store(engine, *early)
    for _ in range(2):
        with transaction(engine) as connection:
            Folder().settle(connection, {row.id for row in early})
    values |= {rows[5].id: 7.0, rows[8].id: 1.3}
    for arm, weight in WEIGHTS.items():
        mine = [(row, values[row.id]) for row in rows if row.arm == arm and row is not rows[6]]
        for statistic in ("revenue", "yield/numerator"):
            assert known(engine, statistic)[arm].vector == of(mine, weight)
    assert known(engine, "yield/denominator")[1].vector == of([(rows[7], 2.0)], WEIGHTS[1])
    assert proof(engine)[0] == []


def test_what_defaults_stand_for_counts_from_when_its_window_has_closed(engine: Engine) -> None:
    two_arms(engine, metrics=[BinaryMetric(name="click", default=0, window_s=60, direction="increase", role="primary")])
    rows = [drawn(0, unit=f"unit-{number}", decided_ms=NOW_MS + number * MINUTE_MS) for number in range(4)]
    store(engine, *rows)
    record(engine, *(outcome(row, 1.0, "click") for row in rows[:3]))
    first = NOW_MS // MINUTE_MS
    assert minutes(engine) == {first + number for number in range(4)}
    assert known(engine, "click", before=first + 2)[0].count == 2
    close(engine, NOW_MS + 2 * MINUTE_MS)
    assert minutes(engine) == {ANY_MINUTE, first + 2, first + 3}
    # Late, or corrected: its minute is opened anew.
    record(engine, outcome(rows[0], 0.0, "click", version=1))
    assert first in minutes(engine)
    assert known(engine, "click", before=first + 2)[0].vector == of([(rows[0], 0.0), (rows[1], 1.0)], WEIGHTS[0])
    assert proof(engine)[0] == []
    close(engine, NOW_MS + MINUTE_MS * MINUTE_MS)
    assert minutes(engine) == {ANY_MINUTE}
    assert known(engine, "click")[0].vector == of([(rows[0], 0.0), (rows[1], 1.0), (rows[2], 1.0)], WEIGHTS[0])
    assert known(engine, ITEMS)[0].vector == of([(row, 1.0) for row in rows], WEIGHTS[0])
    assert proof(engine)[0] == []


def test_minutes_that_are_counted_while_they_are_closed_are_neither_waited_for_nor_lost(engine: Engine) -> None:
    two_arms(engine, metrics=[BinaryMetric(name="click", default=0, window_s=60, direction="increase", role="primary")])
    store(engine, drawn(0))
    if engine.dialect.name == "postgresql":
        with transaction(engine) as connection:
            Folder().count(connection, insert_decisions(connection, [drawn(0)]), 1)
            close(engine, NOW_MS + 9 * MINUTE_MS)
    assert NOW_MS // MINUTE_MS in minutes(engine)
    rows = [[drawn(number % 2, unit=f"unit-{writer}") for number in range(24)] for writer in range(2)]

    def write(writer: int) -> None:
        folder = Folder()
        for start in range(0, 24, 3):
            store(engine, *rows[writer][start : start + 3], folder=folder)

    def close_often() -> None:
        for _ in range(8):
            # SQLite lets one write at a time, and the others wait for so long only.
            with suppress(LedgerUnavailable):
                close(engine, NOW_MS + 9 * MINUTE_MS)

    threads = [
        *(threading.Thread(target=write, args=(writer,)) for writer in range(2)),
        threading.Thread(target=close_often),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    close(engine, NOW_MS + 9 * MINUTE_MS)
    assert minutes(engine) == {ANY_MINUTE}
    extra = 1 if engine.dialect.name == "postgresql" else 0
    assert {arm: sums.count for arm, sums in known(engine, ITEMS).items()} == {0: 25 + extra, 1: 24}
    assert proof(engine)[0] == []


def test_credit_of_mixed_lists_counts_once_for_each_arm_that_it_is_for(engine: Engine) -> None:
    draw = '{"scores":[[1,2,3],[3,2,1]],"teams":[0,1,254],"credits":[[1.0,0.0],[0.25,0.75],[0.0,0.0]]}'
    row = decision(predictions="[null,null,null]", arm=INTERLEAVED)._replace(shown="[2,0,1]", draw=draw)
    store(engine, row)
    record(engine, *(outcome(row, 1.0, "revenue", item=item) for item in range(3)))
    found = known(engine, "revenue", experiment_id=1)
    assert {arm: sums.total for arm, sums in found.items()} == {0: 1.25, 1: 0.75, INTERLEAVED: 1.0}
    assert {arm: sums.weight for arm, sums in found.items()} == {0: 2.0, 1: 1.0, INTERLEAVED: 1.0}
    decided = known(engine, ITEMS, experiment_id=1)[INTERLEAVED]
    assert (decided.count, decided.total, decided.weight) == (1, 3, 1)
    assert proof(engine)[0] == []


def test_what_changes_while_it_runs_changes_no_weight_of_earlier_decisions(engine: Engine) -> None:
    """The same folder goes on, as a router's does."""
    two_arms(engine)
    folder, before = Folder(), drawn(1, unit="before")
    store(engine, before, folder=folder)
    record(engine, outcome(before, 3.0, "revenue"), folder=folder)
    tables = ControlTables(engine)
    found = tables.experiment("two")
    document = msgspec.structs.replace(
        found.document,
        holdout=0.5,
        arms=[*found.document.arms, Arm(name="newer", model="delay@3")],
        allocation=Split(weights={"control": 0.5, "new": 0.25, "newer": 0.25}),
    )
    assert found.epoch is not None
    epoch = found.epoch._replace(number=2, table=fresh({0: 2500, 1: 1250, 2: 1250, HOLDOUT: 5000}))
    change = Change(document, "running", NOW_MS, None, epoch, "replace")
    tables.change_experiment(found, change, NOW_MS, actor="local", action="replace")
    after = drawn(1, unit="after", epoch=2, slots=1250)
    store(engine, after, drawn(2, epoch=2, slots=1250), folder=folder)
    record(engine, outcome(before, 4.0, "revenue", version=1), outcome(after, 5.0, "revenue"), folder=folder)
    expected = of([(before, 4.0)], WEIGHTS[1]).expected + of([(after, 5.0)], 4.0).expected
    assert known(engine, "revenue")[1].vector == pytest.approx(expected)
    record(engine, outcome(before, None, "revenue", version=2), folder=folder)
    assert known(engine, "revenue")[1].vector == of([(after, 5.0)], 4.0)
    assert known(engine, ITEMS)[1].weight == WEIGHTS[1] + 4.0
    assert proof(engine)[0] == []


HUGE = 1.7e15


@pytest.mark.parametrize("default", [None, 0.0], ids=["at once", "by minute"])
def test_a_blunder_that_is_taken_back_leaves_the_other_values_as_they_were(
    engine: Engine, default: float | None
) -> None:
    metric = NumericMetric(name="revenue", direction="increase", role="primary", default=default, window_s=60)
    two_arms(engine, metrics=[metric])
    folder, start = Folder(), NOW_MS - NOW_MS % MINUTE_MS
    rows = [
        drawn(number % 2, unit=f"unit-{number % 3}", decided_ms=start + number * MINUTE_MS // 4) for number in range(16)
    ]
    store(engine, *rows)
    values = {row.id: 3.1 + number % 5 for number, row in enumerate(rows)}
    record(engine, *(outcome(row, values[row.id], "revenue") for row in rows[:12]), folder=folder)
    close(engine, start + MINUTE_MS)
    record(engine, *(outcome(row, HUGE, "revenue") for row in rows[12:]), folder=folder)
    for row in rows[12:15]:
        record(engine, outcome(row, values[row.id], "revenue", version=1), folder=folder)
    record(engine, outcome(rows[15], None, "revenue", version=1), folder=folder)
    found = known(engine, "revenue")
    for arm, weight in WEIGHTS.items():
        assert found[arm].vector == of([(row, values[row.id]) for row in rows[:15] if row.arm == arm], weight)
    first = start // MINUTE_MS
    by_minute = {ANY_MINUTE, first + 1, first + 2, first + 3}
    assert minutes(engine) == ({ANY_MINUTE} if default is None else by_minute)
    assert proof(engine)[0] == []


def test_what_cannot_be_added_up_again_is_left_as_it_is(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are too many values, or some of them are gone: they would be missing."""
    two_arms(engine)
    rows = [drawn(0, decided_ms=NOW_MS + number * MINUTE_MS) for number in range(4)]
    store(engine, *rows)
    record(engine, *(outcome(row, 3.0, "revenue") for row in rows))

    def blunder(row: DecisionRow, version: int) -> float:
        for value in (HUGE, 3.0):
            record(engine, outcome(row, value, "revenue", version=version + (value == 3.0)))
        return known(engine, "revenue")[0].squares

    assert blunder(rows[3], 1) == 36.0
    with monkeypatch.context() as patch:
        patch.setattr(router.ledger.restoring_evidence, "MOST_VALUES", 3)
        assert blunder(rows[3], 3) != 36.0
    assert blunder(rows[3], 5) == 36.0
    with transaction(engine) as connection:
        for table, column in ((schema.outcomes, "decision_id"), (schema.decisions, "id")):
            connection.execute(delete(table).where(table.c[column] == rows[0].id))
    squares = blunder(rows[3], 7)
    assert known(engine, "revenue")[0].count == 4
    assert squares != 36.0
    failed, summary = proof(engine)
    assert (failed, summary.partial) == ([], 3)


@pytest.fixture
def sound(engine: Engine) -> Engine:
    """A ledger with evidence of every kind, some of it by minute."""
    click = BinaryMetric(name="click", default=0, window_s=60, direction="increase", role="primary")
    two_arms(engine, metrics=[click, NumericMetric(name="revenue", direction="increase")])
    rows = [drawn(number % 2, unit=f"unit-{number}", latency_ms=99.0, fallback="it broke") for number in range(6)]
    store(engine, *rows)
    record(engine, *(outcome(row, 1.0, metric) for row in rows for metric in ("click", "revenue")))
    failed, summary = proof(engine)
    assert (failed, summary.partial) == ([], 0)
    return engine


def test_an_altered_sum_of_any_row_is_reported_with_experiment_arm_and_statistic(sound: Engine) -> None:
    table = schema.evidence
    with transaction(sound) as connection:
        rows = [dict(row) for row in connection.execute(select(table)).mappings()]
    assert {row["metric"] for row in rows} == {ITEMS, FAILED, SLOW, "click", "revenue"}
    rng = np.random.default_rng(0)
    for row in rows:
        sums = np.frombuffer(row["sums"], "<f8")
        key = [table.c[name] == row[name] for name in ("experiment_id", "arm", "metric", "minute", "shard")]
        for place, change in ((0, 1.0), (1, np.nan), (5, 1e-6), (int(rng.integers(9, len(sums))), 0.01)):
            altered = sums.copy()
            altered[place] += change
            with transaction(sound) as connection:
                connection.execute(update(table).where(*key).values(sums=altered.tobytes()))
            [failure] = proof(sound)[0]
            assert failure.subject == f"of experiment {TWO_ARMS} arm {row['arm']} metric {row['metric']}"
        with transaction(sound) as connection:
            connection.execute(update(table).where(*key).values(sums=row["sums"]))
    assert proof(sound)[0] == []


MOVED: list[tuple[dict[str, Any], set[str]]] = [
    ({"metric": "other"}, {"count"}),
    ({"arm": 5}, {"count"}),
    ({"experiment_id": 1}, {"count"}),
    ({"shard": 77}, set()),
    ({"sums": b"short"}, {"sums", "count"}),
    ({"minute": NOW_MS // MINUTE_MS + 1}, {"minute"}),
    ({"minute": -1}, {"minute"}),
]


def test_a_row_in_the_wrong_place_is_reported(sound: Engine) -> None:
    table = schema.evidence
    for metric, (changes, whats) in itertools.product(("click", "revenue"), MOVED):
        mine = (table.c.arm == 0, table.c.metric == metric)
        with transaction(sound) as connection:
            [row] = [dict(each) for each in connection.execute(select(table).where(*mine)).mappings()]
            connection.execute(update(table).where(*mine).values(**changes))
        found = {each.what for each in proof(sound)[0]}
        # Where nothing has a default, nothing is by minute.
        assert found - {"minute"} == whats - {"minute"}
        assert whats <= found
        moved = {**row, **changes}
        with transaction(sound) as connection:
            connection.execute(delete(table).where(*(column == moved[column.name] for column in table.primary_key)))
            connection.execute(insert(table), [row])
    assert proof(sound)[0] == []


def test_evidence_that_began_after_its_experiment_is_noted(sound: Engine) -> None:
    table = schema.evidence
    mark = {"experiment_id": TWO_ARMS, "arm": HOLDOUT, "metric": BEFORE, "minute": ANY_MINUTE, "shard": 0}
    with transaction(sound) as connection:
        connection.execute(delete(table).where(table.c.metric == ITEMS))
        connection.execute(insert(table), [{**mark, "sums": Sums().vector.tobytes()}])
        left = len(connection.execute(select(table)).all())
    failed, summary = proof(sound)
    assert (failed, summary.partial) == ([], left)
