"""One thing is altered in a ledger that a router made, and exactly that is reported."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, Table, delete, insert, update

from router.assignment.epochs import HOLDOUT, dump_runs, load_runs
from router.assignment.hashing import bucket, traffic_seed
from router.decision_id import FORCED, Signer, encode
from router.errors import UnknownExperiment
from router.ledger import schema
from router.ledger.contributions import ITEMS
from router.verification import Failure, verify
from tests.router.logged import SECRET, UNITS, rows_of

SIGNER = Signer([SECRET])
Row = dict[str, Any]

KINDS: dict[str, Callable[[Row], bool]] = {
    "drawn by unit": lambda row: row["experiment_id"] == 1 and row["arm"] != HOLDOUT,
    "drawn by request": lambda row: row["experiment_id"] == 2 and row["epoch"] != FORCED,
    "held out": lambda row: row["arm"] == HOLDOUT,
    "forced": lambda row: row["experiment_id"] == 2 and row["epoch"] == FORCED,
    "fallen back": lambda row: row["fallback"] is not None,
    "of the champion": lambda row: row["experiment_id"] is None,
}


def failures(engine: Engine, signer: Signer = SIGNER, experiment: str | None = None) -> list[Failure]:
    found: list[Failure] = []
    assert verify(engine, signer, experiment=experiment, report=found.append).failures == len(found)
    return found


def alter(engine: Engine, table: Table, row: Row, **changes: Any) -> None:
    with engine.begin() as connection:
        assert connection.execute(_where(update(table), table, row).values(**changes)).rowcount == 1


def remove(engine: Engine, table: Table, row: Row) -> None:
    with engine.begin() as connection:
        assert connection.execute(_where(delete(table), table, row)).rowcount == 1


def add(engine: Engine, table: Table, row: Row) -> None:
    with engine.begin() as connection:
        connection.execute(insert(table), [row])


def _where(statement: Any, table: Table, row: Row) -> Any:
    return statement.where(*(column == row[column.name] for column in table.primary_key))


def decisions(engine: Engine, kind: str) -> list[Row]:
    """Return decisions of a kind that no outcome is about."""
    about = {row["decision_id"] for row in rows_of(engine, schema.outcomes)}
    found = [row for row in rows_of(engine, schema.decisions) if KINDS[kind](row) and row["id"] not in about]
    assert found, f"the ledger has no decision {kind} without outcomes"
    return found


def label(engine: Engine) -> Row:
    """Return an outcome that is the only one about its item, and counts."""
    rows = rows_of(engine, schema.outcomes)
    about = [(row["decision_id"], row["metric"], row["item"]) for row in rows]
    return next(
        row
        for row, key in zip(rows, about, strict=True)
        if row["metric"] == "late" and row["experiment_id"] and row["counted"] and about.count(key) == 1
    )


def epoch(engine: Engine, experiment_id: int, number: int) -> Row:
    return next(
        row for row in rows_of(engine, schema.epochs) if (row["experiment_id"], row["epoch"]) == (experiment_id, number)
    )


def test_a_ledger_made_by_a_router_follows_from_itself(ledger: Engine) -> None:
    for kind in KINDS:
        assert decisions(ledger, kind)
    summary = verify(ledger, SIGNER)
    assert summary.first == ()
    assert summary.failures == 0
    assert summary.checked == {
        "experiments": 4,
        "epochs": 21,
        "assignments": len(rows_of(ledger, schema.assignments)),
        "decisions": UNITS,
        "outcomes": len(rows_of(ledger, schema.outcomes)),
        "statistics": len(rows_of(ledger, schema.statistics)),
        "evidence": len(rows_of(ledger, schema.evidence)),
    }
    assert (summary.waiting, summary.out_of_range, summary.unlike_first) == (1, 0, 0)


def other_unit(engine: Engine, row: Row) -> str:
    """Return a unit that the row's epoch would not have given this arm."""
    found = epoch(engine, row["experiment_id"], row["epoch"])
    name = ["sticky", "by-request", "by-unit"][row["experiment_id"] - 1]
    for number in range(1000):
        unit = f"other-{number}"
        if bucket(traffic_seed(name), unit) >= found["traffic"]:
            return unit
        if name != "by-request" and load_runs(found["runs"])[bucket(name, unit)] != row["arm"]:
            return unit
    raise AssertionError("every unit fits")


def apart(found: list[Failure]) -> tuple[list[Failure], list[Failure]]:
    """Return the failures without those about the number of decided items, and these; evidence is left out of both."""
    found = [each for each in found if each.table != "evidence"]
    counts = [each for each in found if each.table == "statistics" and f"metric {ITEMS} " in each.subject]
    return [each for each in found if each not in counts], counts


def test_a_deleted_decision_is_missed_though_nothing_came_of_it(ledger: Engine) -> None:
    about = {row["decision_id"] for row in rows_of(ledger, schema.outcomes)}
    silent = next(row for row in decisions(ledger, "drawn by unit") if row["id"] not in about)
    remove(ledger, schema.decisions, silent)
    [counted, weighed] = failures(ledger)
    assert (counted.table, counted.what) == ("statistics", "sums")
    assert (weighed.table, weighed.what) == ("evidence", "count")
    assert all(ITEMS in each.subject for each in (counted, weighed))


CHANGES: dict[str, tuple[Callable[[Engine, Row], Any], set[str]]] = {
    "id": (lambda _, row: row["id"][:-1] + bytes([row["id"][-1] ^ 1]), {"signature"}),
    "decided_ms": (lambda _, row: row["decided_ms"] + 1, {"decided_ms"}),
    "endpoint": (lambda _, row: "elsewhere", {"endpoint"}),
    "experiment_id": (lambda _, row: 3 if row["experiment_id"] != 3 else None, {"experiment_id"}),
    "epoch": (lambda _, row: None if row["epoch"] == FORCED else 0, {"epoch"}),
    "arm": (lambda _, row: 1 if row["arm"] != 1 else None, {"arm"}),
    "propensity": (lambda _, row: row["propensity"] - 0.0001, {"propensity"}),
    "unit": (other_unit, {"arm", "unit"}),
    "model": (lambda _, row: "else@1", {"model", "served_model"}),
    "served_model": (lambda _, row: row["model"] if row["fallback"] else "else@1", {"served_model"}),
    "fallback": (lambda _, row: None if row["fallback"] else "it broke", {"served_model"}),
    "context": (lambda _, row: '{"origin": "EWR"}' if row["experiment_id"] == 1 else "[]", {"context"}),
    "inputs": (lambda _, row: "[]", {"predictions"}),
    "predictions": (lambda _, row: "[0.5, 0.5]", {"predictions"}),
    "shown": (lambda _, row: "[0]", {"shown"}),
    "draw": (lambda _, row: '{"scores": [[1.0], [2.0]], "teams": [0], "credits": [[1.0, 0.0]]}', {"draw"}),
    "latency_ms": (lambda _, row: -1.0, {"latency_ms"}),
}
COUNTED = {"id", "predictions", "shown"}
"""What the number of decided items follows from."""


@pytest.mark.parametrize("kind", KINDS)
def test_an_altered_column_of_a_decision_is_reported_with_its_row_and_no_other(ledger: Engine, kind: str) -> None:
    assert CHANGES.keys() == {column.name for column in schema.decisions.columns}
    row = decisions(ledger, kind)[0]
    for column, (change, what) in CHANGES.items():
        # What was not drawn with the unit does not follow from it.
        if column == "unit" and kind in {"forced", "of the champion"}:
            continue
        altered = {**row, column: change(ledger, row)}
        alter(ledger, schema.decisions, row, **{column: altered[column]})
        found, counts = apart(failures(ledger))
        assert column in COUNTED or not counts
        assert {(each.table, each.subject) for each in found} == {("decisions", encode(altered["id"]))}, column
        assert {each.what for each in found} <= what, column
        assert found, column
        alter(ledger, schema.decisions, altered, **{column: row[column]})


def test_two_decisions_whose_ids_are_swapped_are_both_reported(ledger: Engine) -> None:
    one, *_, other = decisions(ledger, "drawn by unit")
    between = one["id"][:-1] + bytes([one["id"][-1] ^ 1])
    alter(ledger, schema.decisions, one, id=between)
    alter(ledger, schema.decisions, other, id=one["id"])
    alter(ledger, schema.decisions, {"id": between}, id=other["id"])
    assert {each.subject for each in apart(failures(ledger))[0]} == {encode(one["id"]), encode(other["id"])}


def test_ids_of_another_secret_are_reported_one_by_one(ledger: Engine) -> None:
    found, counts = apart(failures(ledger, Signer(["a secret of nobody"])))
    assert counts
    assert {each.what for each in found} == {"signature"}
    # The outcome that waits has no decision that could vouch for its id.
    assert [each.table for each in found] == ["decisions"] * UNITS + ["outcomes"]
    assert failures(ledger, Signer(["a secret of nobody", SECRET])) == []


def test_an_id_of_an_experiment_that_is_gone_is_reported(ledger: Engine) -> None:
    experiment = next(row for row in rows_of(ledger, schema.experiments) if row["id"] == 3)
    remove(ledger, schema.experiments, experiment)
    found = failures(ledger)
    decided = {encode(row["id"]) for row in rows_of(ledger, schema.decisions) if row["experiment_id"] == 3}
    assert {each.subject for each in found if each.table == "decisions"} == decided
    assert {each.subject for each in found if each.table == "epochs"} == {"of experiment 3"}


def test_a_deleted_decision_leaves_its_outcomes_behind(ledger: Engine) -> None:
    outcome = label(ledger)
    remove(ledger, schema.decisions, {"id": outcome["decision_id"]})
    found, [count] = apart(failures(ledger))
    assert count.table == "statistics"
    assert {(each.table, each.what) for each in found} == {("outcomes", "decision_id")}
    about = [row for row in rows_of(ledger, schema.outcomes) if row["decision_id"] == outcome["decision_id"]]
    assert len(found) == len(about)
    assert all(each.subject.startswith(encode(outcome["decision_id"])) for each in found)


def test_one_experiment_can_be_checked_alone(ledger: Engine) -> None:
    row = decisions(ledger, "drawn by unit")[0]
    alter(ledger, schema.decisions, row, propensity=0.123)
    assert failures(ledger, experiment="by-unit") == []
    assert [each.what for each in failures(ledger, experiment="sticky")] == ["propensity"]
    with pytest.raises(UnknownExperiment, match="no experiment 'sticki'"):
        verify(ledger, SIGNER, experiment="sticki")


OUTCOME_CHANGES: list[tuple[Row, set[tuple[str, str]]]] = [
    ({"value": 0.5}, {("statistics", "sums")}),
    ({"value": None}, {("outcomes", "value"), ("statistics", "sums")}),
    ({"prediction": 0.125}, {("outcomes", "prediction")}),
    ({"prediction": None}, {("outcomes", "prediction")}),
    ({"counted": False}, {("outcomes", "counted")}),
    ({"experiment_id": 99}, {("outcomes", "experiment_id, arm")}),
    ({"arm": 99}, {("outcomes", "experiment_id, arm")}),
    ({"arm": None}, {("outcomes", "experiment_id, arm")}),
    ({"item": 7}, {("outcomes", "item"), ("statistics", "sums")}),
    ({"item": -1}, {("outcomes", "item"), ("statistics", "sums")}),
    ({"metric": "lateness"}, {("outcomes", "metric"), ("outcomes", "prediction"), ("statistics", "sums")}),
    ({"decision_id": b"x" * 33}, {("outcomes", "signature"), ("statistics", "sums")}),
    ({"decision_id": b"short"}, {("outcomes", "signature"), ("statistics", "sums")}),
]


@pytest.mark.parametrize(
    ("changes", "expected"), OUTCOME_CHANGES, ids=lambda value: str(value)[:40] if isinstance(value, dict) else ""
)
def test_an_altered_outcome_is_reported(ledger: Engine, changes: Row, expected: set[tuple[str, str]]) -> None:
    outcome = label(ledger)
    alter(ledger, schema.outcomes, outcome, **changes)
    everything = failures(ledger)
    found = [each for each in everything if each.table != "evidence"]
    assert {(each.table, each.what) for each in found} == expected
    assert (len(found) < len(everything)) == (("statistics", "sums") in expected)
    assert len(found) == len(expected)
    assert all(
        f"experiment {outcome['experiment_id']} arm" in each.subject for each in found if each.table != "outcomes"
    )


def test_a_deleted_or_invented_outcome_is_missed_by_its_statistic(ledger: Engine) -> None:
    outcome = label(ledger)
    remove(ledger, schema.outcomes, outcome)
    [missing, weighed] = failures(ledger)
    minute = int.from_bytes(outcome["decision_id"][:6]) // 60_000
    experiment_id, arm = outcome["experiment_id"], outcome["arm"]
    assert missing.subject == f"of experiment {experiment_id} arm {arm} metric brier minute {minute}"
    assert weighed.subject == f"of experiment {experiment_id} arm {arm} metric brier"
    add(ledger, schema.outcomes, outcome)
    add(ledger, schema.outcomes, {**outcome, "outcome_id": "invented", "value": 1.0 - outcome["value"]})
    assert [each.subject for each in failures(ledger)] == [missing.subject, weighed.subject]


def test_a_waiting_outcome_that_says_it_is_counted_is_reported(ledger: Engine) -> None:
    [waiting] = [row for row in rows_of(ledger, schema.outcomes) if not row["counted"]]
    alter(ledger, schema.outcomes, waiting, counted=True)
    assert ("outcomes", "decision_id") in {(each.table, each.what) for each in failures(ledger)}
    alter(ledger, schema.outcomes, waiting, counted=False, prediction=0.5)
    assert [(each.table, each.what) for each in failures(ledger)] == [("outcomes", "prediction")]


@pytest.mark.parametrize("changes", [{"count": 99}, {"sum": 0.75}, {"sum_squares": 0.75}, {"shard": 5, "sum": -1.0}])
def test_an_altered_statistic_is_reported(ledger: Engine, changes: Row) -> None:
    row = rows_of(ledger, schema.statistics)[0]
    alter(ledger, schema.statistics, row, **changes)
    [failure] = failures(ledger)
    assert failure.table == "statistics"
    assert failure.subject == (
        f"of experiment {row['experiment_id']} arm {row['arm']} metric {row['metric']} minute {row['minute']}"
    )


@pytest.mark.parametrize("changes", [{"metric": "other"}, {"arm": 77}, {"minute": 99_999_999}, {"experiment_id": 50}])
def test_a_statistic_under_another_name_is_missed_there_and_unfounded_here(ledger: Engine, changes: Row) -> None:
    row = rows_of(ledger, schema.statistics)[0]
    alter(ledger, schema.statistics, row, **changes)
    found = failures(ledger)
    assert {each.table for each in found} == {"statistics"}
    assert len(found) == 2


def test_shards_are_added_up_and_zeros_say_nothing(ledger: Engine) -> None:
    row = rows_of(ledger, schema.statistics)[0]
    add(ledger, schema.statistics, {**row, "shard": 1, "count": 0, "sum": 0.0, "sum_squares": 0.0})
    add(ledger, schema.statistics, {**row, "metric": "nothing", "count": 0, "sum": 0.0, "sum_squares": 0.0})
    assert failures(ledger) == []
    remove(ledger, schema.statistics, row)
    assert len(failures(ledger)) == 1


def test_statistics_of_a_month_that_was_dropped_are_noted(ledger: Engine) -> None:
    row = rows_of(ledger, schema.statistics)[0]
    add(ledger, schema.statistics, {**row, "minute": row["minute"] - 50_000})
    summary = verify(ledger, SIGNER)
    mine = [each for each in rows_of(ledger, schema.evidence) if each["experiment_id"] == row["experiment_id"]]
    assert (summary.failures, summary.older, summary.partial) == (0, 1, len(mine))
    for table in (schema.outcomes, schema.decisions):
        with ledger.begin() as connection:
            connection.execute(delete(table))
    summary = verify(ledger, SIGNER)
    assert (summary.failures, summary.older) == (0, len(rows_of(ledger, schema.statistics)))
    assert summary.partial == len(rows_of(ledger, schema.evidence))


def swapped(runs: str) -> str:
    """Return runs of the same shares with two buckets exchanged."""
    table = bytearray(load_runs(runs))
    other = next(place for place, arm in enumerate(table) if arm != table[0])
    table[0], table[other] = table[other], table[0]
    return dump_runs(bytes(table))


@pytest.mark.parametrize("number", [1, 2, 7])
def test_an_epoch_that_moved_more_buckets_than_it_had_to_is_reported(ledger: Engine, number: int) -> None:
    row = epoch(ledger, 3, number)
    alter(ledger, schema.epochs, row, runs=swapped(row["runs"]))
    found = failures(ledger)
    assert "'by-unit'" in found[0].subject
    assert (found[0].subject, found[0].what) == (f"'by-unit' epoch {number}", "runs")


@pytest.mark.parametrize(
    ("runs", "what"),
    [
        ("nonsense", {"runs"}),
        ("[[9999, 0]]", {"runs"}),
        ("[[1000000000000, 0]]", {"runs"}),
        ("[[10000, 0], [0, 1]]", {"runs"}),
        ("[[5000, 0], [5000, 7]]", {"runs", "shares"}),
        ("[[10000, 0]]", {"shares"}),
    ],
)
def test_an_epoch_that_its_document_does_not_ask_for_is_reported(ledger: Engine, runs: str, what: set[str]) -> None:
    alter(ledger, schema.epochs, epoch(ledger, 3, 7), runs=runs)
    found = [each for each in failures(ledger) if each.table == "epochs"]
    assert {each.subject for each in found} == {"'by-unit' epoch 7"}
    assert {each.what for each in found} == what


@pytest.mark.parametrize(
    ("changes", "what"), [({"traffic": 0}, "traffic"), ({"traffic": 10_001}, "traffic"), ({"epoch": 9}, "epoch")]
)
def test_an_altered_newest_epoch_is_reported(ledger: Engine, changes: Row, what: str) -> None:
    alter(ledger, schema.epochs, epoch(ledger, 3, 7), **changes)
    assert what in {each.what for each in failures(ledger) if each.table == "epochs"}


@pytest.mark.parametrize("number", range(1, 8))
def test_a_deleted_epoch_is_reported_and_so_are_its_decisions(ledger: Engine, number: int) -> None:
    remove(ledger, schema.epochs, epoch(ledger, 1, number))
    found = failures(ledger)
    assert {each.subject for each in found if each.table == "epochs"}
    orphans = {
        encode(row["id"])
        for row in rows_of(ledger, schema.decisions)
        if (row["experiment_id"], row["epoch"]) == (1, number)
    }
    assert {each.subject for each in found if each.table == "decisions"} == orphans


def test_lower_traffic_of_an_epoch_is_reported_for_the_units_beyond_it(ledger: Engine) -> None:
    row = epoch(ledger, 1, 1)
    alter(ledger, schema.epochs, row, traffic=0)
    found = [each for each in failures(ledger) if each.table == "decisions"]
    assert {each.what for each in found} == {"unit"}
    assert len(found) == sum(
        (each["experiment_id"], each["epoch"]) == (1, 1) for each in rows_of(ledger, schema.decisions)
    )


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"name": "sticki"}, "name"),
        ({"endpoint": "elsewhere"}, "endpoint"),
        ({"state": "asleep"}, "state"),
        ({"document": "{}"}, "document"),
    ],
)
def test_an_altered_experiment_is_reported(ledger: Engine, changes: Row, what: str) -> None:
    alter(ledger, schema.experiments, {"id": 1}, **changes)
    assert [each.what for each in failures(ledger) if each.table == "experiments"] == [what]


@pytest.mark.parametrize("state", ["running", "draft"])
def test_drafts_have_no_epochs_and_started_experiments_have(ledger: Engine, state: str) -> None:
    alter(ledger, schema.experiments, {"id": 4 if state == "running" else 1}, state=state)
    [failure] = failures(ledger)
    assert (failure.table, failure.what) == ("epochs", "epoch")


def test_an_altered_arm_or_a_deleted_endpoint_is_reported(ledger: Engine) -> None:
    arm = next(row for row in rows_of(ledger, schema.arms) if row["experiment_id"] == 1)
    alter(ledger, schema.arms, arm, model="other@1")
    assert [(each.subject, each.what) for each in failures(ledger)] == [("'sticky'", "arms")]
    alter(ledger, schema.arms, arm, model=arm["model"])
    remove(ledger, schema.endpoints, {"name": "delay"})
    assert {each.what for each in failures(ledger)} == {"endpoint"}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"arm": 9}, {"arm", "propensity"}),
        ({"slots": 1}, {"propensity"}),
        ({"epoch": 70}, {"epoch"}),
        ({"experiment_id": 2}, {"experiment_id"}),
        ({"experiment_id": 50}, {"experiment_id"}),
    ],
)
def test_an_altered_assignment_is_reported(ledger: Engine, changes: Row, what: set[str]) -> None:
    row = next(row for row in rows_of(ledger, schema.assignments) if row["arm"] == 0)
    alter(ledger, schema.assignments, row, **changes)
    found = failures(ledger)
    assert {each.subject for each in found} == {
        f"of unit {row['unit']!r} in experiment {changes.get('experiment_id', 1)}"
    }
    assert {each.what for each in found} == what


def test_an_assignment_of_another_unit_is_reported(ledger: Engine) -> None:
    row = rows_of(ledger, schema.assignments)[0]
    alter(ledger, schema.assignments, row, unit=other_unit(ledger, row))
    assert {each.table for each in failures(ledger)} == {"assignments"}


def test_sticky_decisions_unlike_their_first_assignment_are_counted(ledger: Engine) -> None:
    row = decisions(ledger, "drawn by unit")[0]
    remove(ledger, schema.assignments, {"experiment_id": 1, "unit": row["unit"]})
    mine = [each for each in rows_of(ledger, schema.decisions) if each["unit"] == row["unit"]]
    summary = verify(ledger, SIGNER)
    assert summary.unlike_first == sum(each["experiment_id"] == 1 for each in mine)
    assert summary.failures == 0


def test_an_early_outcome_for_an_item_that_never_was_is_noted(ledger: Engine) -> None:
    outcome = label(ledger)
    add(ledger, schema.outcomes, {**outcome, "item": 9, "counted": False, "prediction": None})
    summary = verify(ledger, SIGNER)
    assert (summary.failures, summary.out_of_range) == (0, 1)
