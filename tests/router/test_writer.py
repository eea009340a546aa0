import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, select

import router.ledger.writer
from router.documents import BinaryMetric
from router.errors import LedgerUnavailable, Overloaded
from router.ledger import schema
from router.ledger.batch import Assign, BatchWriter, Decide, Observe
from router.ledger.failover import Failover
from router.ledger.records import ACCEPTED, AssignmentRow, DecisionRow
from router.ledger.writer import LedgerWriter
from tests.router.ledgers import NOW_MS, decision, outcome, rows_in, store_contextual


def new_writer(engine: Engine, folder: Path, queue_size: int = 1000) -> LedgerWriter:
    store = Failover(engine, BatchWriter(lambda: NOW_MS), folder / "spool", max_spool_bytes=100_000_000)
    return LedgerWriter(store, queue_size=queue_size, timeout_s=0.5)


@pytest.fixture
def writer(engine: Engine, tmp_path: Path) -> Iterator[LedgerWriter]:
    writer = new_writer(engine, tmp_path)
    writer.start()
    yield writer
    writer.stop()


def test_decide_returns_when_the_row_is_committed(engine: Engine, writer: LedgerWriter) -> None:
    row = decision(unit="Zoë 🚂")
    assert asyncio.run(writer.decide(row, None)) == row
    with engine.connect() as connection:
        stored = connection.execute(select(schema.decisions)).one()
    assert tuple(stored) == tuple(row)


def test_decide_of_many_at_once_stores_each_once(engine: Engine, writer: LedgerWriter) -> None:
    rows = [decision() for _ in range(500)]

    async def all_at_once() -> list[DecisionRow]:
        return list(await asyncio.gather(*(writer.decide(row, None) for row in rows)))

    assert asyncio.run(all_at_once()) == rows
    assert rows_in(engine, schema.decisions) == 500


def test_decide_with_a_known_key_returns_the_first_decision(engine: Engine, writer: LedgerWriter) -> None:
    first, again, at_once = decision(), decision(), [decision() for _ in range(5)]

    async def retries() -> list[DecisionRow]:
        bound = [await writer.decide(first, "order-1"), await writer.decide(again, "order-1")]
        return bound + list(await asyncio.gather(*(writer.decide(row, "order-2") for row in at_once)))

    bound = asyncio.run(retries())
    assert bound[:2] == [first, first]
    assert len(set(bound[2:])) == 1
    assert rows_in(engine, schema.decisions) == 2


def test_observe_in_the_batch_of_its_decision_finds_it(engine: Engine, writer: LedgerWriter) -> None:
    rows = [decision() for _ in range(50)]

    async def both() -> None:
        deciding = [writer.decide(row, None) for row in rows]
        observing = [writer.observe([outcome(row)]) for row in rows]
        await asyncio.gather(*deciding, *observing)

    asyncio.run(both())
    assert rows_in(engine, schema.outcomes) == 50


def test_a_row_that_cannot_be_stored_fails_alone(engine: Engine, writer: LedgerWriter) -> None:
    good, bad = decision(), decision(unit="\ud800 is half a character")

    async def both() -> list[DecisionRow | BaseException]:
        deciding = (writer.decide(good, None), writer.decide(bad, None))
        return list(await asyncio.gather(*deciding, return_exceptions=True))

    results = asyncio.run(both())
    assert results[0] == good
    assert isinstance(results[1], LedgerUnavailable)
    assert rows_in(engine, schema.decisions) == 1


def test_assign_returns_the_first_assignment_of_a_unit(engine: Engine, writer: LedgerWriter) -> None:
    first, second = (AssignmentRow(1, "Zoë", epoch, epoch % 2, 5000, NOW_MS) for epoch in (3, 4))
    other = AssignmentRow(2, "Zoë", 4, 0, 5000, NOW_MS)

    async def assign() -> list[AssignmentRow]:
        standing = [await writer.assign(first)]
        return standing + list(await asyncio.gather(*(writer.assign(row) for row in (second, other, first))))

    assert asyncio.run(assign()) == [first, first, other, first]


def test_contextual_decisions_and_first_assignments_wait_for_each_other_in_one_order(engine: Engine) -> None:
    """One replica holds a unit and needs the lock of the outcomes, which another took and now needs the unit."""
    click = BinaryMetric(name="click", default=0, window_s=60, direction="increase", role="primary")
    learns = store_contextual(engine, click)
    here, there, old = BatchWriter(lambda: NOW_MS), BatchWriter(lambda: NOW_MS), decision(experiment_id=learns)
    unit = Assign(AssignmentRow(1, "Zoë", 1, 0, 5000, NOW_MS))
    answers: list[Any] = []

    def write_here() -> None:
        with engine.begin() as connection:
            answers.extend(here.write(connection, [Decide(decision(experiment_id=learns), None), unit]))

    with engine.begin() as connection:
        there.write(connection, [Decide(old, None)])
    thread = threading.Thread(target=write_here)
    with engine.begin() as connection:
        there.write(connection, [unit])
        thread.start()
        time.sleep(0.5)
        [[receipt]] = there.write(connection, [Observe((outcome(old, 1.0, "click"),))])
    thread.join()
    assert receipt == ACCEPTED
    assert answers[1:] == [unit.row]
    assert rows_in(engine, schema.decisions) == 2


def test_a_key_whose_decision_is_gone_decides_anew(engine: Engine, writer: LedgerWriter) -> None:
    first, again = decision(), decision()
    assert asyncio.run(writer.decide(first, "order-1")) == first
    with engine.begin() as connection:
        connection.execute(schema.decisions.delete())
    assert asyncio.run(writer.decide(again, "order-1")) == again
    assert rows_in(engine, schema.decisions) == 1


def test_under_load_a_batch_waits_for_company_and_a_single_row_does_not(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is.
    monkeypatch.setattr(router.ledger.writer, "_LULL_S", 30.0)
    store = Failover(engine, BatchWriter(lambda: NOW_MS), tmp_path / "spool", max_spool_bytes=10_000_000)
    sizes: list[int] = []
    writer = LedgerWriter(
        store,
        queue_size=1000,
        timeout_s=30,
        committed=lambda _, rows: sizes.append(rows),
        gathering_s=0.5,
    )
    writer.start()

    async def one_after_the_other(number: int) -> None:
        for _ in range(number):
            await writer.decide(decision(), None)

    async def go() -> None:
        await one_after_the_other(3)
        await asyncio.gather(*(one_after_the_other(1) for _ in range(4)))
        # These come in two turns of the loop, and would be two batches.
        following = [asyncio.create_task(one_after_the_other(1)) for _ in range(2)]
        while writer.depth() < 2:
            await asyncio.sleep(0)
        await asyncio.gather(*following, one_after_the_other(1))

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        until_three = time.monotonic() + 30
        while writer.depth() < 3 and time.monotonic() < until_three:
            time.monotonic()

    slept: list[float] = []
    monkeypatch.setattr(router.ledger.writer, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    asyncio.run(go())
    writer.stop()
    assert sizes == [1, 1, 1, 4, 3]
    assert slept == [0.5]


def test_a_full_queue_refuses(engine: Engine, tmp_path: Path) -> None:
    writer = new_writer(engine, tmp_path, queue_size=2)

    async def fill() -> None:
        waiting = [asyncio.ensure_future(writer.decide(decision(), None)) for _ in range(2)]
        await asyncio.sleep(0)
        assert writer.depth() == 2
        with pytest.raises(Overloaded, match="2 rows wait"):
            await writer.decide(decision(), None)
        writer.start()
        await asyncio.gather(*waiting)

    asyncio.run(fill())
    writer.stop()
    assert rows_in(engine, schema.decisions) == 2


def test_stop_commits_what_is_queued(engine: Engine, tmp_path: Path) -> None:
    writer = new_writer(engine, tmp_path)

    async def stop_with_work() -> None:
        waiting = [asyncio.ensure_future(writer.decide(decision(), None)) for _ in range(20)]
        await asyncio.sleep(0)
        writer.start()
        await asyncio.to_thread(writer.stop)
        await asyncio.gather(*waiting)
        with pytest.raises(LedgerUnavailable, match="stopping"):
            await writer.decide(decision(), None)

    asyncio.run(stop_with_work())
    assert rows_in(engine, schema.decisions) == 20
