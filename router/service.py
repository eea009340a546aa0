"""The router without HTTP: one object that owns the ledger, the models and the current routes."""

import asyncio
import logging
import time
from collections.abc import Callable

from models.registry import Registry
from models.runtime import load
from router.control import Control
from router.decision_id import Signer
from router.errors import LedgerUnavailable
from router.key_watch import KeyWatch
from router.ledger.audit import AuditTables
from router.ledger.batch import BatchWriter
from router.ledger.control import ControlTables
from router.ledger.database import open_database, upgrade
from router.ledger.failover import Failover, LedgerState
from router.ledger.keys import KeyTables
from router.ledger.partitions import ensure_partitions
from router.ledger.reading import DecisionTables
from router.ledger.writer import LedgerWriter
from router.metrics import Metrics, Reading
from router.serving.loading import LoadModel, RouteLoader
from router.serving.outcomes import OutcomeRecorder
from router.serving.predict import Predictor
from router.serving.routes import Routes
from router.settings import Settings

RETRY_S = 30.0
"""How long after a failed load a model is tried again."""

REFRESH_S = 0.5
"""How often a process looks for control writes of other processes; the staleness bound is this plus loading time."""

WATCH_S = 0.25
"""How often a process looks whether a commit hangs."""

PARTITIONS_S = 3600.0
"""How often a process looks whether the partitions of the coming months are there."""

_NO_ROUTES = Routes(-1, {}, {}, {}, {})

_logger = logging.getLogger(__name__)


def system_clock() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Service:
    """Everything between `start` and `stop` of one router process."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], int] = system_clock,
        load_model: LoadModel = load,
    ) -> None:
        engine = open_database(settings.database)
        upgrade(engine)
        ensure_partitions(engine, clock())
        self._engine = engine
        self._clock = clock
        self.registry = Registry(settings.registry)
        tables = ControlTables(engine)
        self._tables = tables
        self._loader = RouteLoader(tables, self.registry, load_model)
        self._routes = _NO_ROUTES
        self._loaded_at = 0.0
        self._looked_at = time.monotonic()
        self.metrics = Metrics(self._reading)
        self._refreshing = asyncio.Lock()
        self._partitioned_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self.signer = Signer(settings.secrets())
        self.decisions = DecisionTables(engine)
        self.control = Control(tables, self.registry, clock)
        self.audit = AuditTables(engine)
        self.keys = KeyWatch(tables, KeyTables(engine), clock)
        self._store = Failover(engine, BatchWriter(clock), settings.spool, max_spool_bytes=settings.spool_max_bytes)
        self._writer = LedgerWriter(
            self._store,
            queue_size=settings.queue_size,
            timeout_s=settings.ledger_timeout_s,
            committed=self.metrics.committed,
        )
        self.predictor = Predictor(
            self.routes,
            self.refresh,
            self._writer,
            self.signer,
            max_batch=settings.max_batch,
            clock=clock,
            decisions=self.metrics.decisions,
            fallbacks=self.metrics.fallbacks,
        )
        self.outcomes = OutcomeRecorder(
            self.routes,
            self.refresh,
            self._writer,
            self.signer,
            max_batch=settings.max_batch,
            clock=clock,
            counts=self.metrics.outcomes,
        )

    def routes(self) -> Routes:
        """Return the current snapshot."""
        return self._routes

    def ledger_state(self) -> LedgerState:
        """Return whether the ledger is there, and how much waits in the spool."""
        return self._store.state()

    async def start(self) -> None:
        """Load the models, begin to commit and begin to follow other processes' writes."""
        self._writer.start()
        await self.keys.start()
        await self.refresh()
        self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._watch())]

    async def stop(self) -> None:
        """Commit what is queued and release everything."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(self._writer.stop)
        await self.keys.stop()
        self.predictor.close()
        self._engine.dispose()

    async def refresh(self) -> None:
        """Read the control tables if they changed, load new models, then swap the routes; requests never wait."""
        async with self._refreshing:
            latest = await asyncio.to_thread(self._tables.latest)
            self._looked_at = time.monotonic()
            if latest.version != self._routes.version or self._retry_is_due():
                follows = self._routes.version not in (_NO_ROUTES.version, latest.version)
                self._routes = await asyncio.to_thread(self._loader.load, self._routes)
                self._loaded_at = time.monotonic()
                if follows:
                    self.metrics.propagated((self._clock() - latest.changed_ms) / 1000)

    def _reading(self) -> Reading:
        return Reading(
            ledger=self._store.state(),
            queued_rows=self._writer.depth(),
            control_age_s=time.monotonic() - self._looked_at,
            broken_models=len(self._routes.problems),
        )

    def _retry_is_due(self) -> bool:
        """Return whether a model that could not be loaded should be tried again."""
        return bool(self._routes.problems) and time.monotonic() - self._loaded_at > RETRY_S

    async def _poll(self) -> None:
        away = False
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
                await self._make_partitions()
                away = False
            except LedgerUnavailable as error:
                if not away:
                    _logger.warning("cannot look for changes; the last routes stay in use: %s", error)
                away = True
            except Exception:
                _logger.exception("cannot refresh the routes; the last ones stay in use")

    async def _make_partitions(self) -> None:
        if time.monotonic() - self._partitioned_at > PARTITIONS_S:
            await asyncio.to_thread(ensure_partitions, self._engine, self._clock())
            self._partitioned_at = time.monotonic()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            self._writer.watch()
