"""Drift of an endpoint: what live traffic is compared with, and what is said of it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from models import Registry, load, publish
from models.frame import encode_frame
from models.manifest import DatasetVersion, Metric
from orchestration.datasets.declaration import Period
from orchestration.drift.assets import drift_asset
from orchestration.drift.quality import quality_asset
from orchestration.endpoints import flight_delay
from orchestration.endpoints.declaration import DriftWindow, Endpoint
from orchestration.errors import TableMissing
from orchestration.lake import Lake
from orchestration.rollouts.router import Router
from router.settings import Settings
from tests.analysis.ledgers import DAY_MS, START_MS, Ledger
from tests.metrics import BRIER

FEATURES = ("distance", "wind")
ENDPOINT = flight_delay.ENDPOINT._replace(features=FEATURES, experiments=(), rollout=None)
MODEL = "flight-delay-logistic"
NOWHERE = Router(Settings(port=9))


def rows(count: int, seed: int, wind: float = 0.0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    drawn = pd.DataFrame({name: generator.normal(size=count) for name in FEATURES})
    drawn["wind"] += wind
    return drawn.assign(late=(generator.uniform(size=count) < 0.3).astype(float))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the champion's datasets, of which the training one has changed since, and a registry."""
    root = tmp_path_factory.mktemp("site")
    lake, data = Lake(root), ENDPOINT.data
    train = rows(3000, seed=1)
    versions = {
        data.train.name: lake.write_if_changed(data.train.table, train),
        data.validation.name: lake.write_if_changed(data.validation.table, rows(3000, seed=2)),
    }
    estimator = LogisticRegression().fit(train[list(FEATURES)], train["distance"] + train["wind"] > 0)
    publish(
        estimator,
        train[list(FEATURES)],
        name=MODEL,
        registry=Registry(root / "registry"),
        datasets={name: DatasetVersion(*version) for name, version in versions.items()},
        metrics={"log_loss": Metric(6.2, 5.0, 7.0, 0.95), "brier": Metric(0.2, 0.1, 0.3, 0.95)},
    )
    lake.write_if_changed(data.train.table, rows(3000, seed=3, wind=5.0))
    return root


def log(root: Path, *, wind: float = 0.0, days: int = 1, labels: float = 0.3) -> None:
    """Traffic whose wind is stronger on the last day alone."""
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER])
    generator = np.random.default_rng(4)
    for day in range(days):
        drawn = rows(800, seed=day + 10, wind=wind if day == days - 1 else 9.0)
        served = predictions(root, drawn)
        for number, (row, value) in enumerate(zip(drawn.to_dict("records"), served, strict=True)):
            at_ms = START_MS + day * DAY_MS + number
            key = ledger.decide(experiment, number % 2, f"u{day}-{number}", at_ms, predictions=[float(value)])
            inputs = json.dumps([{name: row[name] for name in FEATURES}])
            ledger.decisions[-1].update(inputs=inputs, served_model=f"{MODEL}@1")
            # As of decisions outside experiments, whose labels are stored without the prediction.
            ledger.observe(key, "late", float(generator.uniform() < labels), label=False)
    shutil.rmtree(root / "logs", ignore_errors=True)
    ledger.write_lake(root)


def predictions(root: Path, drawn: pd.DataFrame) -> np.ndarray:
    registry = Registry(root / "registry")
    model = load(registry, registry.latest(MODEL))
    return model.predict(encode_frame(drawn, model.signature))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def materialized(root: Path, instance: dg.DagsterInstance, endpoint: Endpoint = ENDPOINT) -> tuple[dict[str, Any], Any]:
    resources = {"lake": Lake(root), "registry": Registry(root / "registry"), "router": NOWHERE}
    result = dg.materialize([drift_asset(endpoint)], instance=instance, resources=resources)
    (event,) = result.asset_materializations_for_node("flight_delay_drift")
    (check,) = result.get_asset_check_evaluations()
    return {name: value.value for name, value in event.metadata.items()}, check


def test_the_same_traffic_is_not_drift_though_the_dataset_moved_on(site: Path, instance: dg.DagsterInstance) -> None:
    log(site)
    metadata, check = materialized(site, instance)
    assert check.passed
    assert metadata["found"].startswith("none of 4 drifted: ")
    assert metadata["reference"] == f"{ENDPOINT.data.train.name} version 0"
    assert (metadata["reference_rows"], metadata["live_units"]) == (3000, 800)
    assert metadata["indices"].startswith("![Drift](data:image/png;base64,iVBOR")


def test_features_predictions_and_labels_that_drifted_are_named(site: Path, instance: dg.DagsterInstance) -> None:
    log(site, wind=1.0, labels=0.7)
    metadata, check = materialized(site, instance)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert set(check.metadata["drifted"].value) == {"wind", "prediction", "late"}
    assert metadata["found"].startswith("3 of 4 drifted: ")
    stored = Lake(site).read("drift/flight_delay").set_index("feature")
    assert stored["drifted"].to_dict() == {"wind": True, "prediction": True, "late": True, "distance": False}


def test_only_the_newest_days_count(site: Path, instance: dg.DagsterInstance) -> None:
    log(site, days=2)
    assert materialized(site, instance, ENDPOINT._replace(drift=DriftWindow(days=1)))[1].passed
    assert not materialized(site, instance)[1].passed


def test_nothing_to_compare_is_said(site: Path, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    metadata, check = materialized(tmp_path, instance)
    assert check.passed
    assert metadata == {"found": "not enough evidence: flight-delay has no champion yet that learned from anything"}
    log(site, days=0)
    with pytest.raises(TableMissing, match="no day with decisions was exported yet: materialize the logs"):
        materialized(site, instance)


@pytest.mark.parametrize("period", ENDPOINT.data.periods[:2], ids=lambda period: period.name)
def test_table_that_was_made_anew_is_not_what_the_champion_learned_from(
    site: Path, instance: dg.DagsterInstance, tmp_path: Path, period: Period
) -> None:
    log(site)
    root = shutil.copytree(site, tmp_path / "copy")
    shutil.rmtree(root / period.table)
    assert Lake(root).write_if_changed(period.table, rows(3000, seed=5)).number == 0
    gone = f"version 0 of table {period.table} holds other rows than those with the content hash [0-9a-f]{{64}}, which"
    with pytest.raises(TableMissing, match=gone):
        materialized(root, instance)


def quality(
    root: Path, instance: dg.DagsterInstance, score: Literal["log_loss", "brier", "roc_auc"] = "log_loss"
) -> tuple[dict[str, Any], Any]:
    resources = {"lake": Lake(root), "registry": Registry(root / "registry"), "router": NOWHERE}
    asset = quality_asset(ENDPOINT._replace(score=score))
    result = dg.materialize([asset], instance=instance, resources=resources)
    (event,) = result.asset_materializations_for_node("flight_delay_live_quality")
    (check,) = result.get_asset_check_evaluations()
    return {name: value.value for name, value in event.metadata.items()}, check


def test_live_quality_beside_that_of_validation(site: Path, instance: dg.DagsterInstance) -> None:
    log(site, labels=0.3)
    metadata, check = quality(site, instance)
    assert check.passed
    assert f"log_loss of {MODEL}@1 is " in metadata["found"]
    assert metadata["scores"].count("\n") == 4
    metadata, check = quality(site, instance, "brier")
    assert not check.passed
    assert metadata["found"].startswith(f"decayed: brier of {MODEL}@1 is ")
    metadata, check = quality(site, instance, "roc_auc")
    assert check.passed
    assert metadata["found"] == f"not enough evidence: {MODEL}@1 has no interval for roc_auc of its validation"


def test_quality_without_labels_is_unknown(site: Path, instance: dg.DagsterInstance) -> None:
    log(site, labels=0.0)
    metadata, check = quality(site, instance)
    assert (check.passed, metadata["found"]) == (True, "not enough evidence: scores need rows of both labels, 0 and 1")


def test_version_that_is_gone_is_said_to_be(site: Path) -> None:
    with pytest.raises(TableMissing, match="has no version 99 any more"):
        Lake(site).read_version(ENDPOINT.data.train.table, 99)
