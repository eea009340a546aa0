"""Seconds that `turnout verify-log` takes for a million decisions and their outcomes, against a loop over rows.

The ledger has what real ones have: experiments drawn by unit and by request, one that is sticky, holdouts, audiences,
traffic, new weights every few minutes, forced arms, units that no experiment takes, corrected outcomes.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Engine, select, text

from bench.harness import write_json
from router.allocation.tables import fixed_counts
from router.assignment.audience import Condition, takes
from router.assignment.epochs import HOLDOUT, Epoch, fresh, reweight
from router.assignment.hashing import BUCKETS, bucket, traffic_seed
from router.decision_id import FORCED, NO_EXPERIMENT, DecisionId, Signer, unpack
from router.documents import AnyMetric, Arm, BinaryMetric, Endpoint, Experiment, NumericMetric, ScoreMetric, Split
from router.ledger import schema
from router.ledger.control import ControlTables
from router.ledger.control_writing import Change
from router.ledger.database import open_database, upgrade
from router.ledger.folding import Folder
from router.ledger.partitions import ensure_partitions
from router.ledger.records import AssignmentRow, DecisionRow, Observation
from router.ledger.writing import assign_first, insert_decisions
from router.verification import Summary, verify
from router.verification.decisions import Decisions
from router.verification.experiments import read_experiments
from router.verification.findings import Findings
from router.verification.reading import snapshot
from router.verification.regressions import Regressions

SIGNER = Signer(["the secret of the benchmark"])
START_MS = 1_700_000_000_000
DAY_MS = 86_400_000
CHAMPION = "delay@1"
EPOCHS = 50
LIMIT_S = 20.0
_BATCH = 2_000
_ORIGINS = ("JFK", "LGA", "EWR")

_METRICS: list[AnyMetric] = [
    ScoreMetric(name="brier", score="brier", label="late", direction="decrease", role="primary"),
    BinaryMetric(name="click", default=0, window_s=3600, direction="increase"),
    NumericMetric(name="revenue", direction="increase"),
]


class Figures(NamedTuple):
    """Rows by table, and the seconds of every turn: of all, of the decisions alone, and of these row by row."""

    checked: Mapping[str, int]
    whole: Sequence[float]
    decisions: Sequence[float]
    row_by_row: Sequence[float]


class Started(NamedTuple):
    """An experiment with its epochs, which follow each other evenly over the day."""

    id: int
    document: Experiment
    epochs: list[Epoch]


def main() -> None:
    """Make a ledger, verify it both ways, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--outcomes", type=int, default=500_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--database", help="An empty database to use, such as postgresql://..; a new SQLite file if not."
    )
    parser.add_argument("--json", type=Path, default=Path("var/bench/verify.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = open_database(arguments.database or f"sqlite:///{folder}/ledger.db")
        upgrade(engine)
        ensure_partitions(engine, START_MS)
        make(engine, arguments.decisions, arguments.outcomes)
        turns = [(_verified(engine), _decisions_only(engine), row_by_row(engine)) for _ in range(arguments.turns)]
        engine.dispose()
    summaries, decisions, baseline = zip(*turns, strict=True)
    figures = Figures(summaries[0].checked, [summary.seconds for summary in summaries], decisions, baseline)
    write_json(arguments.json, figures._asdict())
    _print(figures)


def make(engine: Engine, decisions: int, outcomes: int) -> None:
    """Fill an empty ledger."""
    started = [_start(engine, document) for document in _documents()]
    rng = random.Random(0)  # noqa: S311
    rows = _decisions(started, decisions, rng)
    each, folder = outcomes / decisions, Folder()
    progress = track(range(0, decisions, _BATCH), "writing the ledger", console=Console(stderr=True))
    for _ in progress:
        batch = list(islice(rows, _BATCH))
        observations = [made for row, _ in batch if rng.random() < each / 1.1 for made in _outcomes(row, rng)]
        with engine.begin() as connection:
            folder.count(connection, insert_decisions(connection, [row for row, _ in batch]), shard=1)
            assign_first(connection, list({found[:2]: found for _, found in batch if found is not None}.values()))
            folder.record(connection, observations, START_MS + DAY_MS)
    with engine.begin() as connection:
        connection.execute(text("analyze"))


def _documents() -> Iterator[Experiment]:
    audience = [Condition(attribute="origin", op="in", value=["JFK", "LGA"])]
    yield _document("by-unit", traffic=0.3, holdout=0.1, audience=audience)
    yield _document("by-request", traffic=0.3, randomise="request")
    yield _document("sticky", traffic=0.4, holdout=0.05, sticky=True)


def _document(name: str, **fields: Any) -> Experiment:
    weights = {"control": 0.5, "b": 0.25, "c": 0.25}
    return Experiment(
        name=name,
        endpoint="delay",
        arms=[Arm(name=arm, model=f"delay@{number}") for number, arm in enumerate(weights, 1)],
        allocation=Split(weights=weights),
        metrics=_METRICS,
        **fields,
    )


def _start(engine: Engine, document: Experiment) -> Started:
    tables = ControlTables(engine)
    if not tables.endpoints():
        tables.create_endpoint(Endpoint(name="delay", champion=CHAMPION), START_MS, actor="bench")
    tables.create_experiment(document, START_MS, actor="bench")
    rng, epochs = random.Random(document.name), list[Epoch]()  # noqa: S311
    for number in range(1, EPOCHS + 1):
        parts = [rng.random() + 0.1 for _ in document.arms]
        weights = {arm.name: part / sum(parts) for arm, part in zip(document.arms, parts, strict=True)}
        document = msgspec.structs.replace(document, allocation=Split(weights=weights))
        counts = fixed_counts(document)
        epoch = Epoch(
            number, reweight(epochs[-1].table, counts) if epochs else fresh(counts), round(document.traffic * BUCKETS)
        )
        record = tables.experiment(document.name)
        change = Change(document, "running", START_MS, None, epoch, "new weights" if epochs else "start")
        tables.change_experiment(record, change, START_MS, actor="bench", action="replace")
        epochs.append(epoch)
    return Started(tables.experiment(document.name).id, document, epochs)


def _decisions(
    started: list[Started], number: int, rng: random.Random
) -> Iterator[tuple[DecisionRow, AssignmentRow | None]]:
    """Yield decisions, and the first assignment where there is one, as evenly spread over a day as the epochs are."""
    first: dict[str, AssignmentRow] = {}
    for index in range(number):
        now_ms = START_MS + index * DAY_MS // number
        unit = f"passenger-{rng.randrange(number // 3 + 1)}"
        context: dict[str, str | int] = {"origin": _ORIGINS[index % 3], "weekday": index % 7}
        nonce = rng.randbytes(8)
        assigned = None
        content, model = DecisionId(now_ms, NO_EXPERIMENT, 0, 0, BUCKETS, nonce), CHAMPION
        if index % 200 == 0:
            content, model = DecisionId(now_ms, started[0].id, FORCED, 2, BUCKETS, nonce), "delay@3"
        elif (taking := _taking(started, unit, context, index * EPOCHS // number)) is not None:
            experiment, epoch = taking
            if experiment.document.sticky:
                assigned = first.setdefault(unit, _drawn(experiment, epoch, unit, now_ms))
                content = DecisionId(now_ms, experiment.id, assigned.epoch, assigned.arm, assigned.slots, nonce)
            else:
                value = nonce.hex() if experiment.document.by_request else unit
                drawn = _drawn(experiment, epoch, value, now_ms)
                content = DecisionId(now_ms, experiment.id, epoch.number, drawn.arm, drawn.slots, nonce)
            model = CHAMPION if content.arm == HOLDOUT else experiment.document.arms[content.arm].model
        yield _row(content, unit, model, json.dumps(context), rng), assigned


def _taking(
    started: list[Started], unit: str, context: dict[str, str | int], epoch: int
) -> tuple[Started, Epoch] | None:
    for experiment in started:
        now = experiment.epochs[epoch]
        taken = bucket(traffic_seed(experiment.document.name), unit) < now.traffic
        if taken and takes(experiment.document.audience, context):
            return experiment, now
    return None


def _drawn(experiment: Started, epoch: Epoch, value: str, now_ms: int) -> AssignmentRow:
    arm = epoch.table[bucket(experiment.document.name, value)]
    return AssignmentRow(experiment.id, value, epoch.number, arm, epoch.table.count(arm), now_ms)


def _row(content: DecisionId, unit: str, model: str, context: str, rng: random.Random) -> DecisionRow:
    outside = content.experiment_id == NO_EXPERIMENT
    inputs = {f"feature_{number}": round(rng.random(), 4) for number in range(20)}
    return DecisionRow(
        id=SIGNER.sign(content),
        decided_ms=content.decided_ms,
        endpoint="delay",
        experiment_id=None if outside else content.experiment_id,
        epoch=None if outside else content.epoch,
        arm=None if outside else content.arm,
        propensity=content.propensity,
        unit=unit,
        model=model,
        served_model=model,
        fallback=None,
        context=context,
        inputs=json.dumps([inputs], separators=(",", ":")),
        predictions=f"[{rng.random()!r}]",
    )


def _outcomes(row: DecisionRow, rng: random.Random) -> Iterator[Observation]:
    """Yield one outcome, in one of ten cases corrected by another."""
    metric = rng.choice(("late", "click", "revenue"))
    for version in range(1 + (rng.random() < 0.1)):
        value = rng.random() * 100 if metric == "revenue" else float(rng.random() < 0.3)
        drawn = unpack(row.id).is_drawn
        yield Observation(
            row.id,
            metric,
            0,
            "",
            version,
            value,
            row.experiment_id if drawn else None,
            row.arm if drawn else None,
            row.decided_ms + rng.randrange(7_200_000),
        )


def row_by_row(engine: Engine) -> float:
    """Return the seconds that the decisions take in what one would write first: a loop with the router's functions."""
    start, tables = time.perf_counter(), ControlTables(engine)
    records = {record.id: record.document for record in tables.experiments()}
    endpoints = {record.document.name for record in tables.endpoints()}
    epochs = {(key, found.epoch.number): found.epoch for key in records for found in tables.epochs(key, EPOCHS)}
    wrong = 0
    with engine.connect() as connection:
        for row in connection.execute(select(schema.decisions), execution_options={"yield_per": 1000}):
            said = unpack(row.id)
            document = records.get(said.experiment_id)
            stands = (row.experiment_id, row.epoch, row.arm)
            wrong += not SIGNER.signed(row.id) or stands != (said[1:4] if document else (None, None, None))
            wrong += (row.decided_ms, row.propensity) != (said.decided_ms, said.propensity)
            wrong += len(json.loads(row.inputs)) != len(json.loads(row.predictions)) or row.endpoint not in endpoints
            wrong += (row.model == row.served_model) != (row.fallback is None)
            context = json.loads(row.context or "{}")
            if document is not None:
                wrong += said.arm != HOLDOUT and row.model != document.arms[said.arm].model
                if said.is_drawn:
                    value = said.nonce.hex() if document.by_request else row.unit
                    wrong += not _follows(document, epochs[said.experiment_id, said.epoch], said, row.unit, value)
                    wrong += not takes(document.audience, context)
    if wrong:
        raise RuntimeError(f"{wrong} of the decisions differ")
    return time.perf_counter() - start


def _follows(document: Experiment, epoch: Epoch, said: DecisionId, unit: str, value: str) -> bool:
    drawn = epoch.table[bucket(document.name, value)] == said.arm
    return (
        drawn
        and epoch.propensity(said.arm) == said.propensity
        and bucket(traffic_seed(document.name), unit) < epoch.traffic
    )


def _decisions_only(engine: Engine) -> float:
    start = time.perf_counter()
    findings = Findings()
    with snapshot(engine) as connection:
        experiments = read_experiments(connection, findings)
        Decisions(connection, SIGNER, experiments, findings, Regressions(experiments)).check()
    return time.perf_counter() - start


def _verified(engine: Engine) -> Summary:
    summary = verify(engine, SIGNER)
    if summary.failures:
        raise RuntimeError(f"the benchmark's ledger is wrong: {summary.first[0]}")
    return summary


def _print(figures: Figures) -> None:
    table = Table("median of the turns", "rows", "seconds", "rows/s", "", box=box.SIMPLE_HEAD, pad_edge=False)
    rows = sum(figures.checked.values())
    decisions, whole = figures.checked["decisions"], statistics.median(figures.whole)
    ours, baseline = statistics.median(figures.decisions), statistics.median(figures.row_by_row)
    table.add_row("verify-log", f"{rows:,}", f"{whole:.1f}", f"{rows / whole:,.0f}", "")
    table.add_row("its decisions", f"{decisions:,}", f"{ours:.1f}", f"{decisions / ours:,.0f}", "1.00 x")
    ratio = f"{ours / baseline:.2f} x"
    table.add_row("row by row", f"{decisions:,}", f"{baseline:.1f}", f"{decisions / baseline:,.0f}", ratio)
    Console().print(table)
    per_million = whole / rows * 1e6
    if per_million > LIMIT_S:
        sys.exit(f"a million rows took {per_million:.1f} seconds; the promise is {LIMIT_S:g}")


if __name__ == "__main__":
    main()
