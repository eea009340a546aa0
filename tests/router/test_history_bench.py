"""The past that benchmarks write into ledgers is like one that a router wrote."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from bench import history
from router.decision_id import Signer, unpack
from router.ledger import schema
from router.ledger.database import is_postgresql, open_database, upgraded
from router.ledger.partitions import ensure_partitions
from router.service import system_clock
from tests.databases import BACKENDS, database


@pytest.mark.parametrize("backend", BACKENDS)
def test_decisions_of_the_past_are_signed_and_in_order(backend: str, tmp_path: Path) -> None:
    with database(backend, tmp_path) as url:
        with upgraded(url) as engine:
            ensure_partitions(engine, system_clock())
        history.fill(url, 1000)
        engine = open_database(url)
        with engine.connect() as connection:
            rows = connection.execute(select(schema.decisions).order_by(schema.decisions.c.id)).all()
            if is_postgresql(engine):
                homes = set(connection.scalars(text("select distinct tableoid::regclass::text from decisions")))
                # Of the month before, a day ago, there is no partition in a new ledger.
                expected = {_month(row.decided_ms) for row in rows}
                assert homes == {each if each == _month(system_clock()) else "decisions_rest" for each in expected}
        engine.dispose()
    assert [row.unit for row in rows] == [f"unit-{number}" for number in range(1000)]
    times = [row.decided_ms for row in rows]
    assert times == sorted(times)
    assert times[-1] <= system_clock()
    assert all(Signer(["the secret of a benchmark"]).signed(row.id) for row in rows)
    assert all(unpack(row.id).propensity == row.propensity for row in rows)
    assert {row.arm for row in rows} == {0, 1, 2}


def _month(ms: int) -> str:
    return f"decisions_{datetime.fromtimestamp(ms / 1000, UTC):%Y_%m}"
