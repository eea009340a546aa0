"""From a result to what it rests on, and from a dataset to what rests on it."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from models import Registry, publish
from models.manifest import DatasetVersion
from orchestration.endpoints import flight_delay
from orchestration.lake import Lake
from orchestration.lineage import lineage_asset, metadata_of
from orchestration.results import result_asset
from tests.analysis.ledgers import START_MS, Ledger
from tests.metrics import BRIER

TRAIN, VALIDATION = flight_delay.ENDPOINT.data.train.name, flight_delay.ENDPOINT.data.validation.name
MODEL = "flight-delay-boosting"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported logs of two experiments with the same arms, of which the registry knows one model."""
    root = tmp_path_factory.mktemp("lake")
    ledger = Ledger()
    for name in ("boosting-vs-logistic", "boosting-vs-logistic-2"):
        experiment = ledger.add_experiment([BRIER], name=name, state="running")
        for number in range(40):
            key = ledger.decide(experiment, number % 2, f"{name} {number}", START_MS + number)
            ledger.observe(key, "late", float(number % 3 == 0), label=True)
    ledger.write_lake(root)
    rows = pd.DataFrame({"distance": np.arange(20.0)})
    publish(
        LogisticRegression().fit(rows, np.arange(20) > 9),
        rows,
        name=MODEL,
        registry=Registry(root / "registry"),
        datasets={TRAIN: DatasetVersion(3, "0123456789abcdef"), VALIDATION: DatasetVersion(1, "f" * 64)},
        code_version="c0de",
    )
    return root


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def resources(root: Path) -> dict[str, object]:
    return {"lake": Lake(root), "registry": Registry(root / "registry")}


def test_result_names_and_links_what_its_arms_rest_on(site: Path, instance: dg.DagsterInstance) -> None:
    asset = result_asset("flight-delay", "boosting-vs-logistic", {TRAIN, "flight_delay_boosting"})
    made = dg.materialize([asset], instance=instance, resources=resources(site))
    (event,) = made.asset_materializations_for_node("boosting_vs_logistic_result")
    table = str(event.metadata["rests_on"].value)
    assert f"| boosting | {MODEL}@1 | c0de | {TRAIN} | 3 | 0123456789ab |" in table
    assert f"| boosting | {MODEL}@1 | c0de | {VALIDATION} | 1 | ffffffffffff |" in table
    assert "| control | flight-delay-control@1 | not in this registry |" in table
    links = {name: value.value for name, value in event.metadata.items() if name.startswith("asset ")}
    assert links == {
        f"asset {TRAIN}": dg.AssetKey(TRAIN),
        "asset flight_delay_boosting": dg.AssetKey("flight_delay_boosting"),
    }


def test_one_model_of_two_arms_stands_once(site: Path) -> None:
    found = metadata_of(Registry(site / "registry"), [("a", f"{MODEL}@1"), ("b", f"{MODEL}@1")], ())
    assert str(found["rests_on"].value).count("| a, b |") == 2


def test_dataset_is_told_which_experiments_used_it(site: Path, instance: dg.DagsterInstance) -> None:
    made = dg.materialize([lineage_asset([flight_delay.ENDPOINT])], instance=instance, resources=resources(site))
    rows = Lake(site).read("lineage")
    mine = rows[rows["dataset"] == TRAIN]
    assert list(mine["experiment"]) == ["boosting-vs-logistic", "boosting-vs-logistic-2"]
    assert set(mine["model"]) == {f"{MODEL}@1"}
    assert set(mine["dataset_version"]) == {3}
    told = {each.asset_key.to_user_string(): each for each in made.asset_observations_for_node("lineage")}
    assert told.keys() == {TRAIN, VALIDATION}
    assert told[TRAIN].description == "2 experiments, 1 model versions"
    assert "| boosting-vs-logistic-2 | boosting | running |" in str(told[TRAIN].metadata["used_by"].value)
