"""Ledgers with generated experiments, written as the router's database and as the lake's Delta tables."""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine, create_engine, insert

from router.assignment.epochs import HOLDOUT
from router.decision_id import FORCED
from router.ledger import schema
from router.ledger.database import open_database, upgrade
from tests.metrics import BRIER

START_MS = 1_775_001_600_000  # 2026-04-01
MINUTE_MS = 60_000
DAY_MS = 86_400_000

CLICK = {"name": "click", "kind": "binary", "default": 0, "window_s": 3600, "direction": "increase", "role": "primary"}
REVENUE = {"name": "revenue", "kind": "numeric", "direction": "increase", "role": "primary"}
RATIO = {
    "name": "value-per-visit",
    "kind": "ratio",
    "numerator": "value",
    "denominator": "visit",
    "direction": "increase",
}


class Ledger:
    """Rows of the six tables that analysis reads."""

    def __init__(self) -> None:
        self.experiments: list[dict[str, Any]] = []
        self.arms: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.outcomes: list[dict[str, Any]] = []
        self.shadow_predictions: list[dict[str, Any]] = []

    def add_experiment(
        self,
        metrics: Sequence[Mapping[str, Any]],
        *,
        name: str = "boosting-vs-logistic",
        arms: Sequence[str] = ("control", "boosting"),
        epochs: Sequence[Sequence[float]] = ((0.5, 0.5),),
        randomise: str = "unit",
        state: str = "concluded",
        holdouts: Sequence[float] = (),
        allocation: Mapping[str, Any] | None = None,
        planned: int = 10_000,
    ) -> int:
        number = len(self.experiments) + 1
        models = [f"flight-delay-{arm}@1" for arm in arms]
        document = {
            "name": name,
            "endpoint": "flight-delay",
            "arms": [{"name": arm, "model": model} for arm, model in zip(arms, models, strict=True)],
            "allocation": allocation or {"kind": "split", "weights": dict(zip(arms, epochs[0], strict=True))},
            "metrics": list(metrics),
            "randomise": randomise,
            "traffic": 1.0,
            "planned_decisions": planned,
        }
        self.experiments.append(
            {
                "id": number,
                "name": name,
                "endpoint": "flight-delay",
                "state": state,
                "revision": 1,
                "document": json.dumps(document),
                "created_ms": START_MS,
                "started_ms": START_MS,
                "ended_ms": None,
            }
        )
        for index, (arm, model) in enumerate(zip(arms, models, strict=True)):
            self.arms.append({"experiment_id": number, "arm": index, "name": arm, "model": model})
        for index, shares in enumerate(epochs, start=1):
            held = holdouts[index - 1] if holdouts else 0.0
            runs = [[round(10_000 * (1 - held) * share), arm] for arm, share in enumerate(shares) if share]
            runs += [[round(10_000 * held), HOLDOUT]] if held else []
            self.epochs.append(
                {
                    "experiment_id": number,
                    "epoch": index,
                    "runs": json.dumps(runs),
                    "traffic": 10_000,
                    "reason": "start",
                    "published_ms": START_MS,
                    "basis": None,
                }
            )
        return number

    def decide(
        self,
        experiment: int | None,
        arm: int | None,
        unit: str,
        at_ms: int,
        *,
        predictions: Sequence[float] = (0.5,),
        epoch: int | None = 1,
        fallback: str | None = None,
        shown: Sequence[int] | None = None,
        draw: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> bytes:
        key = at_ms.to_bytes(6) + len(self.decisions).to_bytes(27)
        model = "champion@1" if arm is None else f"arm{arm}@1"
        self.decisions.append(
            {
                "id": key,
                "decided_ms": at_ms,
                "endpoint": "flight-delay",
                "experiment_id": experiment,
                "epoch": epoch,
                "arm": arm,
                "propensity": self._propensity(experiment, epoch, arm),
                "unit": unit,
                "model": model,
                "served_model": "champion@1" if fallback else model,
                "fallback": fallback,
                "context": None if context is None else msgspec.json.encode(context).decode(),
                "inputs": json.dumps([{"distance": 1.0}] * len(predictions)),
                "predictions": json.dumps(list(predictions)),
                "shown": None if shown is None else json.dumps(list(shown)),
                "draw": None if draw is None else json.dumps(dict(draw)),
            }
        )
        return key

    def _propensity(self, experiment: int | None, epoch: int | None, arm: int | None) -> float:
        """What the epoch's table says; 1 outside experiments, of forced arms, and where the table has no arms."""
        runs = [
            json.loads(row["runs"])
            for row in self.epochs
            if (row["experiment_id"], row["epoch"]) == (experiment, epoch)
        ]
        return sum(buckets for buckets, number in runs[0] if number == arm) / 10_000 or 1.0 if runs else 1.0

    def observe(
        self,
        decision_id: bytes,
        metric: str,
        value: float | None,
        *,
        item: int = 0,
        outcome_id: str = "",
        version: int = 0,
        label: bool = False,
        delay_ms: int = 1000,
        received_after_ms: int = 0,
        counted: bool = True,
    ) -> None:
        """Add an outcome; those of a forced decision are outside experiments, as the router stores them."""
        decision = next(row for row in reversed(self.decisions) if row["id"] == decision_id)
        at_ms = decision["decided_ms"] + delay_ms
        is_drawn = decision["epoch"] != FORCED
        self.outcomes.append(
            {
                "decision_id": decision_id,
                "metric": metric,
                "item": item,
                "outcome_id": outcome_id,
                "version": version,
                "value": None if value is None else float(value),
                "prediction": json.loads(decision["predictions"])[item] if label else None,
                "experiment_id": decision["experiment_id"] if is_drawn else None,
                "arm": decision["arm"] if is_drawn else None,
                "counted": counted,
                "occurred_ms": at_ms,
                "received_ms": at_ms + received_after_ms,
            }
        )

    def standing(self, now_ms: int) -> list[dict[str, Any]]:
        """The newest version of every outcome that was known at `now_ms`, counted and not retracted."""
        known = [row for row in self.outcomes if row["received_ms"] <= now_ms and row["counted"]]
        newest: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in sorted(known, key=lambda row: int(row["version"])):
            newest[row["decision_id"], row["metric"], row["item"], row["outcome_id"]] = row
        return [row for row in newest.values() if row["value"] is not None]

    def write_sqlite(self, path: Path) -> str:
        """Write the router's file and return its URL."""
        engine = create_engine(f"sqlite:///{path}")
        schema.metadata.create_all(engine)
        self._insert(engine)
        return f"sqlite:///{path}"

    def write(self, url: str) -> str:
        """Write to an empty database, with the tables that the router's migrations make there, and return its URL."""
        engine = open_database(url)
        upgrade(engine)
        self._insert(engine)
        return url

    def _insert(self, engine: Engine) -> None:
        with engine.begin() as connection:
            for name in ("experiments", "arms", "epochs", "decisions", "outcomes", "shadow_predictions"):
                if rows := getattr(self, name):
                    connection.execute(insert(schema.metadata.tables[name]), rows)
        engine.dispose()

    def write_lake(self, lake: Path) -> Path:
        """Write the Delta tables as the export does and return the lake's folder."""
        days = {row["id"]: _day(row["decided_ms"]) for row in self.decisions}
        write_table(lake, "experiments", self.experiments)
        write_table(lake, "arms", self.arms)
        write_table(lake, "epochs", self.epochs)
        write_table(lake, "decisions", [{**row, "day": days[row["id"]]} for row in self.decisions], by_day=True)
        write_table(lake, "outcomes", [{**row, "day": days[row["decision_id"]]} for row in self.outcomes], by_day=True)
        shadows = [{**row, "day": days[row["decision_id"]]} for row in self.shadow_predictions]
        write_table(lake, "shadow_predictions", shadows, by_day=True)
        return lake


_ARROW = {
    "BIGINT": pa.int64(),
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "TEXT": pa.string(),
    "BLOB": pa.binary(),
    "BOOLEAN": pa.bool_(),
}


def write_table(lake: Path, name: str, rows: Sequence[Mapping[str, Any]], *, by_day: bool = False) -> None:
    fields = [pa.field(column.name, _ARROW[str(column.type)]) for column in schema.metadata.tables[name].columns]
    if by_day:
        fields.append(pa.field("day", pa.string()))
    table = pa.Table.from_pylist(list(rows), schema=pa.schema(fields))
    deltalake.write_deltalake(lake / "logs" / name, table, partition_by=["day"] if by_day else None)


def forget_versions(lake: Path) -> None:
    """Write outcomes as if their first day had been exported before they had versions."""
    path = lake / "logs" / "outcomes"
    rows = deltalake.DeltaTable(path).to_pyarrow_table()
    shutil.rmtree(path)
    first = pc.equal(rows["day"], pc.min(rows["day"]))
    for of_day in (rows.filter(first).drop_columns(["version", "counted"]), rows.filter(pc.invert(first))):
        deltalake.write_deltalake(path, of_day, mode="append", schema_mode="merge", partition_by=["day"])


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%d")


def flights(count: int = 400, *, seed: int = 1, gain: float = 0.9) -> Ledger:
    """Labelled flights over two days, half of them to each arm; with `gain`, boosting predicts better."""
    generator = np.random.default_rng(seed)
    log_loss = {**BRIER, "name": "log_loss", "score": "log_loss", "role": "secondary"}
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER, log_loss], planned=max(count, 100))
    truth = generator.beta(1.5, 3.0, count)
    noise = generator.normal(0.0, 0.15, count)
    late = generator.uniform(size=count) < truth
    for index in range(count):
        arm = index % 2
        error = noise[index] * (1 - gain * arm) + 0.15 * (1 - gain * arm)
        prediction = float(np.clip(truth[index] + error, 0.01, 0.99))
        at_ms = START_MS + index * 2 * DAY_MS // count
        key = ledger.decide(experiment, arm, f"flight-{index}", at_ms, predictions=[prediction])
        ledger.observe(key, "late", float(late[index]), label=True, delay_ms=3 * MINUTE_MS)
    return ledger


def everything(seed: int = 5, only: Collection[str] = ()) -> Ledger:
    """One ledger with every case at once: two experiments with traffic, one without, and champion traffic.

    Of the largest experiment's eleven metrics all, or `only` those: each takes its time.
    """
    generator = np.random.default_rng(seed)
    ledger = Ledger()
    scores = [
        {**BRIER, "name": name, "score": name, "role": "primary" if name == "brier" else "secondary"}
        for name in ("brier", "log_loss", "absolute_error", "correct")
    ]
    bought = {**REVENUE, "name": "basket", "role": "secondary", "default": 1.5, "window_s": 7200, "late": "count"}
    click = {**CLICK, "role": "guardrail", "margin": 0.05}
    paid = {**CLICK, "name": "paid", "role": "secondary"}
    del paid["default"]
    revenue = {**REVENUE, "role": "secondary"}
    prompt = {**scores[0], "name": "prompt", "role": "secondary", "window_s": 86_400, "late": "ignore"}
    metrics: list[dict[str, Any]] = [
        *scores,
        prompt,
        click,
        paid,
        revenue,
        bought,
        RATIO,
        {**RATIO, "name": "prompt-ratio", "late": "ignore"},
    ]
    experiment = ledger.add_experiment(
        [metric for metric in metrics if not only or metric["name"] in only],
        arms=("control", "boosting", "forest", "idle"),
        epochs=((0.5, 0.3, 0.2, 0.0), (0.3, 0.3, 0.4, 0.0)),
        state="running",
        holdouts=(0.1, 0.2),
    )
    other = ledger.add_experiment([BRIER], name="other")
    ledger.add_experiment([BRIER, CLICK | {"role": "secondary"}, RATIO], name="empty", state="draft")
    for number in range(300):
        epoch = 1 if number < 150 else 2
        arm = int(generator.choice(3, p=(0.5, 0.3, 0.2) if epoch == 1 else (0.3, 0.3, 0.4)))
        for visit in range(int(generator.integers(1, 5))):
            _visit(
                ledger, generator, experiment, arm, f"unit-{number}", START_MS + (number * 7 + visit) * MINUTE_MS, epoch
            )
    for number in range(80):
        key = ledger.decide(other, number % 2, f"unit-{number}", START_MS + number, predictions=[0.25])
        ledger.observe(key, "late", number % 3 == 0, label=True)
        outside = ledger.decide(None, None, f"guest-{number}", START_MS + number, epoch=None)
        ledger.observe(outside, "late", 1.0, label=True)
        held = ledger.decide(experiment, HOLDOUT, f"held-{number}", START_MS + number, epoch=1 + number % 2)
        ledger.observe(held, "late", 1.0, label=True)
        forced = ledger.decide(experiment, number % 2, f"tester-{number}", START_MS + number, epoch=FORCED)
        ledger.observe(forced, "late", 1.0)
    moved = 1 - min(ledger.decisions[0]["arm"], 1)
    _visit(ledger, generator, experiment, moved, "unit-0", START_MS + DAY_MS, 2)
    return ledger


def _visit(
    ledger: Ledger, generator: np.random.Generator, experiment: int, arm: int, unit: str, at_ms: int, epoch: int
) -> None:
    predictions = [float(p) for p in generator.uniform(0.0, 1.0, int(generator.choice([1, 1, 1, 3])))]
    fallback = "timeout" if generator.uniform() < 0.05 else None
    key = ledger.decide(experiment, arm, unit, at_ms, predictions=predictions, epoch=epoch, fallback=fallback)
    for item, prediction in enumerate(predictions):
        if generator.uniform() < 0.8:
            late = generator.uniform() < prediction
            ledger.observe(key, "late", late, item=item, label=True, delay_ms=int(generator.integers(1, 3 * DAY_MS)))
        if generator.uniform() < 0.3:
            ledger.observe(key, "click", 1.0, item=item, delay_ms=int(generator.integers(1, 7_200_000)))
        if generator.uniform() < 0.5:
            ledger.observe(key, "paid", generator.uniform() < 0.4, item=item)
        for purchase in range(int(generator.integers(0, 3))):
            value, delay_ms = float(generator.exponential(10.0)), int(generator.integers(1, 10_000_000))
            ledger.observe(key, "revenue", value, item=item, outcome_id=f"r{purchase}")
            ledger.observe(key, "basket", value / 7, item=item, outcome_id=f"b{purchase}", delay_ms=delay_ms)
        ledger.observe(key, "visit", 1.0, item=item)
        ledger.observe(
            key, "value", float(generator.exponential(3.0)), item=item, delay_ms=int(generator.integers(1, 2 * DAY_MS))
        )
    _correct(ledger, generator, key)


def _correct(ledger: Ledger, generator: np.random.Generator, key: bytes) -> None:
    """Correct or retract some of a decision's outcomes, some twice and not in order, and let some wait for ever."""
    for said in [row for row in ledger.outcomes[-20:] if row["decision_id"] == key]:
        for version in generator.permutation([1, 3]) if generator.uniform() < 0.15 else ():
            value = None if generator.uniform() < 0.3 else float(generator.uniform() < 0.5)
            ledger.outcomes.append(
                {**said, "version": int(version), "value": value}
                | {"received_ms": said["received_ms"] + int(generator.integers(0, DAY_MS))}
            )
        if generator.uniform() < 0.02:
            ledger.outcomes.append({**said, "outcome_id": "early", "value": 1.0, "counted": False})
