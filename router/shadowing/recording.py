"""What shadows found on its way to the ledger: in batches, and only while the ledger has time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from router.errors import Unavailable
from router.ledger.records import ShadowRow
from router.shadowing.counting import ShadowCounts
from router.shadowing.pool import Found

LONGEST_BATCH = 256

_GATHERED_S = 0.05

_logger = logging.getLogger(__name__)


class ShadowRecorder:
    """Stores results; `has_time` says whether the ledger can take more than the decisions. Used from one event loop."""

    def __init__(
        self,
        record: Callable[[Sequence[ShadowRow]], Awaitable[None]],
        *,
        has_time: Callable[[], bool],
        clock: Callable[[], int],
        counts: ShadowCounts,
    ) -> None:
        self._record = record
        self._has_time = has_time
        self._clock = clock
        self._counts = counts
        self._gathered: list[Found] = []
        self._timer: asyncio.TimerHandle | None = None
        self._storing: set[asyncio.Task[None]] = set()

    def add(self, found: Found) -> None:
        """Store a result soon, with others."""
        self._gathered.append(found)
        if len(self._gathered) >= LONGEST_BATCH:
            self._hand_over()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHERED_S, self._hand_over)

    async def stop(self) -> None:
        """Store what was added."""
        self._hand_over()
        if self._storing:
            await asyncio.wait(self._storing)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            batch, self._gathered = self._gathered, []
            task = asyncio.get_running_loop().create_task(self._store(batch))
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)

    async def _store(self, batch: Sequence[Found]) -> None:
        if not (self._has_time() and await self._is_stored(batch)):
            for found in batch:
                self._counts.dropped(found.model, "ledger")
            return
        for found in batch:
            if found.problem is None:
                self._counts.answered(found.model, found.latency_ms / 1000)
            else:
                self._counts.failed(found.model, found.problem)

    async def _is_stored(self, batch: Sequence[Found]) -> bool:
        now_ms = self._clock()
        rows = [
            ShadowRow(found.decision_id, found.model, found.predictions, found.error, found.latency_ms, now_ms)
            for found in batch
        ]
        try:
            await self._record(rows)
        except Unavailable:
            return False
        except Exception:
            _logger.exception("cannot store what %d calls of shadows found", len(rows))
            return False
        return True
