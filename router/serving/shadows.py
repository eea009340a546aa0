"""Which shadows see a decision, and the way there: after the reply, and never in its way."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from router.ledger.records import DecisionRow, ShadowRow
from router.serving.assign import Assignment
from router.serving.routes import EndpointRoute, Routes
from router.shadowing.counting import ShadowCounts
from router.shadowing.launch import Launch
from router.shadowing.pool import ShadowPool
from router.shadowing.queue import Waiting
from router.shadowing.recording import ShadowRecorder

_logger = logging.getLogger(__name__)


def shadows_of(route: EndpointRoute, assignment: Assignment | None, served_model: str) -> list[str]:
    """Return the model versions that shall see a decision, each once: not those that made it.

    They are the endpoint's, and those of the experiment that took the request, be it into its holdout.
    """
    mine = () if assignment is None else assignment.experiment.shadows
    if not route.shadows and not mine:
        return []
    served = served_model.split("+")
    references = dict.fromkeys(shadow.reference for shadow in (*route.shadows, *mine))
    return [reference for reference in references if reference not in served]


class Shadows:
    """The shadows of one router process; used from one event loop.

    `record` stores rows in the ledger, and `has_time` says whether it can take more than the decisions.
    """

    def __init__(
        self,
        launch: Launch,
        record: Callable[[Sequence[ShadowRow]], Awaitable[None]],
        *,
        has_time: Callable[[], bool],
        queue_size: int,
        timeout_s: float,
        clock: Callable[[], int],
        counts: ShadowCounts,
    ) -> None:
        self._counts = counts
        self._recorder = ShadowRecorder(record, has_time=has_time, clock=clock, counts=counts)
        self._pool = ShadowPool(
            launch,
            queue_size=queue_size,
            timeout_s=timeout_s,
            found=self._recorder.add,
            dropped=counts.dropped,
            restarted=counts.restarted,
        )

    @property
    def worker_pid(self) -> int | None:
        """The process in which shadows run, while there is one."""
        return self._pool.worker_pid

    def offer(self, row: DecisionRow, models: Iterable[str]) -> None:
        """Show a durable decision to shadows, some time later; returns at once and never raises."""
        for model in models:
            self._counts.offered[model] += 1
            try:
                reason = self._pool.put(Waiting(row.id, model, row.inputs))
            except Exception:
                _logger.exception("cannot show a decision to shadow %s", model)
                reason = "error"
            if reason is not None:
                self._counts.dropped(model, reason)

    def follow(self, routes: Routes) -> None:
        """Serve the shadows of these routes from now on; there is a worker process only while there are any."""
        self._pool.want(set(_references(routes)))

    async def stop(self) -> None:
        """Drop what waits, store what was found and end the worker."""
        await self._pool.stop()
        await self._recorder.stop()


def _references(routes: Routes) -> Iterator[str]:
    for route in routes.endpoints.values():
        for shadows in (route.shadows, *(experiment.shadows for experiment in route.experiments)):
            yield from (shadow.reference for shadow in shadows)
