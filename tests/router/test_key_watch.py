import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

import router.key_watch
from router.errors import InvalidKey, KeyRequired, LedgerUnavailable, RevokedKey
from router.key_watch import KeyWatch
from router.ledger.control import ControlTables
from router.ledger.database import open_database, upgrade
from router.ledger.keys import KeyTables
from tests.router.keyrings import make_key


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.key_watch, "READ_S", 0.02)
    monkeypatch.setattr(router.key_watch, "RECORD_S", 0.02)


def watching(engine: Engine, clock: Callable[[], int]) -> KeyWatch:
    return KeyWatch(ControlTables(engine), KeyTables(engine), clock)


def refuses(watch: KeyWatch, shown: str | None, error: type[Exception]) -> Callable[[], bool]:
    def refused() -> bool:
        try:
            watch.gate.admit(shown, "read")
        except error:
            return True
        return False

    return refused


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def rename(engine: Engine, *names: tuple[str, str]) -> None:
    with engine.begin() as connection:
        for old, new in names:
            connection.execute(text(f"alter table {old} rename to {new}"))


def test_every_replica_hears_of_a_key_and_of_its_end(engine: Engine) -> None:
    async def go() -> None:
        replicas = [watching(engine, lambda: 7) for _ in range(2)]
        for each in replicas:
            await each.start()
            each.gate.admit(None, "admin")
        key_id, shown = await asyncio.to_thread(make_key, engine, "read")
        for each in replicas:
            await until(refuses(each, None, KeyRequired))
            each.gate.admit(shown, "read")
        await asyncio.to_thread(lambda: KeyTables(engine).revoke(key_id, 5, actor="a test"))
        for each in replicas:
            await until(refuses(each, shown, RevokedKey))
            await each.stop()

    asyncio.run(go())


def test_uses_are_recorded_while_running_and_at_the_end(engine: Engine) -> None:
    now_ms = 1000
    _, shown = make_key(engine, "read")

    def recorded() -> int | None:
        return KeyTables(engine).read_all()[0].last_used_ms

    async def go() -> None:
        nonlocal now_ms
        watch = watching(engine, lambda: now_ms)
        await watch.start()
        watch.gate.admit(shown, "read")
        await until(lambda: recorded() == 1000)
        now_ms = 2000
        watch.gate.admit(shown, "read")
        await watch.stop()

    asyncio.run(go())
    assert recorded() == 2000


def test_keys_stay_in_force_while_the_database_is_away(engine: Engine) -> None:
    _, shown = make_key(engine, "read")
    away = [("control_version", "away_version"), ("api_keys", "away_keys")]

    async def go() -> None:
        watch = watching(engine, lambda: 3000)
        await watch.start()
        rename(engine, *away)
        for _ in range(20):
            watch.gate.admit(shown, "read")
            with pytest.raises(InvalidKey):
                watch.gate.admit("tk_x_y", "read")
            await asyncio.sleep(0.01)
        rename(engine, *((new, old) for old, new in away))
        await until(lambda: KeyTables(engine).read_all()[0].last_used_ms == 3000)
        _, other = await asyncio.to_thread(make_key, engine, "read")
        await until(lambda: not refuses(watch, other, InvalidKey)())
        await watch.stop()

    asyncio.run(go())


def test_stopping_outlives_a_table_that_is_gone(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    _, shown = make_key(engine, "read")

    async def go() -> None:
        watch = watching(engine, lambda: 3000)
        await watch.start()
        watch.gate.admit(shown, "read")
        rename(engine, ("api_keys", "away_keys"))
        await watch.stop()

    asyncio.run(go())
    assert "the last uses of API keys are not recorded" in caplog.text


def test_stopping_while_the_database_is_away_says_what_is_lost(
    sqlite_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    _, shown = make_key(sqlite_engine, "read")

    async def go() -> None:
        watch = watching(sqlite_engine, lambda: 3000)
        await watch.start()
        rename(sqlite_engine, ("api_keys", "away_keys"))
        watch.gate.admit(shown, "read")
        await watch.stop()

    with caplog.at_level(logging.WARNING):
        asyncio.run(go())
    assert "the last uses of API keys are not recorded" in caplog.text
    assert shown.split("_")[2] not in caplog.text


def test_a_start_without_the_keys_fails_instead_of_opening(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/ledger.db")
    upgrade(engine)
    rename(engine, ("api_keys", "away_keys"))
    watch = watching(engine, lambda: 1)
    with pytest.raises(LedgerUnavailable):
        asyncio.run(watch.start())
    with pytest.raises(LedgerUnavailable):
        watch.gate.admit(None, "read")
    engine.dispose()
