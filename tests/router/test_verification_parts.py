"""What a verification needs besides its checks: one moment, bounded chunks, odd values, rounding, many epochs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, text, update

import router.verification.epochs
import router.verification.reading
from router.decision_id import DecisionId, Signer, encode, unpack
from router.errors import LedgerUnavailable
from router.ledger import schema
from router.ledger.folding import Folder
from router.ledger.records import DecisionRow, Observation
from router.ledger.writing import insert_decisions
from router.verification import Failure, rows_to_check, verify
from router.verification.ids import Said, nonces, unpack_all
from tests.router.ledgers import NOW_MS, decision, outcome
from tests.router.ledgers import SIGNER as SMALL_SIGNER
from tests.router.logged import SECRET, UNITS, filled_ledger, restored, rows_of

SIGNER = Signer([SECRET])


ids = st.builds(
    DecisionId,
    decided_ms=st.integers(0, 2**48 - 1),
    experiment_id=st.integers(0, 2**24 - 1),
    epoch=st.integers(0, 2**32 - 1),
    arm=st.integers(0, 255),
    slots=st.integers(0, 2**16 - 1),
    nonce=st.binary(min_size=8, max_size=8),
)


@given(st.lists(ids, min_size=1, max_size=20))
def test_a_column_of_ids_says_what_each_id_says(contents: list[DecisionId]) -> None:
    raw = [SIGNER.sign(content) for content in contents]
    said = unpack_all(raw)
    for name in Said._fields:
        assert getattr(said, name).tolist() == [getattr(unpack(each), name) for each in raw]
    assert nonces(raw) == [content.nonce for content in contents]


def test_rows_written_during_a_verification_belong_to_the_next(ledger: Engine) -> None:
    """A decision that follows from nothing comes in between; this verification sees the ledger as it was."""
    rows = [decision()]

    def write(_: int) -> None:
        if rows:
            with ledger.begin() as connection:
                insert_decisions(connection, [rows.pop()])

    summary = verify(ledger, SIGNER, progress=write)
    assert not rows
    assert (summary.failures, summary.checked["decisions"]) == (0, UNITS)
    assert verify(ledger, SIGNER).checked["decisions"] == UNITS + 1


def test_chunks_of_any_size_give_the_same_result(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger.begin() as connection:
        connection.execute(update(schema.statistics).values(sum=schema.statistics.c.sum + 1))
        connection.execute(update(schema.decisions).values(propensity=0.5))
    whole = verify(ledger, SIGNER)
    monkeypatch.setattr(router.verification.reading, "_CHUNK", 3)
    chunked = verify(ledger, SIGNER)
    assert chunked.checked == whole.checked
    assert chunked.failures == whole.failures
    assert set(chunked.first) == set(whole.first)


def test_progress_adds_up_to_the_rows_of_the_long_tables(ledger: Engine) -> None:
    steps: list[int] = []
    summary = verify(ledger, SIGNER, progress=steps.append)
    long = rows_to_check(ledger)
    assert long == sum(summary.checked[table] for table in ("assignments", "decisions", "outcomes"))
    assert sum(steps) >= long


def test_more_epochs_than_fit_into_memory_are_read_again(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.verification.epochs, "_REMEMBERED", 1)
    assert verify(ledger, SIGNER).failures == 0


def test_a_database_that_hangs_up_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.verification.reading, "_CHUNK", 3)
    with filled_ledger("postgresql", tmp_path) as engine:

        def hang_up(_: int) -> None:
            with engine.begin() as connection:
                others = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                connection.execute(text(f"{others} and pid <> pg_backend_pid()"))

        with pytest.raises(LedgerUnavailable, match=r"the ledger does not answer|cannot be read on"):
            verify(engine, SIGNER, progress=hang_up)
        assert verify(engine, SIGNER).failures == 0


ODD: list[tuple[str, str, str]] = [
    ("decided_ms", "'noon'", "an integer"),
    ("experiment_id", "0.5", "null or an integer"),
    ("epoch", "'first'", "null or an integer"),
    ("arm", "x'00'", "null or an integer"),
    ("propensity", "'half'", "a number"),
    ("unit", "x'00ff'", "text"),
    ("context", "x'00ff'", "null or text"),
    ("id", "x'00ff'", "one of our secrets"),
    ("id", "'text'", "bytes"),
]


@pytest.fixture(scope="module")
def sqlite_filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with filled_ledger("sqlite", tmp_path_factory.mktemp("filled")) as engine:
        yield engine


@pytest.mark.parametrize(("column", "value", "expected"), ODD)
def test_what_a_column_of_sqlite_should_not_hold_is_reported(
    sqlite_filled: Engine, column: str, value: str, expected: str
) -> None:
    row = next(row for row in rows_of(sqlite_filled, schema.decisions) if row["context"] is not None)
    about = {each["decision_id"] for each in rows_of(sqlite_filled, schema.outcomes)}
    with restored(sqlite_filled):
        with sqlite_filled.begin() as connection:
            statement = f"update decisions set {column} = {value} where id = :id"  # noqa: S608
            connection.execute(text(statement), {"id": row["id"]})
        found = [each for each in verify(sqlite_filled, SIGNER).first if each.table == "decisions"]
    assert row["id"] not in about
    assert [each.expected for each in found] == [expected]
    assert column == "id" or found[0].subject == encode(row["id"])


def test_text_that_cannot_be_read_names_its_column(sqlite_filled: Engine) -> None:
    with restored(sqlite_filled):
        row = rows_of(sqlite_filled, schema.decisions)[0]
        with sqlite_filled.begin() as connection:
            statement = text("update decisions set unit = cast(x'ff' as text) where id = :id")
            connection.execute(statement, {"id": row["id"]})
        with pytest.raises(LedgerUnavailable, match="Could not decode to UTF-8 column 'unit'"):
            verify(sqlite_filled, SIGNER)
        with sqlite_filled.begin() as connection:
            connection.execute(text("update decisions set unit = 'u' where id = :id"), {"id": row["id"]})


def test_a_failure_is_one_line_whatever_was_found(sqlite_filled: Engine) -> None:
    with restored(sqlite_filled):
        with sqlite_filled.begin() as connection:
            connection.execute(update(schema.decisions).values(endpoint="two\nlines " + "and more " * 100))
        lines = [str(failure) for failure in verify(sqlite_filled, SIGNER).first]
    assert len(lines) == 100
    assert all(len(line) < 300 and line.isprintable() for line in lines)
    assert lines[0].startswith("decisions ")
    assert "endpoint: expected delay, found 'two\\nlines and more" in lines[0]


def about_outcomes(engine: Engine) -> list[Failure]:
    """Return the failures of outcomes and statistics; the decisions of these tests were never drawn."""
    found: list[Failure] = []
    verify(engine, SMALL_SIGNER, report=found.append)
    return [each for each in found if each.table in {"outcomes", "statistics", "evidence"}]


def record(engine: Engine, *observations: Observation) -> None:
    with engine.begin() as connection:
        Folder().record(connection, observations, NOW_MS)


def store(engine: Engine, *rows: DecisionRow) -> None:
    with engine.begin() as connection:
        Folder().count(connection, insert_decisions(connection, rows), 1)


def test_the_residue_of_a_correction_is_no_failure_and_an_altered_sum_is_one(engine: Engine) -> None:
    row, other = decision(), decision()
    store(engine, row, other)
    for version, value in enumerate((0.1, 100.0, 0.3)):
        record(engine, outcome(row, value, "revenue", version=version))
    record(engine, outcome(other, 0.7, "revenue"))
    [found] = [each for each in rows_of(engine, schema.statistics) if each["metric"] == "revenue"]
    assert found["sum"] != 0.3 + 0.7
    assert about_outcomes(engine) == []
    with engine.begin() as connection:
        connection.execute(update(schema.statistics).values(sum=schema.statistics.c.sum + 2))
    assert {each.what for each in about_outcomes(engine)} == {"sums"}


statements = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["late", "click", "revenue", "seats"]),
        st.integers(0, 2),
        st.sampled_from(["", "a"]),
        st.integers(0, 2),
        st.sampled_from([0.0, 1.0, None]),
        st.sampled_from([1, 100_000]),
    ),
    max_size=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(statements, st.sets(st.integers(0, 5)), st.integers(1, 7))
def test_whatever_is_said_in_whatever_order_the_fold_is_rebuilt(
    engine: Engine, said: list[Any], late: set[int], size: int
) -> None:
    """Outcomes come in batches, some decisions only after their outcomes, one of them never."""
    decisions = [decision(predictions="[0.25, 0.5]", arm=number % 3) for number in range(6)]
    store(engine, *(row for number, row in enumerate(decisions) if number not in late))
    observations = [
        outcome(decisions[number], 1.0 if value is None and not version else value, metric, item, key, version, after_s)
        for number, metric, item, key, version, value, after_s in said
    ]
    for start in range(0, len(observations), size):
        record(engine, *observations[start : start + size])
    coming = [decisions[number] for number in sorted(late)[1:]]
    with engine.begin() as connection:
        Folder().count(connection, insert_decisions(connection, coming), 2)
        Folder().settle(connection, {row.id for row in coming})
    assert about_outcomes(engine) == []


def test_statistics_of_many_minutes_are_compared_minute_by_minute(engine: Engine) -> None:
    """Minutes with outcomes only, with statistics only, and with both take turns."""
    day = NOW_MS // 60_000
    rows = [
        {
            "experiment_id": 1,
            "arm": 0,
            "metric": "brier",
            "span": 1,
            "shard": 0,
            "count": 1,
            "sum": 1.0,
            "sum_squares": 1.0,
        }
        | {"minute": day + minute}
        for minute in (-5, -4, 6, 8)
    ]
    row = decision()
    store(engine, row)
    record(engine, outcome(row))
    scored = (schema.statistics.c.minute == day) & (schema.statistics.c.metric == "brier")
    with engine.begin() as connection:
        connection.execute(insert(schema.statistics), rows)
        connection.execute(update(schema.statistics).where(scored).values(minute=day + 7))
    found = [each.subject.rpartition(" ")[2] for each in about_outcomes(engine)]
    assert found == [str(day + minute) for minute in (0, 6, 7, 8)]
    assert verify(engine, SMALL_SIGNER).older == 2
