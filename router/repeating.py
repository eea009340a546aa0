"""What a process does again and again in the background, whatever happens meanwhile."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from router.errors import LedgerUnavailable

LAST_STEP_S = 1.0
"""How long a step that is under way may take when everything stops."""

_logger = logging.getLogger(__name__)

Step = Callable[[], Awaitable[None]]


class Background:
    """Steps that are repeated from when they are added until `stop`."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def repeat(self, pause_s: float, step: Step, complaint: str, rest: float = 0.0) -> None:
        """Take the step after every pause, which is at least `rest` times as long as the last step took.

        `complaint` says in the log what it means that the step failed: once for an outage of the ledger, else every
        time.
        """
        self._tasks.append(asyncio.create_task(_repeat(pause_s, step, complaint, rest)))

    async def stop(self) -> None:
        """Take no further step, and wait for those that are under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []


async def _repeat(pause_s: float, step: Step, complaint: str, rest: float) -> None:
    away = False
    took_s = 0.0
    while True:
        await asyncio.sleep(max(pause_s, rest * took_s))
        began_s = time.monotonic()
        try:
            await _to_its_end(step)
            away = False
        except LedgerUnavailable as error:
            if not away:
                _logger.warning("%s: %s", complaint, error)
            away = True
        except Exception:
            _logger.exception("%s", complaint)
        took_s = time.monotonic() - began_s


async def _to_its_end(step: Step) -> None:
    """Take a step, and wait for its end when cancelled: a thread that was left alone would keep its connection."""
    taken = asyncio.ensure_future(step())
    try:
        await asyncio.shield(taken)
    except asyncio.CancelledError:
        # Heard whenever it ends: of an error that nobody asks for, the loop would print a traceback.
        taken.add_done_callback(_hear)
        await asyncio.wait({taken}, timeout=LAST_STEP_S)
        raise


def _hear(taken: asyncio.Future[None]) -> None:
    if not taken.cancelled() and (error := taken.exception()) is not None:
        _logger.info("the last step before the end failed: %s", error)
