"""Rollouts that never were: how often a candidate is promoted that is not better, and missed that is.

The router's own controller moves every candidate on a ledger of its own, from a canary of 5 % over one of 20 % to a
split, looked at after every 250 decisions; units convert or do not. Beside it the fixed test that a person plans: half
of the traffic each, one look at the planned number of decisions, at the same error; and the same test looked at as
often as the controller looks. Run it with `python -m bench.rollouts`.
"""

import argparse
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sqlalchemy import Engine

from analysis.statistics.unit_groups import GROUPS, Sums, sums_of
from bench.harness import write_json
from models.publishing import publish
from models.registry import Registry
from router.control import Control
from router.documents import Endpoint, Rollout
from router.ledger.contributions import ITEMS
from router.ledger.control import ControlTables
from router.ledger.control_writing import ExperimentRecord
from router.ledger.database import open_database, transaction, upgrade
from router.ledger.evidence import ANY_MINUTE, Key, add_evidence
from router.ledger.rollouts import RolloutTables
from router.rollout.controller import Rollouts

PER_LOOK = 250
PLANNED = 10_000
MOST = 20_000
"""After so many decisions a candidate that was not promoted goes back."""

ERROR = 0.05
BASE = 0.1

Floats = NDArray[np.float64]


class World(NamedTuple):
    """What the candidate adds to the share of units that convert, and how often a unit comes back."""

    name: str
    effect: float
    visits: int = 1


WORLDS = (
    World("no better (A/A)", 0.0),
    World("no better, units return 10 times", 0.0, 10),
    World("better by 1 point", 0.01),
    World("better by 2 points", 0.02),
    World("better by 3 points", 0.03),
    World("worse by 2 points", -0.02),
)


class Ending(NamedTuple):
    """How a rollout ended, after how many decisions, of which the candidate made some."""

    state: str
    judged: bool
    """By evidence, and not since its time was over."""
    decisions: int
    exposed: int


class Row(NamedTuple):
    """Shares of the runs, and medians of the decisions until promotion; infinite where less than half were promoted."""

    world: str
    runs: int
    promoted: float
    rolled_back: float
    decisions: float
    exposed: float
    fixed_promoted: float
    peeking_promoted: float


class Workshop:
    """A registry and an empty ledger, to be copied for every run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.registry = Registry(folder / "registry")
        sample = np.linspace(-1, 1, 20).reshape(-1, 1)
        for shift in (0, 1):
            fitted = LogisticRegression().fit(sample, sample[:, 0] > shift / 10)
            publish(fitted, sample, name=f"model-{shift}", registry=self.registry, feature_names=["x"])
        engine = open_database(f"sqlite:///{folder}/empty.db")
        upgrade(engine)
        engine.dispose()

    def ledger(self) -> Engine:
        """Return a new empty ledger."""
        place = self._folder / "ledger.db"
        for old in self._folder.glob("ledger.db*"):
            old.unlink()
        shutil.copy(self._folder / "empty.db", place)
        return open_database(f"sqlite:///{place}")


def run(workshop: Workshop, world: World, generator: np.random.Generator) -> Ending:
    """Roll a candidate out and return how that ended."""
    engine = workshop.ledger()
    now_ms = [0]
    tables, control_tables = RolloutTables(engine), ControlTables(engine)
    control = Control(control_tables, tables, workshop.registry, lambda: now_ms[0])
    rollouts = Rollouts(tables, control_tables, control, lambda: now_ms[0])
    control.create_endpoint(Endpoint(name="shop", champion="model-0@1"), actor="bench")
    rollouts.create(msgspec.convert(document(), Rollout), actor="bench")
    rollouts.step()
    units = Units(world, generator)
    decisions = exposed = 0
    while (record := tables.rollout("shop")).state == "running" and record.stage < len(record.document.stages) - 1:
        [experiment] = [each for each in control_tables.experiments() if each.state == "running"]
        changes = units.visit(experiment)
        with transaction(engine) as connection:
            add_evidence(connection, changes, 1)
        decisions += PER_LOOK
        exposed += round(changes[Key(experiment.id, 1, ITEMS, ANY_MINUTE)].count)
        now_ms[0] += 1000 * PER_LOOK
        rollouts.step()
    judged = not tables.transitions(record.id)[-1].reason.startswith("no verdict")
    engine.dispose()
    return Ending("promoted" if record.state == "running" else record.state, judged, decisions, exposed)


def document() -> dict[str, Any]:
    """Return the rollout, whose last look comes when `MOST` decisions have been made, one a second."""
    stages: list[dict[str, Any]] = [
        {"kind": "canary", "share": 0.05, "min_decisions": 100},
        {"kind": "canary", "share": 0.2, "min_decisions": 200},
        {"kind": "split", "max_s": MOST - 3250, "otherwise": "rollback"},
        {"kind": "champion"},
    ]
    metric = {"name": "buys", "kind": "binary", "direction": "increase", "role": "primary"}
    return {
        "name": "shop",
        "endpoint": "shop",
        "candidate": "model-1@1",
        "metrics": [metric],
        "stages": stages,
        "error": ERROR,
        "planned_decisions": PLANNED,
    }


class Units:
    """Units that come, get their arm by the experiment's present shares, and convert or do not."""

    def __init__(self, world: World, generator: np.random.Generator) -> None:
        self._world = world
        self._generator = generator
        self._known = math.ceil(MOST / world.visits)
        self._places = generator.random(self._known)
        self._groups = generator.integers(0, GROUPS, self._known)
        # Units that return are alike: half of what they do is themselves.
        taste = generator.normal(0.0, 0.08, self._known) if world.visits > 1 else np.zeros(self._known)
        self._rates = np.clip(BASE + taste, 0.0, 1.0)
        self._next = 0

    def visit(self, experiment: ExperimentRecord) -> dict[Key, Sums]:
        """Return what one look's decisions add to the evidence."""
        if experiment.epoch is None:
            raise AssertionError(f"{experiment.document.name} has no epoch")
        share = experiment.epoch.propensity(1)
        if self._world.visits == 1:
            who = np.arange(self._next, self._next + PER_LOOK) % self._known
            self._next += PER_LOOK
        else:
            who = self._generator.integers(0, self._known, PER_LOOK)
        treated = self._places[who] < share
        chances = np.clip(self._rates[who] + self._world.effect * treated, 0.0, 1.0)
        values = (self._generator.random(PER_LOOK) < chances).astype(np.float64)
        changes = {}
        for arm, mine in enumerate((~treated, treated)):
            weight = np.full(int(mine.sum()), share if arm == 0 else 1 - share)
            ones, groups = np.ones(int(mine.sum())), self._groups[who[mine]].tolist()
            for name, value in ((ITEMS, ones), ("buys", values[mine])):
                columns = (weight, ones, value, value * value)
                changes[Key(experiment.id, arm, name, ANY_MINUTE)] = sums_of(groups, *(c.tolist() for c in columns))
        return changes


def fixed(world: World, runs: int, generator: np.random.Generator) -> tuple[float, float]:
    """Return how often a split of half and half promotes: at one planned look, and at the first look that seems to."""
    looks = PLANNED // PER_LOOK
    per_arm = PER_LOOK // 2
    promoted = []
    for _ in range(runs):
        if world.visits == 1:
            rates = np.array([BASE, BASE + world.effect])[:, np.newaxis, np.newaxis]
            values = generator.random((2, looks, per_arm)) < rates
        else:
            units = math.ceil(PLANNED / world.visits / 2)
            tastes = np.clip(BASE + generator.normal(0.0, 0.08, (2, units)), 0.0, 1.0)
            who = generator.integers(0, units, (2, looks, per_arm))
            own = np.take_along_axis(tastes, who.reshape(2, -1), axis=1).reshape(who.shape)
            values = generator.random(who.shape) < own
        so_far = values.sum(axis=2).cumsum(axis=1)
        count = per_arm * np.arange(1, looks + 1)
        means = so_far / count
        error = np.sqrt((means * (1 - means) / count).sum(axis=0))
        beyond = (means[1] - means[0]) > stats.norm.isf(ERROR / 2) * np.maximum(error, 1e-12)
        promoted.append((beyond[-1], beyond[3:].any()))
    at_end, ever = np.mean(promoted, axis=0)
    return float(at_end), float(ever)


def summarise(world: World, endings: Sequence[Ending], beside: tuple[float, float]) -> Row:
    """Return a world's row."""
    promoted = [each for each in endings if each.state == "promoted"]
    half = 2 * len(promoted) > len(endings)

    def median(of: Callable[[Ending], int]) -> float:
        values = sorted(of(each) if each.state == "promoted" else math.inf for each in endings)
        return float(np.median(values)) if half else math.inf

    return Row(
        world.name,
        len(endings),
        len(promoted) / len(endings),
        sum(each.state == "rolled_back" and each.judged for each in endings) / len(endings),
        median(lambda each: each.decisions),
        median(lambda each: each.exposed),
        *beside,
    )


def main() -> None:
    """Print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500, help="In worlds without an effect.")
    parser.add_argument("--others", type=int, default=200, help="In all others.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="Where ledgers are kept meanwhile; a memory disk is quicker.")
    arguments = parser.parse_args()
    generator = np.random.default_rng(1)
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        workshop = Workshop(Path(folder))
        for world in WORLDS:
            count = arguments.others if world.effect else arguments.runs
            progress = track(range(count), description=world.name, console=Console(stderr=True))
            endings = [run(workshop, world, generator) for _ in progress]
            rows.append(summarise(world, endings, fixed(world, 20 * count, generator)))
            if arguments.json:
                write_json(arguments.json, [row._asdict() for row in rows])
    _print(rows)


def _print(rows: Sequence[Row]) -> None:
    table = Table(box=box.SIMPLE_HEAD, title=f"at most {ERROR:.0%} false promotions; {PLANNED:,} decisions planned")
    for heading in ("candidate", "promoted", "rolled back", "decisions", "of the candidate", "fixed", "peeking"):
        table.add_column(heading, justify="left" if heading == "candidate" else "right")
    for row in rows:
        shares = (f"{each:.1%}" for each in (row.promoted, row.rolled_back))
        counts = (f"{each:,.0f}" if math.isfinite(each) else "-" for each in (row.decisions, row.exposed))
        table.add_row(row.world, *shares, *counts, f"{row.fixed_promoted:.1%}", f"{row.peeking_promoted:.1%}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
