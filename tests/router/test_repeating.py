import asyncio
import gc
import logging
import time

import pytest

from router.errors import LedgerUnavailable
from router.repeating import Background


def test_stopping_waits_for_what_is_under_way_and_begins_nothing_more() -> None:
    begun: list[int] = []
    ended: list[int] = []

    def work() -> None:
        begun.append(1)
        time.sleep(0.2)
        ended.append(1)

    async def step() -> None:
        await asyncio.to_thread(work)

    async def go() -> None:
        background = Background()
        background.repeat(0.001, step, "cannot work")
        while not begun:
            await asyncio.sleep(0.001)
        await background.stop()
        assert begun == ended == [1]
        await asyncio.sleep(0.05)
        assert begun == [1]

    asyncio.run(go())


def test_stopping_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.repeating.LAST_STEP_S", 0.05)

    async def go() -> None:
        background = Background()
        background.repeat(0.0, asyncio.Event().wait, "cannot wait")  # type: ignore[arg-type]
        await asyncio.sleep(0.02)
        began_s = time.monotonic()
        await background.stop()
        assert time.monotonic() - began_s < 5

    asyncio.run(go())


def test_a_last_step_that_fails_after_the_wait_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("router.repeating.LAST_STEP_S", 0.01)
    begun = asyncio.Event()

    async def step() -> None:
        begun.set()
        await asyncio.sleep(0.1)
        raise LedgerUnavailable("away")

    async def go() -> None:
        background = Background()
        background.repeat(0.0, step, "cannot look")
        await begun.wait()
        await background.stop()
        await asyncio.sleep(0.2)
        gc.collect()

    with caplog.at_level(logging.INFO):
        asyncio.run(go())
    assert [(record.name, record.getMessage()) for record in caplog.records if record.name != "asyncio"] == [
        ("router.repeating", "the last step before the end failed: away")
    ]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_failures_are_logged_and_an_outage_once(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [ValueError("odd"), *[LedgerUnavailable("away")] * 3, ValueError("even")]

    async def step() -> None:
        if errors:
            raise errors.pop(0)

    async def go() -> None:
        background = Background()
        background.repeat(0.0, step, "cannot look")
        while errors:
            await asyncio.sleep(0.001)
        await background.stop()

    with caplog.at_level(logging.INFO):
        asyncio.run(go())
    assert [record.getMessage() for record in caplog.records if record.name == "router.repeating"] == [
        "cannot look",
        "cannot look: away",
        "cannot look",
    ]


def test_a_step_that_takes_long_is_followed_by_a_long_rest() -> None:
    async def go(rest: float) -> int:
        taken = 0

        async def step() -> None:
            nonlocal taken
            taken += 1
            await asyncio.sleep(0.05)

        background = Background()
        background.repeat(0.001, step, "cannot work", rest)
        await asyncio.sleep(0.5)
        await background.stop()
        return taken

    assert asyncio.run(go(100.0)) == 1
    assert asyncio.run(go(0.0)) > 2
