"""The same report from every engine: SQLite and PostgreSQL ledgers, and a lake read by DuckDB and by Spark."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest

from analysis import spark
from analysis.errors import AnalysisError, SourceNotFound, UnreadableSource
from analysis.queries import score_expression
from analysis.report import Report, load
from analysis.schema import TABLES
from analysis.source import open_source
from analysis.statistics.scores import SCORES
from tests.analysis.ledgers import DAY_MS, START_MS, Ledger, everything, flights, forget_versions
from tests.databases import database, require

NAME = "boosting-vs-logistic"
NOW_MS = START_MS + int(1.2 * DAY_MS)

# Spark's client leaves it to the collector to close what results came through.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

# Queries of tests are small: to compile them well takes longer than to run them.
_SETTINGS = """
spark.master local[1]
spark.driver.extraJavaOptions -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
spark.sql.shuffle.partitions 1
spark.sql.adaptive.enabled false
spark.sql.autoBroadcastJoinThreshold -1
spark.sql.codegen.wholeStage false
spark.sql.codegen.factoryMode NO_CODEGEN
"""


# Stands first, as no Java is looked for when one runs.
def test_spark_without_java_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = flights(20).write_lake(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(SourceNotFound, match=r"^Spark needs Java: there is no `java` on the PATH; install a Java of"):
        load(NAME, f"spark:{lake}")
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(SourceNotFound, match=r"there is none in JAVA_HOME \(/nowhere\)"):
        load(NAME, f"spark:{lake}")


def _ledger() -> Ledger:
    """Every case at once, with contexts that are hard to read and with a shadow."""
    ledger = everything(only=("brier", "log_loss", "click", "basket", "prompt-ratio"))
    carriers = ("UA", 'say "hi" é', "back\\slash", None)
    for number, row in enumerate(ledger.decisions):
        carrier = carriers[int(row["unit"].rpartition("-")[2]) % len(carriers)]
        row["context"] = json.dumps({"hour": number % 24, "car.rier": carrier}, ensure_ascii=False)
        if number % 3 == 0 and row["experiment_id"] == 1:
            answered = {"predictions": row["predictions"].replace("0.", "0.1"), "error": None}
            failed = {"predictions": None, "error": "RuntimeError"}
            ledger.shadow_predictions.append(
                {"decision_id": row["id"], "model": "shadow@1", "latency_ms": 1.5 + number, "recorded_ms": NOW_MS}
                | (answered if number % 7 else failed)
            )
    return ledger


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same content as a ledger and as a lake; a folder's name may have a space."""
    folder, ledger = tmp_path_factory.mktemp("of all"), _ledger()
    lake = ledger.write_lake(folder / "lake")
    return {"sqlite": ledger.write_sqlite(folder / "turnout.db"), "duckdb": str(lake), "spark": f"spark:{lake}"}


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same content as a ledger in PostgreSQL."""
    with database("postgresql", tmp_path_factory.mktemp("unused")) as url:
        yield _ledger().write(url)


@pytest.fixture(scope="module")
def running_spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is needed for Spark, which is started by who reads first and stopped here."""
    require("java", spark.java_problem())
    folder = tmp_path_factory.mktemp("spark")
    (folder / "spark-defaults.conf").write_text(_SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_CONF_DIR", str(folder))
        yield
    from pyspark.sql import SparkSession

    if session := SparkSession.getActiveSession():
        session.stop()


def _contents(report: Report, *without: str) -> dict[str, Any]:
    """Everything that a report's public methods return, by their names, or why they do not."""
    found: dict[str, Any] = {"notes": report.notes}
    for name, method in inspect.getmembers(Report, inspect.isfunction):
        if not name.startswith("_") and name not in (*_PARTS, *without):
            try:
                found[name] = method(report, **_ARGUMENTS.get(name, {}))
            except AnalysisError as error:
                found[name] = str(error)
    return found


_ARGUMENTS: Mapping[str, dict[str, Any]] = {
    "certificate": {"runs": 3},
    "off_policy": {"policy": {"boosting": 1.0}},
    "segments": {"field": "car.rier"},
}

_PARTS = {"looks", "waiting"}
"""What others of them contain."""


def _check(found: Any, expected: Any, place: str) -> None:
    """Compare numbers to 1e-9, wherever they are."""
    match expected:
        case pd.DataFrame():
            pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-12, check_exact=False, obj=place)
        case np.ndarray():
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=place)
        case float():
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True), place
        case Mapping():
            assert found.keys() == expected.keys(), place
            for key, value in expected.items():
                _check(found[key], value, f"{place} {key}")
        case tuple():
            assert len(found) == len(expected), place
            names = getattr(expected, "_fields", range(len(expected)))
            for name, *values in zip(names, found, expected, strict=True):
                _check(values[0], values[1], f"{place} {name}")
        case _:
            assert found == expected, place


@pytest.fixture(scope="module")
def expected(addresses: dict[str, str]) -> Callable[[str], dict[str, Any]]:
    """Returns what the SQLite ledger says of an experiment."""

    @cache
    def contents(name: str) -> dict[str, Any]:
        return _contents(load(name, addresses["sqlite"], now_ms=NOW_MS))

    return contents


Expected = Callable[[str], dict[str, Any]]


def test_there_is_much_to_compare(expected: Expected) -> None:
    contents = expected(NAME)
    assert {
        "summary",
        "contrast",
        "drift",
        "hindsight",
        "notes",
        "off_policy",
        "posteriors",
        "shadow",
    } < contents.keys()
    refused = {name for name, content in contents.items() if isinstance(content, str)}
    assert refused == {"adjusted", "fixed_horizon", "interleaving", "pairs", "segments"}
    assert not isinstance(expected("other")["segments"], str)


@pytest.mark.parametrize("name", [NAME, "other", "empty"])
def test_duckdb_gives_the_same_report(addresses: dict[str, str], expected: Expected, name: str) -> None:
    _check(_contents(load(name, addresses["duckdb"], now_ms=NOW_MS)), expected(name), name)


@pytest.mark.parametrize("name", [NAME, "other", "empty"])
def test_postgresql_gives_the_same_report(postgresql: str, expected: Expected, name: str) -> None:
    _check(_contents(load(name, postgresql, now_ms=NOW_MS)), expected(name), name)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("running_spark")
def test_spark_gives_the_same_report(addresses: dict[str, str], expected: Expected) -> None:
    # These read what others read too, by the longest queries.
    slow = ("adjusted", "certificate")
    reference = {name: content for name, content in expected("other").items() if name not in slow}
    _check(_contents(load("other", addresses["spark"], now_ms=NOW_MS), *slow), reference, "other")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("running_spark")
def test_spark_gives_the_same_summary_whatever_the_metric(addresses: dict[str, str]) -> None:
    # A query takes Spark as long as a whole report takes others: two metrics of those that `other` has not.
    ledger, lake = (
        _of_metrics(load(NAME, addresses[engine], now_ms=NOW_MS), "click", "prompt-ratio")
        for engine in ("sqlite", "spark")
    )
    _check(lake.summary(), ledger.summary(), "summary")
    _check(lake.srm(), ledger.srm(), "srm")
    _check(lake.shadow(), ledger.shadow(), "shadow")


def _of_metrics(report: Report, *names: str) -> Report:
    metrics = tuple(report.experiment.metric(name) for name in names)
    experiment = report.experiment._replace(metrics=metrics)
    return Report(report._source, experiment, alpha=report.alpha, now_ms=report.now_ms)


@pytest.mark.usefixtures("running_spark")
def test_spark_gives_the_same_scores(addresses: dict[str, str]) -> None:
    found = []
    for engine in ("duckdb", "spark"):
        opened = open_source(addresses[engine])
        labels = opened.tables["outcomes"].filter(ibis._.prediction.notnull(), ibis._.value.notnull())
        scores = {name: score_expression(name, labels["prediction"], labels["value"]) for name in SCORES}
        rows = opened.rows(labels.aggregate(**{name: score.sum() for name, score in scores.items()}))
        found.append(rows[0])
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert found[0].keys() == SCORES.keys()


@pytest.mark.usefixtures("running_spark")
def test_spark_has_the_same_tables(tmp_path: Path) -> None:
    ledger = flights(20)
    forget_versions(ledger.write_lake(tmp_path))
    of_duckdb, of_spark = open_source(tmp_path), open_source(f"spark:{tmp_path}")
    for name in TABLES:
        assert of_spark.tables[name].schema() == of_duckdb.tables[name].schema()
        rows = [sorted(map(str, opened.rows(opened.tables[name]))) for opened in (of_duckdb, of_spark)]
        assert rows[0] == rows[1]
        assert len(rows[0]) == len(getattr(ledger, name))


@pytest.mark.usefixtures("running_spark")
def test_sources_in_spark_leave_the_active_session_and_each_other_alone(tmp_path: Path) -> None:
    many, few = (open_source(f"spark:{flights(n).write_lake(tmp_path / str(n))}") for n in (40, 20))
    from pyspark.sql import SparkSession

    active = SparkSession.active()
    assert not active.catalog.listTables()
    assert active.conf.get("spark.sql.ansi.enabled") == "true"
    assert [len(opened.rows(opened.tables["arms"])) for opened in (many, few)] == [2, 2]
    assert [opened.rows(opened.tables["decisions"].count().as_table()) for opened in (many, few)] == [
        [{"CountStar()": 40}],
        [{"CountStar()": 20}],
    ]


@pytest.mark.usefixtures("running_spark")
def test_what_spark_cannot_read_is_a_clear_error(tmp_path: Path) -> None:
    lake = flights(20).write_lake(tmp_path)
    opened = open_source(f"spark:{lake}")
    next((lake / "logs" / "decisions").rglob("*.parquet")).write_bytes(b"garbage" * 50)
    with pytest.raises(
        UnreadableSource, match=r"lake .*logs in Spark cannot be read \(.*export the logs again"
    ) as said:
        opened.rows(opened.tables["decisions"])
    assert "\n" not in str(said.value)
