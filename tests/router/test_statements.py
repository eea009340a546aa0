import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from router.ledger import schema
from router.ledger.statements import (
    add,
    chunks,
    insert_missing,
    insert_new,
    insert_returning,
    replace,
    select_by_key,
    select_for_update,
)
from router.ledger.statistics import Minute, read_minutes
from tests.router.ledgers import decision, rows_in

MANY = [1, 2, 63, 64, 65, 200]


@pytest.mark.parametrize("number", MANY)
def test_rows_that_are_new_are_inserted_and_returned(engine: Engine, number: int) -> None:
    rows = [decision() for _ in range(number)]
    with engine.begin() as connection:
        assert list(insert_returning(connection, schema.decisions, rows)) == rows
    assert rows_in(engine, schema.decisions) == number


@pytest.mark.parametrize("number", MANY)
def test_of_rows_some_of_which_are_there_only_the_new_are_inserted_and_returned(engine: Engine, number: int) -> None:
    rows = [decision() for _ in range(number)]
    with engine.begin() as connection:
        insert_returning(connection, schema.decisions, rows[::3])
    with engine.begin() as connection:
        found = insert_returning(connection, schema.decisions, rows)
        assert sorted(row.id for row in found) == sorted(row.id for place, row in enumerate(rows) if place % 3)
    assert rows_in(engine, schema.decisions) == number


@pytest.mark.parametrize("number", [1, 7, 8, 200])
def test_new_rows_are_inserted_as_they_are(engine: Engine, number: int) -> None:
    odd = decision()._replace(unit="a\tb\\n\\N\r\n\\.", context="", arm=None, propensity=0.1, latency_ms=1e-7)
    rows = [odd, *(decision() for _ in range(number - 1))]
    with engine.begin() as connection:
        assert list(insert_new(connection, schema.decisions, rows)) == rows
        found = connection.execute(select(schema.decisions).where(schema.decisions.c.id == odd.id)).one()
    assert tuple(found) == tuple(odd)
    assert rows_in(engine, schema.decisions) == number


def test_many_rows_one_of_which_is_there_are_refused_on_postgresql(postgresql_engine: Engine) -> None:
    rows = [decision() for _ in range(8)]
    with postgresql_engine.begin() as connection:
        insert_new(connection, schema.decisions, rows[5:6])
    with pytest.raises(IntegrityError), postgresql_engine.begin() as connection:
        insert_new(connection, schema.decisions, rows)
    assert rows_in(postgresql_engine, schema.decisions) == 1
    with postgresql_engine.begin() as connection:
        assert list(insert_new(connection, schema.decisions, rows[5:])) == rows[6:]


def test_rows_are_cut_into_chunks_of_few_sizes() -> None:
    sizes = {number: [len(chunk) for chunk in chunks(range(number))] for number in range(300)}
    assert all(sum(each) == number and len(each) <= 2 + number // 64 for number, each in sizes.items())
    assert {size for each in sizes.values() for size in each} == {*range(1, 9), *range(16, 65, 8)}
    assert [*chunks("abcdefghijk")] == ["abcdefgh", "ijk"]


def test_a_row_that_stands_twice_is_inserted_and_returned_once(engine: Engine) -> None:
    rows = [decision() for _ in range(3)]
    with engine.begin() as connection:
        found = insert_returning(connection, schema.decisions, [*rows, rows[1]])
        assert sorted(row.id for row in found) == sorted(row.id for row in rows)


def test_rows_that_the_same_transaction_inserted_before_are_not_returned_again_on_sqlite(sqlite_engine: Engine) -> None:
    rows = [decision() for _ in range(4)]
    with sqlite_engine.begin() as connection:
        insert_returning(connection, schema.decisions, rows[:2])
        assert list(insert_returning(connection, schema.decisions, rows)) == rows[2:]


@pytest.mark.parametrize("number", MANY)
def test_rows_are_found_by_many_keys(engine: Engine, number: int) -> None:
    rows = [decision() for _ in range(number)]
    with engine.begin() as connection:
        insert_missing(connection, schema.decisions, rows)
        wanted = [row.id for row in rows[::2]] + [b"nobody"]
        found = list(select_by_key(connection, schema.decisions, ("id", "unit"), "id", wanted))
        assert sorted(tuple(each) for each in found) == sorted((row.id, row.unit) for row in rows[::2])
        assert list(select_by_key(connection, schema.decisions, ("id",), "id", [])) == []


def test_statistics_of_all_shards_are_read_as_one(engine: Engine) -> None:
    with engine.begin() as connection:
        rows = [(1, arm, "late", 7, 1, shard, 2, 0.5, 0.25) for arm in range(2) for shard in (0, 3, 9)]
        add(
            connection,
            schema.statistics,
            [*rows, (1, 0, "late", 8, 1, 0, 1, 1.0, 1.0), (1, 0, "click", 7, 1, 0, 1, 1.0, 1.0)],
        )
        found = read_minutes(connection, 1, ["late", "nothing"])
    assert found == {
        "late": [Minute(0, 7, 1, 6, 1.5, 0.75), Minute(0, 8, 1, 1, 1.0, 1.0), Minute(1, 7, 1, 6, 1.5, 0.75)],
        "nothing": [],
    }
    assert isinstance(found["late"][0].n, int)


def test_statistics_are_added_and_evidence_is_replaced(engine: Engine) -> None:
    with engine.begin() as connection:
        for total in (1.5, 2.0):
            add(connection, schema.statistics, [(1, arm, "late", 7, 1, 0, 2, total, 4.0) for arm in range(3)])
            replace(connection, schema.evidence, [(1, arm, "late", 7, 0, bytes([arm, int(total)])) for arm in range(3)])
        added = select_for_update(connection, schema.statistics, experiment_id=1, metric="late")
        assert [tuple(row) for row in added] == [(1, arm, "late", 7, 1, 0, 4, 3.5, 8.0) for arm in range(3)]
        replaced = select_for_update(connection, schema.evidence, experiment_id=1, minute=7, shard=0)
        assert [tuple(row) for row in replaced] == [(1, arm, "late", 7, 0, bytes([arm, 2])) for arm in range(3)]
        assert list(select_for_update(connection, schema.evidence, experiment_id=2)) == []
