"""A ledger on which rollouts go on with made-up traffic, and no server: time passes when the test says so."""

import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine

from models.registry import Registry
from models.signature import Feature, Signature
from router.control import Control
from router.decision_id import NO_EXPERIMENT, DecisionId
from router.documents import Endpoint, Rollout
from router.keys import LOCAL
from router.ledger.batch import BatchWriter, Decide, Observe, Record
from router.ledger.control import ControlTables
from router.ledger.control_writing import ExperimentRecord
from router.ledger.database import open_database, transaction, upgrade
from router.ledger.records import DecisionRow, Observation, ShadowRow
from router.ledger.rollouts import RolloutRecord, RolloutTables, TransitionRecord
from router.rollout.controller import Rollouts
from tests.router.ledgers import NOW_MS, SIGNER
from tests.router.small_models import add_model

CHAMPION, CANDIDATE = "sum@1", "sum-too@1"

CLICK = {"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}

SPLIT = {"kind": "split", "min_decisions": 50}
LAST = {"kind": "champion", "min_decisions": 50}

Chances = Mapping[str, float]
"""How often something happens, by arm."""

BETTER: Chances = {"control": 0.2, "candidate": 0.7}
ALIKE: Chances = {"control": 0.4, "candidate": 0.4}
WORSE: Chances = {"control": 0.7, "candidate": 0.2}
NEVER: Chances = {}


def rollout(name: str = "new", **changes: Any) -> dict[str, Any]:
    """Return a rollout of the candidate on the endpoint `delay`."""
    return {
        "name": name,
        "endpoint": "delay",
        "candidate": CANDIDATE,
        "metrics": [CLICK],
        "stages": [SPLIT, LAST],
        "guardrails": {"errors": 0.1},
        "planned_decisions": 500,
        **changes,
    }


class Rolling:
    """Rollouts on one ledger; several of these on the same one are replicas."""

    def __init__(self, engine: Engine, registry: Registry) -> None:
        self.engine = engine
        self.now_ms = NOW_MS
        self.tables = RolloutTables(engine)
        self.control_tables = ControlTables(engine)
        self.control = Control(self.control_tables, self.tables, registry, self.clock)
        self.rollouts = Rollouts(self.tables, self.control_tables, self.control, self.clock)
        self._registry = registry
        self._writer = BatchWriter(self.clock)
        self._rng = random.Random(1)

    def clock(self) -> int:
        """Return the time, which stands still unless a test lets it pass."""
        return self.now_ms

    def replica(self) -> "Rolling":
        """Return another router on the same ledger, at the same time."""
        other = Rolling(self.engine, self._registry)
        other.now_ms = self.now_ms
        return other

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ms += round(1000 * seconds)

    def add_endpoint(self, name: str = "delay", **fields: Any) -> None:
        """Create an endpoint with the champion."""
        self.control.create_endpoint(Endpoint(name=name, champion=CHAMPION, **fields), actor=LOCAL)

    def create(self, name: str = "new", **changes: Any) -> RolloutRecord:
        """Create a rollout."""
        document = msgspec.convert(rollout(name, **changes), Rollout)
        return self.rollouts.create(document, actor=LOCAL)

    def start(self, name: str = "new", **changes: Any) -> RolloutRecord:
        """Create a rollout and let it begin."""
        self.create(name, **changes)
        self.rollouts.step()
        return self.rollout(name)

    def rollout(self, name: str = "new") -> RolloutRecord:
        """Return a rollout as it is now."""
        return self.rollouts.rollout(name)

    def steps(self, name: str = "new") -> list[TransitionRecord]:
        """Return the steps that a rollout has taken."""
        return self.rollouts.transitions(self.rollout(name))

    def move(self, by: Any, name: str = "new") -> RolloutRecord:
        """Move a rollout by hand."""
        return self.rollouts.move(name, by, "*", actor="ann")

    def endpoint(self, name: str = "delay") -> Endpoint:
        """Return an endpoint's document."""
        return self.control.endpoint(name).document

    def change_endpoint(self, name: str = "delay", **fields: Any) -> None:
        """Change an endpoint by hand."""
        self.control.replace_endpoint(msgspec.structs.replace(self.endpoint(name), **fields), "*", actor="ann")

    def running(self, endpoint: str = "delay") -> list[ExperimentRecord]:
        """Return the experiments that take units."""
        found = self.control_tables.experiments()
        return [each for each in found if each.document.endpoint == endpoint and each.state == "running"]

    def share(self, endpoint: str = "delay") -> float:
        """Return the share of the units that get the candidate."""
        shares = [each.epoch.propensity(1) for each in self.running(endpoint) if each.epoch is not None]
        assert len(shares) <= 1
        return sum(shares, float(not shares and self.endpoint(endpoint).champion == CANDIDATE))

    def send(
        self,
        n: int,
        clicks: Chances = ALIKE,
        *,
        failed: Chances = NEVER,
        slow: Chances = NEVER,
        lost: Chances = NEVER,
        also: Mapping[str, Chances] | None = None,
        endpoint: str = "delay",
    ) -> None:
        """Make so many decisions, by the epoch that stands, with their outcomes; some of them are lost."""
        record = next(iter(self.running(endpoint)), None)
        jobs: list[Any] = []
        for _ in range(n):
            arm, row = self._decision(endpoint, record, failed, slow)
            if not self._happens(lost, arm):
                told = {"click": clicks, **(also or {})}
                outcomes = [_outcome(row, name, float(self._happens(each, arm))) for name, each in told.items()]
                jobs += [Decide(row, None), Observe(tuple(outcomes))]
        self._write(jobs)

    def shadow(
        self,
        n: int,
        truth: float = 0.8,
        said: float = 0.8,
        failed: float = 0.0,
        endpoint: str = "delay",
        **decided: Any,
    ) -> None:
        """Make so many decisions that a shadow saw: it says `said` of what happens with the probability `truth`.

        The champion says a half of everything, unless it was decided otherwise.
        """
        jobs: list[Any] = []
        for _ in range(n):
            _, row = self._decision(endpoint, None, NEVER, NEVER)
            row = row._replace(**decided)
            fails = self._rng.random() < failed
            predictions = None if fails else f"[{said}]"
            shown = ShadowRow(row.id, CANDIDATE, predictions, "out of order" if fails else None, 1.0, self.now_ms)
            label = _outcome(row, "late", float(self._rng.random() < truth))
            jobs += [Decide(row, None), Record((shown,)), Observe((label,))]
        self._write(jobs)

    def mix(self, n: int, credit: Chances = BETTER, failed: float = 0.0, endpoint: str = "ranked") -> None:
        """Make so many lists that mix both rankings, on whose items clicks come."""
        [record] = self.running(endpoint)
        jobs: list[Any] = []
        for _ in range(n):
            _, row = self._decision(endpoint, None, NEVER, NEVER)
            content = DecisionId(self.now_ms, record.id, 1, 254, 10_000, os.urandom(8))
            fallback = "out of order" if self._rng.random() < failed else None
            draw = '{"scores":[[2,1],[1,2]],"teams":[0,1],"credits":[[1,0],[0,1]]}'
            row = row._replace(
                id=SIGNER.sign(content),
                experiment_id=record.id,
                epoch=1,
                arm=254,
                fallback=fallback,
                predictions="[null,null]" if fallback is None else "[0.5,0.5]",
                shown="[0,1]",
                draw=draw if fallback is None else None,
            )
            clicked = [self._happens(credit, arm) for arm in ("control", "candidate")]
            clicks = [_outcome(row, "click", 1.0, item) for item, does in enumerate(clicked) if does]
            jobs += [Decide(row, None), Observe(tuple(clicks))]
        self._write(jobs)

    def _decision(
        self, endpoint: str, record: ExperimentRecord | None, failed: Chances, slow: Chances
    ) -> tuple[str, DecisionRow]:
        arm, propensity, number, experiment_id = 0, 1.0, 0, NO_EXPERIMENT
        if record is not None and record.epoch is not None:
            arm = self._rng.choice(record.epoch.table)
            propensity, number, experiment_id = record.epoch.propensity(arm), record.epoch.number, record.id
        name = ("control", "candidate")[arm]
        content = DecisionId(self.now_ms, experiment_id, number, arm, round(10_000 * propensity), os.urandom(8))
        row = DecisionRow(
            id=SIGNER.sign(content),
            decided_ms=self.now_ms,
            endpoint=endpoint,
            experiment_id=None if record is None else record.id,
            epoch=None if record is None else number,
            arm=None if record is None else arm,
            propensity=propensity,
            unit=f"u{self._rng.randrange(10**9)}",
            model=(CHAMPION, CANDIDATE)[arm],
            served_model=CHAMPION,
            fallback="out of order" if self._happens(failed, name) else None,
            context=None,
            inputs="[{}]",
            predictions="[0.5]",
            latency_ms=100.0 if self._happens(slow, name) else 1.0,
        )
        return name, row

    def _happens(self, chances: Chances, arm: str) -> bool:
        return self._rng.random() < chances.get(arm, 0.0)

    def _write(self, jobs: Sequence[Any]) -> None:
        with transaction(self.engine) as connection:
            self._writer.write(connection, jobs)


def _outcome(row: DecisionRow, metric: str, value: float, item: int = 0) -> Observation:
    return Observation(
        row.id, metric, item, "", 0, value, row.experiment_id, row.arm, row.decided_ms + 1000, dated=True
    )


def prepare(folder: Path) -> Path:
    """Put a registry and an empty ledger into a folder, to be copied: both take longer than most tests."""
    registry = Registry(folder / "registry")
    for name in ("sum", "sum-too", "sum-third"):
        add_model(registry, name)
    add_model(registry, "sum-other", Signature((Feature("hour", "number"),), "probability"))
    engine = open_database(f"sqlite:///{folder}/ledger.db")
    upgrade(engine)
    engine.dispose()
    return folder


@contextmanager
def rolling(prepared: Path, folder: Path) -> Iterator[Rolling]:
    """Yield rollouts on a new ledger in SQLite, which has the endpoint `delay`."""
    shutil.copytree(prepared, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("registry"))
    engine = open_database(f"sqlite:///{folder}/ledger.db")
    play = Rolling(engine, Registry(prepared / "registry"))
    play.add_endpoint()
    yield play
    engine.dispose()
