import threading
import time

from sqlalchemy import Engine, func, insert, select

from router.decision_id import Signer
from router.ledger import schema
from router.ledger.contributions import ITEMS
from router.ledger.folding import Folder
from router.ledger.rollup import DAY, HOUR, TEN, roll_up
from router.ledger.writing import insert_decisions
from router.service import system_clock
from router.verification import Failure, verify
from tests.router.ledgers import NOW_MS, decision, outcome
from tests.router.ledgers import SIGNER as SMALL_SIGNER
from tests.router.logged import SECRET

MINUTE_MS = 60_000


def sums(engine: Engine) -> dict[tuple[int, int, str], tuple[int, float, float]]:
    """Return the statistics of every arm and metric, whatever the minutes."""
    table = schema.statistics
    keys = (table.c.experiment_id, table.c.arm, table.c.metric)
    query = select(*keys, func.sum(table.c.count), func.sum(table.c.sum), func.sum(table.c.sum_squares))
    with engine.connect() as connection:
        return {tuple(row[:3]): tuple(map(float, row[3:])) for row in connection.execute(query.group_by(*keys))}  # type: ignore[misc]


def spans(engine: Engine) -> set[int]:
    with engine.connect() as connection:
        return set(connection.scalars(select(schema.statistics.c.span)))


def sums_are_wrong(engine: Engine) -> list[Failure]:
    """Return the failures of statistics; the decisions of these tests were not drawn by their epoch, but they count."""
    return [each for each in verify(engine, SMALL_SIGNER).first if each.table == "statistics"]


def test_old_minutes_become_hours_and_days_and_nothing_is_lost(ledger: Engine) -> None:
    before, now_ms = sums(ledger), system_clock()
    roll_up(ledger, now_ms)
    assert spans(ledger) == {1}
    for days, span in ((1 / 8, TEN), (3, HOUR), (15, DAY), (200, DAY)):
        roll_up(ledger, now_ms + round(days * DAY) * MINUTE_MS)
        assert spans(ledger) == {span}
        assert {key: [round(each, 6) for each in found] for key, found in sums(ledger).items()} == {
            key: [round(each, 6) for each in found] for key, found in before.items()
        }
        assert verify(ledger, Signer([SECRET])).failures == 0


def test_a_late_outcome_opens_its_minute_anew(engine: Engine) -> None:
    rows = [decision() for _ in range(3)]
    folder = Folder()
    with engine.begin() as connection:
        folder.count(connection, insert_decisions(connection, rows), 1)
        folder.record(connection, [outcome(rows[0])], NOW_MS)
    later_ms = NOW_MS + 3 * DAY * MINUTE_MS
    roll_up(engine, later_ms)
    with engine.begin() as connection:
        folder.record(connection, [outcome(rows[1]), outcome(rows[0], 0.0, version=1)], later_ms)
    assert spans(engine) == {1, HOUR}
    assert sums_are_wrong(engine) == []
    roll_up(engine, later_ms)
    assert spans(engine) == {HOUR}
    assert sums_are_wrong(engine) == []


def test_a_minute_that_is_being_counted_is_not_waited_for(engine: Engine) -> None:
    """The drain of an old spool holds its minute, and will wait for the lock of the outcomes that the roll-up holds."""
    folder, early, late = Folder(), decision(), decision()
    with engine.begin() as connection:
        folder.count(connection, insert_decisions(connection, [early]), 1)
    now_ms = NOW_MS + 3 * DAY * MINUTE_MS
    rolling = threading.Thread(target=roll_up, args=(engine, now_ms))
    with engine.begin() as connection:
        folder.count(connection, insert_decisions(connection, [late]), 1)
        rolling.start()
        time.sleep(0.5)
        folder.settle(connection, {early.id})
    rolling.join()
    roll_up(engine, now_ms)
    assert spans(engine) == {HOUR}
    assert sums(engine) == {(1, 0, ITEMS): (2, 2.0, 2.0)}


def test_a_blunder_of_another_day_is_taken_back(engine: Engine) -> None:
    rows, folder = [decision() for _ in range(9)], Folder()
    with engine.begin() as connection:
        folder.count(connection, insert_decisions(connection, rows), 1)
        folder.record(connection, [outcome(row, 3.0 + n % 2, "revenue") for n, row in enumerate(rows[:-1])], NOW_MS)
        folder.record(connection, [outcome(rows[-1], 1.7e12, "revenue")], NOW_MS)
    later_ms = NOW_MS + 3 * DAY * MINUTE_MS
    roll_up(engine, later_ms)
    with engine.begin() as connection:
        folder.record(connection, [outcome(rows[0], 4.0, "revenue", version=1)], later_ms)
        folder.record(connection, [outcome(rows[-1], None, "revenue", version=1)], later_ms)
    assert sums(engine)[1, 0, "revenue"] == (8, 29.0, 107.0)
    assert sums_are_wrong(engine) == []
    assert spans(engine) == {HOUR}


def test_a_month_of_minutes_is_a_few_hundred_rows(sqlite_engine: Engine) -> None:
    now = NOW_MS // MINUTE_MS
    row = {
        "experiment_id": 1,
        "arm": 0,
        "metric": "click",
        "span": 1,
        "shard": 0,
        "count": 1,
        "sum": 1,
        "sum_squares": 1,
    }
    with sqlite_engine.begin() as connection:
        rows = [{**row, "minute": minute} for minute in range(now - 30 * DAY, now)]
        connection.execute(insert(schema.statistics), rows)
    roll_up(sqlite_engine, NOW_MS)
    with sqlite_engine.connect() as connection:
        count = connection.scalar(select(func.count()).select_from(schema.statistics))
    assert sums(sqlite_engine) == {(1, 0, "click"): (30 * DAY,) * 3}
    assert count is not None
    assert count < 600
