"""The router without HTTP: one object that owns the ledger, the models and the current routes."""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from models.registry import Registry
from models.runtime import load
from router.bandits import BanditPublisher
from router.control import Control
from router.decision_id import Signer
from router.key_watch import KeyWatch
from router.ledger.audit import AuditTables
from router.ledger.batch import BatchWriter
from router.ledger.control import ControlTables
from router.ledger.database import open_database, upgrade
from router.ledger.failover import Failover, LedgerState
from router.ledger.keys import KeyTables
from router.ledger.partitions import ensure_partitions
from router.ledger.reading import DecisionTables
from router.ledger.rollouts import RolloutTables
from router.ledger.rollup import roll_up
from router.ledger.writer import LedgerWriter
from router.metrics import Metrics, Reading
from router.repeating import Background
from router.rollout.controller import Rollouts
from router.serving.exposure import Exposures
from router.serving.loading import LoadModel, RouteLoader
from router.serving.outcomes import OutcomeRecorder
from router.serving.predict import Predictor
from router.serving.routes import Routes
from router.serving.running import ModelRunner
from router.serving.shadows import Shadows
from router.serving.unrouted import Unrouted
from router.settings import Settings
from router.shadowing.launch import Launch, loader_name

RETRY_S = 30.0
"""How long after a failed load a model is tried again."""

REFRESH_S = 0.5
"""How often a process looks for control writes of other processes; the staleness bound is this plus loading time."""

ALLOCATE_S = 0.1
"""How often a process looks whether the epoch of a bandit is due."""

ROLL_OUT_S = 1.0
"""How often a process looks whether a rollout's next step is due."""

ROLL_OUT_REST = 10.0
"""How many times as long as that took it waits at least: looking at a day of evidence must not slow answers down."""

GATHERING_S = {"sqlite": 0.0005, "postgresql": 0.001}
"""How long, under load, a batch waits for company: a commit of few rows costs nearly as much as one of many."""

WATCH_S = 0.25
"""How often a process looks whether a commit hangs."""

HOUSEKEEPING_S = 3600.0
"""How often a process looks whether the partitions of the coming months are there, and adds old statistics up."""

HOUSEKEEPING_RETRY_S = 60.0
"""How long after its start it does so first, and after a failure again."""

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
        self._kept_at = -math.inf
        self._background = Background()
        self.signer = Signer(settings.secrets())
        self.decisions = DecisionTables(engine)
        rollouts = RolloutTables(engine)
        self.control = Control(tables, rollouts, self.registry, clock)
        self._bandits = BanditPublisher(tables, clock)
        self.rollouts = Rollouts(rollouts, tables, self.control, clock)
        self.audit = AuditTables(engine)
        self.keys = KeyWatch(tables, KeyTables(engine), clock)
        self._store = Failover(engine, BatchWriter(clock), settings.spool, max_spool_bytes=settings.spool_max_bytes)
        self._queue_size = settings.queue_size
        self._writer = LedgerWriter(
            self._store,
            queue_size=settings.queue_size,
            timeout_s=settings.ledger_timeout_s,
            committed=self.metrics.committed,
            gathering_s=GATHERING_S[engine.dialect.name],
        )
        self._runner = ModelRunner(
            rejected=self.metrics.rejected_calls,
            opened=self.metrics.breaker_openings,
            gathered=self.metrics.gathered,
        )
        self._shadows = Shadows(
            Launch(settings.registry, loader_name(load_model), settings.shadow_memory_bytes),
            self._writer.record,
            has_time=self._has_time_for_shadows,
            queue_size=settings.shadow_queue_size,
            timeout_s=settings.shadow_timeout_ms / 1000,
            clock=clock,
            counts=self.metrics.shadows,
        )
        self.predictor = Predictor(
            self.routes,
            self.refresh,
            self._writer,
            self.signer,
            max_batch=settings.max_batch,
            runner=self._runner,
            clock=clock,
            offer=self._shadows.offer,
            decisions=self.metrics.decisions,
            fallbacks=self.metrics.fallbacks,
        )
        self.unrouted = Unrouted(self._runner, max_batch=settings.max_batch)
        self.exposures = Exposures(
            self.routes, self._writer, self.signer, clock=clock, decisions=self.metrics.decisions
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
        for repeated in (
            (REFRESH_S, self.refresh, "cannot look for changes; the last routes stay in use"),
            (ALLOCATE_S, self._allocate, "cannot look for new evidence; bandits keep their shares"),
            (WATCH_S, self._watch, "cannot look whether a commit hangs"),
            (HOUSEKEEPING_RETRY_S, self._keep_house, "cannot make partitions or add old statistics up; trying again"),
        ):
            self._background.repeat(*repeated)
        self._background.repeat(
            ROLL_OUT_S, self._roll_out, "cannot look at rollouts; they stay where they are", rest=ROLL_OUT_REST
        )

    async def stop(self) -> None:
        """Commit what is queued and release everything."""
        await self._background.stop()
        await self._shadows.stop()
        await asyncio.to_thread(self._writer.stop)
        await self.keys.stop()
        self._runner.close()
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
                self._shadows.follow(self._routes)
                if follows:
                    self.metrics.propagated((self._clock() - latest.changed_ms) / 1000)
            # Also when nothing changed: a request that began under older routes may have called what left them.
            self._runner.keep_only(self._routes.limits_in_use())

    def _reading(self) -> Reading:
        return Reading(
            ledger=self._store.state(),
            queued_rows=self._writer.depth(),
            control_age_s=time.monotonic() - self._looked_at,
            broken_models=len(self._routes.problems),
            models=list(self._runner.readings()),
        )

    def _has_time_for_shadows(self) -> bool:
        """Return whether the ledger is there and far from having to refuse decisions."""
        return self._store.state().problem is None and 2 * self._writer.depth() <= self._queue_size

    def _retry_is_due(self) -> bool:
        """Return whether a model that could not be loaded should be tried again."""
        return bool(self._routes.problems) and time.monotonic() - self._loaded_at > RETRY_S

    async def _allocate(self) -> None:
        due = self._bandits.due(self._routes.experiments.values())
        if not due:
            return
        if await asyncio.to_thread(self._bandits.publish, due):
            await self.refresh()

    async def _roll_out(self) -> None:
        if await asyncio.to_thread(self.rollouts.step):
            await self.refresh()

    async def _keep_house(self) -> None:
        if time.monotonic() - self._kept_at > HOUSEKEEPING_S:
            await asyncio.to_thread(ensure_partitions, self._engine, self._clock())
            await asyncio.to_thread(roll_up, self._engine, self._clock())
            await asyncio.to_thread(self.rollouts.judge.close_windows)
            self._kept_at = time.monotonic()

    async def _watch(self) -> None:
        self._writer.watch()
