"""No statement of the data plane may read a whole table: its cost would grow with the ledger's history."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from router.ledger.folding import Folder
from router.ledger.reading import DecisionTables
from router.ledger.writing import Claim, claim_keys, insert_decisions, stored_decisions
from tests.router.ledgers import NOW_MS, decision, outcome


@contextmanager
def scans(engine: Engine) -> Iterator[list[str]]:
    """Collect the query plans' steps that scan a table, for every statement run in the block."""
    found: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if not statement.lower().startswith(("select", "insert", "update")):
            return
        single = parameters[0] if isinstance(parameters, list) else parameters
        steps = cursor.connection.execute(f"explain query plan {statement}", single)
        found.extend(
            f"{step[3]}: {statement}" for step in steps if step[3].startswith("SCAN") and "CONST" not in step[3]
        )

    event.listen(engine, "before_cursor_execute", explain)
    yield found
    event.remove(engine, "before_cursor_execute", explain)


def test_scans_notices_one(sqlite_engine: Engine) -> None:
    with scans(sqlite_engine) as found, sqlite_engine.begin() as connection:
        connection.exec_driver_sql("select * from outcomes where value = 1")
    assert len(found) == 1


def test_outcomes_are_recorded_without_a_scan(sqlite_engine: Engine) -> None:
    rows = [decision() for _ in range(3)]
    with scans(sqlite_engine) as found, sqlite_engine.begin() as connection:
        insert_decisions(connection, rows)
        for _ in range(2):
            receipts = Folder().record(connection, [outcome(row) for row in rows], NOW_MS)
    assert [receipt.status for receipt in receipts] == ["duplicate"] * 3
    assert found == []


def test_retries_are_found_without_a_scan(sqlite_engine: Engine) -> None:
    rows = [decision() for _ in range(3)]
    with scans(sqlite_engine) as found, sqlite_engine.begin() as connection:
        insert_decisions(connection, rows)
        for _ in range(2):
            bound = claim_keys(connection, [Claim("delay", row.unit + str(n), row.id) for n, row in enumerate(rows)])
        assert stored_decisions(connection, bound.values()).keys() == {row.id for row in rows}
    assert found == []


def test_a_decision_is_read_without_a_scan(sqlite_engine: Engine) -> None:
    row = decision()
    with sqlite_engine.begin() as connection:
        insert_decisions(connection, [row])
    with scans(sqlite_engine) as found:
        tables = DecisionTables(sqlite_engine)
        tables.read(row.id)
        tables.outcomes(row.id)
    assert found == []
