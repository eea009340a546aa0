import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import Engine, func, make_url, select, text

import router.ledger.database
from router.errors import LedgerUnavailable
from router.ledger import schema
from router.ledger.batch import BatchWriter, Decide, Job, Observe
from router.ledger.contributions import ITEMS
from router.ledger.control import ControlTables
from router.ledger.database import open_database, upgrade
from router.ledger.failover import Failover
from router.ledger.records import DecisionRow, Receipt
from router.ledger.spool import open_spool
from router.ledger.writer import LedgerWriter
from tests.databases import database
from tests.proxies import Proxy, proxy
from tests.router.ledgers import NOW_MS, decision, outcome, rows_in, store_experiment

TIMEOUT_S = 0.5


class Shared(NamedTuple):
    """A PostgreSQL ledger that is reached through a line which can be cut, and directly."""

    line: Proxy
    through: Engine
    direct: Engine


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    with database("postgresql", tmp_path) as url:
        direct = open_database(url)
        upgrade(direct)
        store_experiment(direct)
        address = make_url(url)
        with proxy((address.host or "", address.port or 5432)) as line:
            through = open_database(address.set(port=line.port).render_as_string(hide_password=False))
            yield Shared(line, through, direct)
            through.dispose()
        direct.dispose()


def new_store(engine: Engine, folder: Path, max_spool_bytes: int = 100_000_000) -> Failover:
    return Failover(engine, BatchWriter(lambda: NOW_MS), folder / "spool", max_spool_bytes=max_spool_bytes)


def new_writer(store: Failover, timeout_s: float = TIMEOUT_S) -> LedgerWriter:
    writer = LedgerWriter(store, queue_size=10_000, timeout_s=timeout_s)
    writer.start()
    return writer


async def watched(writer: LedgerWriter, rows: list[DecisionRow]) -> list[DecisionRow]:
    """Decide as the service does: somebody looks whether commits hang."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.watch()

    watching = asyncio.create_task(watch())
    try:
        return list(await asyncio.gather(*(writer.decide(row, None) for row in rows)))
    finally:
        watching.cancel()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)


def folded(engine: Engine) -> tuple[float, float]:
    with engine.connect() as connection:
        count, total = connection.execute(
            select(func.sum(schema.statistics.c.count), func.sum(schema.statistics.c.sum)).where(
                schema.statistics.c.metric != ITEMS
            )
        ).one()
    return float(count or 0), float(total or 0.0)


def test_what_is_decided_while_the_line_is_cut_is_drained_once(shared: Shared, tmp_path: Path) -> None:
    store = new_store(shared.through, tmp_path)
    writer = new_writer(store)
    rows = [decision() for _ in range(300)]
    assert asyncio.run(watched(writer, rows[:100])) == rows[:100]
    shared.line.cut()
    assert asyncio.run(watched(writer, rows[100:])) == rows[100:]
    assert store.state().spooled == 200
    assert store.state().problem is not None
    assert rows_in(shared.direct, schema.decisions) == 100
    shared.line.restore()
    until(lambda: store.state().problem is None)
    assert store.state().spooled == 0
    assert rows_in(shared.direct, schema.decisions) == 300
    writer.stop()
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_line_that_goes_silent_delays_but_fails_nobody(shared: Shared, tmp_path: Path) -> None:
    store = new_store(shared.through, tmp_path)
    writer = new_writer(store)
    rows = [decision() for _ in range(60)]
    assert asyncio.run(watched(writer, rows[:20])) == rows[:20]
    shared.line.silence()
    assert asyncio.run(watched(writer, rows[20:40])) == rows[20:40]
    assert asyncio.run(watched(writer, rows[40:])) == rows[40:]
    assert store.state().spooled == 40
    # The commit that was given up may go through now, before or after the same jobs have drained.
    shared.line.restore()
    until(lambda: store.state().problem is None)
    assert rows_in(shared.direct, schema.decisions) == 60
    writer.stop()


def test_a_read_from_a_silent_server_ends_with_an_error(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.ledger.database, "ANSWER_S", 0.3)
    tables = ControlTables(shared.through)
    before = tables.version()
    shared.line.silence()
    with pytest.raises(LedgerUnavailable, match="does not answer"):
        tables.version()
    shared.line.restore()
    assert tables.version() == before


def test_broken_connections_are_replaced_without_the_spool(
    shared: Shared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = new_store(shared.through, tmp_path)
    # A slow machine must not look like a ledger that is away.
    writer = new_writer(store, timeout_s=30.0)
    rows = [decision() for _ in range(30)]
    for start in range(0, 30, 10):
        assert asyncio.run(watched(writer, rows[start : start + 10])) == rows[start : start + 10]
        shared.line.break_connections()
    writer.stop()
    assert rows_in(shared.direct, schema.decisions) == 30
    assert "the ledger is away" not in caplog.text


def test_outcomes_sent_while_the_line_is_cut_count_once(shared: Shared, tmp_path: Path) -> None:
    store = new_store(shared.through, tmp_path)
    writer = new_writer(store)
    rows = [decision(predictions="[0.5]") for _ in range(20)]
    asyncio.run(watched(writer, rows[:10]))
    shared.line.cut()

    async def away() -> None:
        await asyncio.gather(*(writer.decide(row, None) for row in rows[10:]))
        for _ in range(3):
            receipts = await writer.observe([outcome(row) for row in rows])
            assert receipts == [Receipt("accepted")] * 20

    asyncio.run(away())
    # Another replica hears of the same outcomes, half of them before their decision has drained.
    other = new_store(shared.direct, tmp_path / "other")
    session = other.session()
    assert other.commit(session, [Observe(tuple(outcome(row) for row in rows))]) == [[Receipt("accepted")] * 20]
    assert folded(shared.direct) == pytest.approx((10, 2.5))
    shared.line.restore()
    until(lambda: store.state().problem is None)
    assert folded(shared.direct) == pytest.approx((20, 5.0))
    assert rows_in(shared.direct, schema.outcomes) == 20
    writer.stop()
    session.close()


def test_a_retry_that_was_decided_before_the_cut_is_recorded_twice_but_never_lost(
    shared: Shared, tmp_path: Path
) -> None:
    store = new_store(shared.through, tmp_path)
    writer = new_writer(store)
    before, during, again = decision(), decision(), decision()
    assert asyncio.run(writer.decide(before, "order-1")) == before
    shared.line.cut()
    assert asyncio.run(writer.decide(during, "order-1")) == during
    assert asyncio.run(writer.decide(again, "order-1")) == during
    shared.line.restore()
    until(lambda: store.state().problem is None)
    assert rows_in(shared.direct, schema.decisions) == 2
    assert asyncio.run(writer.decide(decision(), "order-1")) == before
    writer.stop()


def test_a_killed_process_leaves_a_spool_that_the_next_one_drains(engine: Engine, tmp_path: Path) -> None:
    rows = [decision() for _ in range(5)]
    left = open_spool(tmp_path / "spool", max_bytes=10_000_000)
    left.append([Decide(row, None) for row in rows] + [Observe((outcome(row),)) for row in rows])
    left.close()
    writer = new_writer(new_store(engine, tmp_path))
    until(lambda: rows_in(engine, schema.outcomes) == 5)
    assert rows_in(engine, schema.decisions) == 5
    assert folded(engine)[0] == 5
    until(lambda: len(list((tmp_path / "spool").glob("*.spool"))) == 1)
    writer.stop()


def test_draining_again_what_was_committed_before_a_kill_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    store = new_store(engine, tmp_path)
    rows = [decision(), decision()]
    jobs: list[Job] = [Decide(rows[0], "order-1"), Decide(rows[1], None), Observe(tuple(outcome(row) for row in rows))]
    for _ in range(3):
        store.session().run(lambda connection: BatchWriter(lambda: NOW_MS).drain(connection, jobs))
    assert rows_in(engine, schema.decisions) == rows_in(engine, schema.outcomes) == 2
    assert folded(engine)[0] == 2
    store.start()
    store.stop()


def test_a_job_that_no_ledger_takes_does_not_hold_up_the_others(
    shared: Shared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [decision() for _ in range(5)]
    rows[2] = rows[2]._replace(unit="NUL \x00 is no text for PostgreSQL")
    left = open_spool(tmp_path / "spool", max_bytes=10_000_000)
    left.append([Decide(row, None) for row in rows])
    left.close()
    with caplog.at_level(logging.ERROR):
        writer = new_writer(new_store(shared.direct, tmp_path))
        until(lambda: rows_in(shared.direct, schema.decisions) == 4)
        until(lambda: len(list((tmp_path / "spool").glob("*.refused"))) == 1)
    assert "NUL" in caplog.text
    writer.stop()


def test_a_row_too_large_for_the_database_is_no_outage(
    shared: Shared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [decision() for _ in range(3)]
    too_long = os.urandom(5000).hex()
    left = open_spool(tmp_path / "spool", max_bytes=10_000_000)
    left.append([Decide(rows[0], too_long), Decide(rows[1], "order-1")])
    left.close()
    store = new_store(shared.direct, tmp_path)
    writer = new_writer(store)
    until(lambda: rows_in(shared.direct, schema.decisions) == 1)
    with pytest.raises(LedgerUnavailable, match="index row"):
        asyncio.run(writer.decide(rows[2], too_long))
    assert store.state().problem is None
    assert "index row" in caplog.text
    writer.stop()
    assert len(list((tmp_path / "spool").glob("*.refused"))) == 1


def test_a_batch_that_was_committed_before_its_connection_broke_is_answered_and_counted_once(
    engine: Engine, tmp_path: Path
) -> None:
    store = new_store(engine, tmp_path)
    store.start()
    session = store.session()
    rows = [decision() for _ in range(20)]
    jobs: list[Job] = [*(Decide(row, None) for row in rows), Observe((outcome(rows[0]),))]
    receipts = [store.commit(session, jobs)[-1], store.commit(session, jobs)[-1]]
    assert [[receipt.status for receipt in each] for each in receipts] == [["accepted"], ["duplicate"]]
    assert store.commit(session, jobs)[:-1] == rows
    assert rows_in(engine, schema.decisions) == 20
    with engine.connect() as connection:
        counted = select(func.sum(schema.statistics.c.count)).where(schema.statistics.c.metric == ITEMS)
        assert connection.scalar(counted) == 20
    session.close()
    store.stop()


def test_a_locked_database_file_delays_but_fails_nobody(sqlite_engine: Engine, tmp_path: Path) -> None:
    store = new_store(sqlite_engine, tmp_path)
    writer = new_writer(store)
    rows = [decision() for _ in range(20)]
    with sqlite_engine.begin():
        assert asyncio.run(watched(writer, rows)) == rows
        assert store.state().spooled == 20
    until(lambda: store.state().problem is None)
    assert rows_in(sqlite_engine, schema.decisions) == 20
    writer.stop()


@pytest.mark.parametrize(
    ("breaking", "mending"),
    [
        (
            "alter database {} set default_transaction_read_only = on",
            "alter database {} reset default_transaction_read_only",
        ),
        ("alter table decisions rename to gone", "alter table gone rename to decisions"),
    ],
    ids=["read-only", "without-a-table"],
)
def test_a_database_that_takes_no_rows_is_waited_for(
    shared: Shared, tmp_path: Path, breaking: str, mending: str
) -> None:
    def alter(statement: str) -> None:
        with shared.direct.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("set default_transaction_read_only = off"))
            connection.execute(text(statement.format(connection.engine.url.database)))
        shared.direct.dispose()

    store = new_store(shared.through, tmp_path)
    writer = new_writer(store)
    rows = [decision() for _ in range(30)]
    shared.line.cut()
    assert asyncio.run(watched(writer, rows[:10])) == rows[:10]
    # It comes back as another server than it was, say a standby.
    alter(breaking)
    shared.line.restore()
    assert asyncio.run(watched(writer, rows[10:20])) == rows[10:20]
    time.sleep(1.5)
    assert store.state().problem is not None
    assert asyncio.run(watched(writer, rows[20:])) == rows[20:]
    assert store.state().spooled == 30
    alter(mending)
    until(lambda: store.state().problem is None)
    assert rows_in(shared.direct, schema.decisions) == 30
    writer.stop()
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_table_that_is_gone_is_waited_for(sqlite_engine: Engine, tmp_path: Path) -> None:
    store = new_store(sqlite_engine, tmp_path)
    writer = new_writer(store)
    with sqlite_engine.begin() as connection:
        connection.execute(text("alter table decisions rename to away"))
    row = decision()
    assert asyncio.run(writer.decide(row, None)) == row
    assert "no such table: decisions" in (store.state().problem or "")
    with sqlite_engine.begin() as connection:
        connection.execute(text("alter table away rename to decisions"))
    until(lambda: store.state().problem is None)
    assert rows_in(sqlite_engine, schema.decisions) == 1
    writer.stop()


def test_nothing_is_acknowledged_when_the_spool_is_full_as_well(shared: Shared, tmp_path: Path) -> None:
    store = new_store(shared.through, tmp_path, max_spool_bytes=200_000)
    writer = new_writer(store)
    shared.line.cut()

    async def fill() -> int:
        for number in range(1000):
            try:
                await writer.decide(decision(unit="u" * 500), None)
            except LedgerUnavailable:
                return number
        raise AssertionError("the spool grew beyond its limit")

    acknowledged = asyncio.run(fill())
    assert acknowledged > 0
    shared.line.restore()
    until(lambda: store.state().problem is None)
    assert rows_in(shared.direct, schema.decisions) == acknowledged
    writer.stop()


def test_stop_while_a_commit_hangs_keeps_what_was_handed_in(shared: Shared, tmp_path: Path) -> None:
    store = new_store(shared.through, tmp_path)
    writer = new_writer(store)
    rows = [decision() for _ in range(10)]

    async def hang_and_stop() -> list[DecisionRow]:
        await writer.decide(rows[0], None)
        shared.line.silence()
        deciding = [asyncio.ensure_future(writer.decide(row, None)) for row in rows[1:]]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(writer.stop)
        return list(await asyncio.gather(*deciding))

    assert asyncio.run(hang_and_stop()) == rows[1:]
    shared.line.restore()
    again = new_writer(new_store(shared.direct, tmp_path))
    until(lambda: rows_in(shared.direct, schema.decisions) == 10)
    again.stop()
