"""Exporting a ledger by day, and the result made from the export."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from sqlalchemy import Engine, Table, create_engine, insert

import analysis
from orchestration import logs
from orchestration.errors import LedgerUnavailable, MaterializationFailed, NoExperiment
from orchestration.lake import Lake, Partition
from orchestration.ledger import Ledger
from orchestration.results import newest_experiment, result_asset
from orchestration.staleness import materialize
from router.ledger import schema

FIRST, SECOND = "2026-03-01", "2026-03-02"
EXPERIMENT = """{"name": "race", "endpoint": "flight-delay",
 "arms": [{"name": "control", "model": "a@1"}, {"name": "new", "model": "b@1"}],
 "allocation": {"kind": "split", "weights": {"control": 0.5, "new": 0.5}},
 "metrics": [{"name": "brier", "kind": "score", "score": "brier", "label": "late", "direction": "decrease",
              "role": "primary"}]}"""


def moment(day: str, hour: int, minute: int = 0) -> int:
    return int(datetime.fromisoformat(f"{day}T{hour:02}:{minute:02}").replace(tzinfo=UTC).timestamp() * 1000)


def decision_id(at_ms: int, number: int) -> bytes:
    return at_ms.to_bytes(6) + number.to_bytes(27)


def decision(at_ms: int, number: int) -> dict[str, Any]:
    arm = number % 2
    return {
        "id": decision_id(at_ms, number),
        "decided_ms": at_ms,
        "endpoint": "flight-delay",
        "experiment_id": 1,
        "epoch": 1,
        "arm": arm,
        "propensity": 0.5,
        "unit": f"u{number}",
        "model": f"{'ab'[arm]}@1",
        "served_model": f"{'ab'[arm]}@1",
        "fallback": None,
        "context": None,
        "inputs": "[{}]",
        "predictions": f"[{0.2 + 0.1 * arm}]",
    }


def outcome(at_ms: int, number: int, received_ms: int) -> dict[str, Any]:
    return {
        "decision_id": decision_id(at_ms, number),
        "metric": "late",
        "item": 0,
        "outcome_id": "",
        "value": float(number % 3 == 0),
        "prediction": 0.2 + 0.1 * (number % 2),
        "experiment_id": 1,
        "arm": number % 2,
        "occurred_ms": received_ms,
        "received_ms": received_ms,
    }


def add(engine: Engine, table: Table, *rows: dict[str, Any]) -> None:
    with engine.begin() as connection:
        connection.execute(insert(table), list(rows))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A ledger with 40 decisions on each of two days, the first and last at the very edges of the first day."""
    engine = create_engine(f"sqlite:///{tmp_path / 'turnout.db'}")
    schema.metadata.create_all(engine)
    row = {"id": 1, "name": "race", "endpoint": "flight-delay", "state": "concluded", "revision": 1}
    times = {"created_ms": moment(FIRST, 0), "started_ms": moment(FIRST, 0), "ended_ms": None}
    add(engine, schema.experiments, row | times | {"document": EXPERIMENT})
    arms = [
        {"experiment_id": 1, "arm": i, "name": n, "model": m} for i, n, m in [(0, "control", "a@1"), (1, "new", "b@1")]
    ]
    add(engine, schema.arms, *arms)
    epoch = {"experiment_id": 1, "epoch": 1, "runs": "[[5000, 0], [5000, 1]]", "reason": "start"}
    add(engine, schema.epochs, epoch | {"published_ms": moment(FIRST, 0)})
    times_of_first = [moment(FIRST, 0), *(moment(FIRST, 12, n) for n in range(38)), moment(SECOND, 0) - 1]
    add(engine, schema.decisions, *(decision(at, n) for n, at in enumerate(times_of_first)))
    add(engine, schema.outcomes, *(outcome(at, n, moment(FIRST, 23)) for n, at in enumerate(times_of_first)))
    second = [(moment(SECOND, 8, n), 40 + n) for n in range(40)]
    add(engine, schema.decisions, *(decision(at, n) for at, n in second))
    yield engine
    engine.dispose()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def definitions(tmp_path: Path, engine: Engine, lake: Lake) -> dg.Definitions:
    return dg.Definitions(
        assets=[logs.LEDGER, logs.logged_experiments, logs.logged_traffic, result_asset("flight-delay")],
        resources={"lake": lake, "ledger": Ledger(f"sqlite:///{tmp_path / 'turnout.db'}")},
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


EXPORT = dg.AssetSelection.groups("logs")


def test_export_copies_every_table(definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake) -> None:
    made = materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    assert sorted(made) == ["logged_experiments", f"logged_traffic[{FIRST}]", f"logged_traffic[{SECOND}]"]
    rows = {name: len(lake.read(f"logs/{name}")) for name in ("experiments", "arms", "epochs", "decisions", "outcomes")}
    assert rows == {"experiments": 1, "arms": 2, "epochs": 1, "decisions": 80, "outcomes": 40}
    assert lake.read("logs/experiments")["document"].tolist() == [EXPERIMENT]


def test_days_are_cut_at_midnight_utc(definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST})
    decided = lake.read("logs/decisions", Partition("day", FIRST))["decided_ms"]
    assert (decided.min(), decided.max()) == (moment(FIRST, 0), moment(SECOND, 0) - 1)


def test_exporting_again_makes_no_new_version(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    before = lake.version("logs/decisions"), lake.version("logs/outcomes"), lake.version("logs/epochs")
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    assert (lake.version("logs/decisions"), lake.version("logs/outcomes"), lake.version("logs/epochs")) == before


def test_late_outcome_goes_to_the_day_of_its_decision(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, engine: Engine
) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    add(engine, schema.outcomes, outcome(moment(SECOND, 8), 40, received_ms=moment("2026-03-09", 1)))
    materialize(definitions, instance, EXPORT, partitions={SECOND})
    assert len(lake.read("logs/outcomes", Partition("day", SECOND))) == 1
    assert len(lake.read("logs/outcomes", Partition("day", FIRST))) == 40


def test_export_reports_the_same_result_as_the_ledger(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, engine: Engine
) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    exported = analysis.load("race", lake.root).summary()
    pd.testing.assert_frame_equal(exported, analysis.load("race", str(engine.url)).summary(), rtol=1e-9)


def test_result_shows_summary_verdict_and_chart(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    materialize(definitions, instance, dg.AssetSelection.assets("flight_delay_result"))
    event = instance.get_latest_materialization_event(dg.AssetKey("flight_delay_result"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert "| brier | control | 40 | 0.25 |" in str(metadata["summary"].value)
    assert str(metadata["chart"].value).startswith("![Result of race](data:image/png;base64,iVBOR")
    assert str(metadata["verdict"].value).partition(" ")[0] in {"advance", "rollback", "insufficient"}


def test_result_without_export_says_what_to_do(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    with pytest.raises(MaterializationFailed, match="table logs/experiments was never written: materialize it first"):
        materialize(definitions, instance, dg.AssetSelection.assets("flight_delay_result"))


def test_result_is_of_the_newest_experiment(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, engine: Engine
) -> None:
    row = {"endpoint": "flight-delay", "state": "running", "revision": 1, "document": EXPERIMENT, "ended_ms": None}
    started = {"created_ms": moment(SECOND, 0), "started_ms": moment(SECOND, 0)}
    add(engine, schema.experiments, row | started | {"id": 2, "name": "race-2"})
    add(
        engine,
        schema.experiments,
        row | {"id": 3, "name": "draft", "created_ms": moment(SECOND, 1), "started_ms": None},
    )
    materialize(definitions, instance, dg.AssetSelection.assets("logged_experiments"))
    assert newest_experiment(lake, "flight-delay") == "race-2"
    with pytest.raises(NoExperiment, match="no experiment on endpoint other was started"):
        newest_experiment(lake, "other")


def test_ledger_days_reach_from_first_to_last_decision(tmp_path: Path, engine: Engine) -> None:
    assert Ledger(str(engine.url)).days() == [date(2026, 3, 1), date(2026, 3, 2)]


def test_empty_ledger_has_no_days(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    schema.metadata.create_all(engine)
    engine.dispose()
    assert Ledger(f"sqlite:///{tmp_path / 'empty.db'}").days() == []


def test_missing_ledger_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=f"there is no ledger at {tmp_path}/none.db"):
        Ledger(f"sqlite:///{tmp_path}/none.db").control()
    assert not (tmp_path / "none.db").exists()


def test_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerUnavailable, match=f"{tmp_path}/bad.db"):
        Ledger(f"sqlite:///{tmp_path}/bad.db").control()
