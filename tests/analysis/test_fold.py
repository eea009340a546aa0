"""What a report adds up from the outcomes is what the router folded into its statistics, whatever was said and when."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine, func, insert, select

from analysis import experiment
from analysis.experiment import AnyMetric, RatioMetric, read_experiment
from analysis.queries import log_of, observations
from analysis.report import load
from analysis.source import open_source
from router import documents
from router.assignment.epochs import HOLDOUT
from router.decision_id import FORCED
from router.ledger import schema
from router.ledger.database import open_database
from router.ledger.folding import Folder
from router.ledger.records import Observation
from tests.analysis.ledgers import CLICK, DAY_MS, RATIO, REVENUE, START_MS, Ledger
from tests.databases import BACKENDS, database
from tests.metrics import BRIER

NAME = "boosting-vs-logistic"
NOW_MS = START_MS + 2 * DAY_MS
SECONDARY = {"role": "secondary", "window_s": 3600}
IGNORES = {**SECONDARY, "late": "ignore"}
METRICS: list[dict[str, Any]] = [
    BRIER,
    BRIER | IGNORES | {"name": "prompt-brier"},
    BRIER | IGNORES | {"name": "distance", "score": "absolute_error"},
    REVENUE | SECONDARY,
    REVENUE | IGNORES | {"name": "tip"},
    REVENUE | SECONDARY | {"name": "fare", "winsorise": {"low": 1, "high": 4.5}},
    REVENUE | IGNORES | {"name": "fee", "winsorise": {"high": 3}},
    REVENUE | SECONDARY | {"name": "click", "kind": "binary", "late": "count"},
    REVENUE | IGNORES | {"name": "seen", "kind": "binary"},
    RATIO | SECONDARY | {"name": "yield", "numerator": "revenue", "denominator": "visit"},
    RATIO | IGNORES | {"name": "prompt-yield", "numerator": "tip", "denominator": "visit"},
]
ZERO_OR_ONE = {"late", "click", "seen"}
OUTCOMES = (*sorted(ZERO_OR_ONE), "fare", "fee", "revenue", "tip", "visit")


def decided(generator: np.random.Generator, ledger: Ledger) -> None:
    """Decisions of one to three items, some forced and some held out."""
    number_of_experiment = ledger.add_experiment(METRICS, holdouts=(0.2,))
    for number in range(120):
        ledger.decide(
            number_of_experiment,
            int(generator.choice([0, 1, HOLDOUT], p=[0.4, 0.4, 0.2])),
            f"unit-{generator.integers(40)}",
            START_MS + 30_000 * number,
            predictions=[round(float(p), 3) for p in generator.uniform(size=generator.integers(1, 4))],
            epoch=FORCED if generator.uniform() < 0.1 else 1,
        )


def said(generator: np.random.Generator, ledger: Ledger) -> list[Observation]:
    """Outcomes of some items, and of items that are not there: versions of values and retractions in any order."""
    statements = []
    for decision in ledger.decisions:
        is_drawn = decision["epoch"] != FORCED
        for item in range(decision["predictions"].count(",") + 2):
            for metric in generator.permutation(OUTCOMES)[: generator.integers(0, 9)]:
                for outcome_id in ("", "b", "c")[: generator.integers(1, 4)]:
                    for version in generator.permutation([0, 1, 5])[: generator.choice([1, 1, 1, 2, 3])]:
                        value = float(generator.uniform() < 0.5) if metric in ZERO_OR_ONE else generator.normal(3, 2)
                        statements.append(
                            Observation(
                                decision_id=decision["id"],
                                metric=str(metric),
                                item=item,
                                outcome_id=outcome_id,
                                version=int(version),
                                value=None if version and generator.uniform() < 0.3 else float(value),
                                experiment_id=decision["experiment_id"] if is_drawn else None,
                                arm=decision["arm"] if is_drawn else None,
                                occurred_ms=decision["decided_ms"] + int(generator.choice([0, 3_600_000, 3_600_001])),
                            )
                        )
    return [statements[index] for index in generator.permutation(len(statements))]


def fold(generator: np.random.Generator, engine: Engine, statements: Sequence[Observation], late: Any) -> None:
    """Record the outcomes in batches, some twice, and half-way the decisions that had not reached the ledger."""
    folder, start, settled = Folder(), 0, False
    while start < len(statements):
        if start > len(statements) / 2 and not settled:
            settled = True
            with engine.begin() as connection:
                connection.execute(insert(schema.decisions), late)
                folder.settle(connection, [row["id"] for row in late])
        size = int(generator.integers(1, 200))
        with engine.begin() as connection:
            folder.record(connection, statements[max(0, start - 20) : start + size], START_MS + DAY_MS)
        start += size


Sums = dict[tuple[int, str], tuple[float, ...]]
"""Count, sum and sum of squares by arm and name of the statistic; of a ratio's parts only the sum."""


def folded(engine: Engine) -> Sums:
    """The router's statistics of the two arms, over minutes and shards."""
    table = schema.statistics
    sums = [func.sum(table.c[name]) for name in ("count", "sum", "sum_squares")]
    query = (
        select(table.c.arm, table.c.metric, *sums).where(table.c.arm != HOLDOUT).group_by(table.c.arm, table.c.metric)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return {
        (arm, name): (total,) if "/" in name else (float(count), total, squares)
        for arm, name, count, total, squares in rows
    }


def reported(url: str) -> Sums:
    """The same from the outcomes, in the way of the report."""
    source = open_source(url)
    read = read_experiment(source, NAME)
    log = log_of(source, read, NOW_MS)
    sums: Sums = {}
    for metric in read.metrics:
        rows = source.rows(observations(log, metric))
        for arm in (0, 1):
            parts = [(row["numerator"], row["denominator"]) for row in rows if row["arm"] == arm]
            if isinstance(metric, RatioMetric):
                sums[arm, f"{metric.name}/numerator"] = (sum(value for value, _ in parts),)
                sums[arm, f"{metric.name}/denominator"] = (sum(value for _, value in parts),)
            else:
                sums[arm, metric.name] = (len(parts), sum(v for v, _ in parts), sum(v * v for v, _ in parts))
    return sums


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(4))
def test_report_adds_up_to_the_statistics(tmp_path: Path, backend: str, seed: int) -> None:
    generator, ledger = np.random.default_rng(seed), Ledger()
    decided(generator, ledger)
    statements = said(generator, ledger)
    late, ledger.decisions = ledger.decisions[80:], ledger.decisions[:80]
    with database(backend, tmp_path) as url:
        ledger.write(url)
        engine = open_database(url)
        fold(generator, engine, statements, late)
        statistics, found = folded(engine), reported(url)
        engine.dispose()
        report = load(NAME, url, now_ms=NOW_MS)
        assert statistics.keys() == found.keys()
        for key, expected in statistics.items():
            assert found[key] == pytest.approx(expected, rel=1e-9, abs=1e-9), key
        # The sums alone: confidence sequences of ten metrics would take most of the time.
        for row in report.fixed_horizon().to_dict("records"):
            arm = ("control", "boosting").index(row["arm"])
            if (arm, row["metric"]) in statistics:
                count, total, _ = statistics[arm, row["metric"]]
                assert row["observations"] == count > 20
            else:
                total, count = (statistics[arm, f"{row['metric']}/{part}"][0] for part in ("numerator", "denominator"))
            assert row["mean"] == pytest.approx(total / count, rel=1e-9), row


@pytest.mark.parametrize("late", ["count", "ignore", None])
@pytest.mark.parametrize("metric", [BRIER, REVENUE, REVENUE | {"default": 0.0}, CLICK, RATIO], ids=lambda m: m["name"])
def test_report_ignores_late_outcomes_where_the_router_does(metric: dict[str, Any], late: str | None) -> None:
    document = metric | {"late": late}
    ours: AnyMetric = msgspec.convert(document, AnyMetric)
    theirs: documents.AnyMetric = msgspec.convert(document, documents.AnyMetric)
    assert ours.ignores_late is theirs.ignores_late


@pytest.mark.parametrize("planned", [None, 250])
def test_report_plans_as_many_decisions_as_the_router(tmp_path: Path, planned: int | None) -> None:
    ledger = Ledger()
    ledger.add_experiment(METRICS)
    (row,) = ledger.experiments
    document = json.loads(row["document"]) | ({} if planned is None else {"planned_decisions": planned})
    row["document"] = json.dumps(document)
    read = read_experiment(open_source(ledger.write_sqlite(tmp_path / "ledger.db")), NAME)
    theirs = msgspec.convert(document, documents.Experiment)
    assert read.planned_decisions == theirs.planned_decisions == (planned or 10_000)


def test_report_knows_the_router_s_numbers_for_what_was_not_drawn() -> None:
    assert (experiment.HOLDOUT, experiment.FORCED) == (HOLDOUT, FORCED)
