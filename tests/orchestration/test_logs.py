"""Exporting a ledger by day, and the result made from the export."""

import itertools
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pandas as pd
import pytest
from sqlalchemy import Engine, Table, insert, text, update

import analysis
from models import Registry
from orchestration import logs
from orchestration.errors import LedgerUnavailable, MaterializationFailed, NoExperiment
from orchestration.lake import Lake, Partition
from orchestration.ledger import Ledger
from orchestration.results import newest_run, result_asset
from orchestration.staleness import materialize
from router.assignment.hashing import bucket
from router.decision_id import DecisionId, Signer, encode
from router.errors import CannotStart
from router.ledger import schema
from router.ledger.batch import BatchWriter, Decide
from router.ledger.database import open_database, upgrade
from router.ledger.folding import Folder
from router.ledger.partitions import ensure_partitions
from router.ledger.records import DecisionRow, Observation
from router.settings import Settings
from tests.databases import BACKENDS, database

SECRET = "a secret of enough length"
SIGNER = Signer([SECRET])
FIRST, SECOND = "2026-03-01", "2026-03-02"
EXPERIMENT = """{"name": "race", "endpoint": "flight-delay",
 "arms": [{"name": "control", "model": "a@1"}, {"name": "new", "model": "b@1"}],
 "allocation": {"kind": "split", "weights": {"control": 0.5, "new": 0.5}},
 "metrics": [{"name": "brier", "kind": "score", "score": "brier", "label": "late", "direction": "decrease",
              "role": "primary"}]}"""


def moment(day: str, hour: int, minute: int = 0) -> int:
    return int(datetime.fromisoformat(f"{day}T{hour:02}:{minute:02}").replace(tzinfo=UTC).timestamp() * 1000)


def unit(number: int) -> str:
    """A unit that the experiment gives the arm number % 2."""
    names = (f"u{number}-{attempt}" for attempt in itertools.count())
    return next(name for name in names if bucket("race", name) // 5000 == number % 2)


def decision_id(at_ms: int, number: int) -> bytes:
    return SIGNER.sign(DecisionId(at_ms, 1, 1, number % 2, 5000, number.to_bytes(8)))


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
        "unit": unit(number),
        "model": f"{'ab'[arm]}@1",
        "served_model": f"{'ab'[arm]}@1",
        "fallback": None,
        "context": None,
        "inputs": "[{}]",
        "predictions": f"[{0.2 + 0.1 * arm}]",
    }


def outcome(at_ms: int, number: int, version: int = 0, value: float | None = 0.0) -> Observation:
    """A flight's label; the first version says that every third is late."""
    return Observation(
        decision_id=decision_id(at_ms, number),
        metric="late",
        item=0,
        outcome_id="",
        version=version,
        value=value if version else float(number % 3 == 0),
        experiment_id=1,
        arm=number % 2,
        occurred_ms=at_ms + 1,
    )


def add(engine: Engine, table: Table, *rows: dict[str, Any]) -> None:
    with engine.begin() as connection:
        connection.execute(insert(table), list(rows))


def decide(engine: Engine, *rows: dict[str, Any]) -> None:
    """Record decisions as a router does, which counts what they decided."""
    with engine.begin() as connection:
        BatchWriter(lambda: moment(FIRST, 0)).write(connection, [Decide(DecisionRow(**row), None) for row in rows])


def observe(engine: Engine, received_ms: int, *outcomes: Observation) -> None:
    with engine.begin() as connection:
        receipts = Folder().record(connection, outcomes, received_ms)
    assert {receipt.status for receipt in receipts} == {"accepted"}


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, of either kind: what holds for one holds for the other."""
    with database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def settings(url: str, tmp_path: Path) -> Settings:
    return Settings(database=url, secret=SECRET, lake=tmp_path / "lake", registry=tmp_path / "registry")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """A ledger with 40 decisions on each of two days, the first and last at the very edges of the first day."""
    engine = open_database(url)
    upgrade(engine)
    ensure_partitions(engine, moment(FIRST, 0))
    endpoint = {"name": "flight-delay", "revision": 1, "document": '{"name":"flight-delay","champion":"a@1"}'}
    add(engine, schema.endpoints, endpoint | {"created_ms": moment(FIRST, 0), "updated_ms": moment(FIRST, 0)})
    row = {"id": 1, "name": "race", "endpoint": "flight-delay", "state": "concluded", "revision": 1}
    times = {"created_ms": moment(FIRST, 0), "started_ms": moment(FIRST, 0), "ended_ms": None}
    add(engine, schema.experiments, row | times | {"document": EXPERIMENT})
    arms = [
        {"experiment_id": 1, "arm": i, "name": n, "model": m} for i, n, m in [(0, "control", "a@1"), (1, "new", "b@1")]
    ]
    add(engine, schema.arms, *arms)
    epoch = {"experiment_id": 1, "epoch": 1, "runs": "[[5000,0],[5000,1]]", "traffic": 10_000, "reason": "start"}
    add(engine, schema.epochs, epoch | {"published_ms": moment(FIRST, 0)})
    times_of_first = [moment(FIRST, 0), *(moment(FIRST, 12, n) for n in range(38)), moment(SECOND, 0) - 1]
    decide(engine, *(decision(at, n) for n, at in enumerate(times_of_first)))
    observe(engine, moment(FIRST, 23), *(outcome(at, n) for n, at in enumerate(times_of_first)))
    second = [(moment(SECOND, 8, n), 40 + n) for n in range(40)]
    decide(engine, *(decision(at, n) for at, n in second))
    yield engine
    engine.dispose()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def definitions(settings: Settings, engine: Engine, lake: Lake) -> dg.Definitions:
    return dg.Definitions(
        assets=[logs.LEDGER, logs.logged_experiments, logs.logged_traffic, result_asset("flight-delay", "race")],
        asset_checks=[logs.decisions_can_be_proved],
        resources={"lake": lake, "ledger": Ledger(settings), "registry": Registry(settings.registry)},
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


def test_files_that_were_replaced_go_after_a_while(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    lake: Lake,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    observe(engine, moment("2026-03-09", 1), outcome(moment(SECOND, 8), 40))
    materialize(definitions, instance, EXPORT, partitions={SECOND})
    observe(engine, moment("2026-03-09", 2), outcome(moment(SECOND, 8, 1), 41))
    materialize(definitions, instance, EXPORT, partitions={SECOND})
    outcomes = lake.path("logs/outcomes")
    assert len(list(outcomes.rglob("*.parquet"))) == 3, "a reader may still be at the first"
    monkeypatch.setattr(logs, "_REPLACED_KEPT_H", 0)
    materialize(definitions, instance, EXPORT, partitions={SECOND})
    assert len(list(outcomes.rglob("*.parquet"))) == 2
    assert len(lake.read("logs/outcomes")) == 42


def test_late_outcome_goes_to_the_day_of_its_decision(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, engine: Engine
) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    observe(engine, moment("2026-03-09", 1), outcome(moment(SECOND, 8), 40))
    materialize(definitions, instance, EXPORT, partitions={SECOND})
    assert len(lake.read("logs/outcomes", Partition("day", SECOND))) == 1
    assert len(lake.read("logs/outcomes", Partition("day", FIRST))) == 40


def test_export_reports_the_same_result_as_the_ledger(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, url: str
) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    exported = analysis.load("race", lake.root).summary()
    assert list(exported["observations"]) == [20, 20]
    pd.testing.assert_frame_equal(exported, analysis.load("race", url).summary(), rtol=1e-9)


def test_corrections_and_retractions_are_exported_and_count(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, engine: Engine, url: str
) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    noon = moment(FIRST, 12)
    observe(engine, moment(SECOND, 1), outcome(noon, 1, 1, None), outcome(noon + 60_000, 2, 2, 1.0))
    waiting = outcome(moment(SECOND, 23), 99)
    observe(engine, moment(SECOND, 1), waiting)
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    rows = lake.read("logs/outcomes").sort_values(["decision_id", "version"])
    assert rows["version"].value_counts().to_dict() == {0: 41, 1: 1, 2: 1}
    assert rows["counted"].tolist() == [True] * 42 + [False]
    exported = analysis.load("race", lake.root).summary()
    assert list(exported["observations"]) == [20, 19]
    pd.testing.assert_frame_equal(exported, analysis.load("race", url).summary(), rtol=1e-9)


def test_result_shows_summary_verdict_and_chart(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    materialize(definitions, instance, dg.AssetSelection.assets("race_result"))
    event = instance.get_latest_materialization_event(dg.AssetKey("race_result"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert "| brier | control | 40 | 0.25 |" in str(metadata["summary"].value)
    assert str(metadata["chart"].value).startswith("![Result of race](data:image/png;base64,iVBOR")
    assert str(metadata["verdict"].value).partition(" ")[0] in {"advance", "rollback", "insufficient"}


def test_result_without_export_says_what_to_do(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    with pytest.raises(MaterializationFailed, match="table logs/experiments was never written: materialize it first"):
        materialize(definitions, instance, dg.AssetSelection.assets("race_result"))


def test_result_is_of_the_newest_repetition_that_was_started(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, engine: Engine
) -> None:
    row = {"endpoint": "flight-delay", "state": "running", "revision": 1, "document": EXPERIMENT, "ended_ms": None}
    started = {"created_ms": moment(SECOND, 0), "started_ms": moment(SECOND, 0)}
    add(engine, schema.experiments, row | started | {"id": 2, "name": "race-2"})
    add(
        engine,
        schema.experiments,
        row | {"id": 3, "name": "race-3", "created_ms": moment(SECOND, 1), "started_ms": None},
        row | {"id": 4, "name": "race-of-others", "created_ms": moment(SECOND, 2), "started_ms": moment(SECOND, 2)},
    )
    materialize(definitions, instance, dg.AssetSelection.assets("logged_experiments"))
    assert newest_run(lake, "flight-delay", "race") == "race-2"
    with pytest.raises(NoExperiment, match="experiment race on endpoint other was never started"):
        newest_run(lake, "other", "race")


def proof(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    """Export and prove the log, and return what the check said."""
    made = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("logged_experiments")]
    )
    [evaluation] = made.get_asset_check_evaluations()
    assert evaluation.check_name == "decisions_can_be_proved"
    assert made.success
    return evaluation


def test_log_of_a_router_can_be_proved(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    proven = proof(definitions, instance)
    assert (proven.passed, proven.description) == (True, "80 decisions re-derived, each as it was logged")
    assert proven.metadata["checked_decisions"].value == 80
    assert proven.metadata["checked_outcomes"].value == 40
    assert proven.metadata["failures"].value == 0
    assert proven.metadata["first_failures"].value == ""


@pytest.mark.parametrize(
    ("table", "changes", "words"),
    [
        (schema.decisions, {"unit": unit(1)}, "decisions {id}: arm"),
        (schema.decisions, {"propensity": 0.75}, "decisions {id}: propensity: expected 0.5, found 0.75"),
        (schema.outcomes, {"value": 0.5}, "statistics"),
    ],
)
def test_one_altered_row_fails_the_proof_and_stops_nothing(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    engine: Engine,
    table: Table,
    changes: dict[str, Any],
    words: str,
) -> None:
    altered = decision_id(moment(FIRST, 0), 0)
    with engine.begin() as connection:
        connection.execute(update(table).where(next(iter(table.primary_key)) == altered).values(changes))
    disproved = proof(definitions, instance)
    assert (disproved.passed, disproved.blocking) == (False, False)
    assert disproved.severity == dg.AssetCheckSeverity.ERROR
    # What was derived from the row before it was altered contradicts it, too.
    assert int(str(disproved.metadata["failures"].value)) >= 1
    assert words.format(id=encode(altered)) in str(disproved.metadata["first_failures"].value)
    assert " failures among 80 decisions and what follows from them; " in str(disproved.description)
    materialize(definitions, instance, EXPORT, partitions={FIRST, SECOND})
    materialize(definitions, instance, dg.AssetSelection.assets("race_result"))


def test_forged_decision_fails_the_proof(
    definitions: dg.Definitions, instance: dg.DagsterInstance, engine: Engine
) -> None:
    forged = decision(moment(SECOND, 9), 500)
    add(engine, schema.decisions, forged | {"id": forged["id"][:-1] + b"\0"})
    disproved = proof(definitions, instance)
    assert not disproved.passed
    assert "signature: expected one of our secrets, found none of them" in str(disproved.description)


def test_nothing_is_proved_without_the_signing_secret(
    settings: Settings, definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    unknowing = Ledger(msgspec.structs.replace(settings, secret=None))
    unproved = proof(
        dg.Definitions(
            assets=[logs.LEDGER, logs.logged_experiments],
            asset_checks=[logs.decisions_can_be_proved],
            resources={"lake": lake, "ledger": unknowing},
        ),
        instance,
    )
    assert (unproved.passed, unproved.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(unproved.description).startswith("nothing was proved: ")
    with pytest.raises(CannotStart, match="TURNOUT_SECRET"):
        unknowing.verify()


def test_ledger_days_reach_from_first_to_last_decision(settings: Settings, engine: Engine) -> None:
    assert Ledger(settings).days() == [date(2026, 3, 1), date(2026, 3, 2)]


def test_empty_ledger_has_no_days(settings: Settings) -> None:
    engine = open_database(settings.database)
    upgrade(engine)
    engine.dispose()
    assert Ledger(settings).days() == []


def test_ledger_of_an_older_version_says_what_to_do(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '0001'"))
    with pytest.raises(LedgerUnavailable, match=r"is at revision 0001, .* upgrade it with `turnout db upgrade`"):
        Ledger(settings).control()


def test_missing_ledger_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=f"there is no ledger at {tmp_path}/none.db"):
        Ledger(Settings(database=f"sqlite:///{tmp_path}/none.db")).control()
    assert not (tmp_path / "none.db").exists()


def test_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerUnavailable, match=f"{tmp_path}/bad.db"):
        Ledger(Settings(database=f"sqlite:///{tmp_path}/bad.db")).control()


def test_ledger_that_does_not_answer_is_named_without_its_password() -> None:
    away = Ledger(Settings(database="postgresql://me:hidden@127.0.0.1:1/db"))
    with pytest.raises(
        LedgerUnavailable, match=r"ledger postgresql://me:\*\*\*@127.0.0.1:1/db cannot be read"
    ) as caught:
        away.days()
    assert "hidden" not in "".join(traceback.format_exception(caught.value))
