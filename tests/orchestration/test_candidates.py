"""Candidates trained on part of January: the way from a table to a registered model, and what bars it.

Rows are dealt in turn to both periods, so that a few days of bad weather do not decide whether a candidate has skill.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from models import ModelReference, Registry, load
from models.evaluation import scores
from models.recipe import Recipe, boosting, logistic
from orchestration.candidates.names import Candidate
from orchestration.candidates.training import code_of
from orchestration.endpoints import flight_delay
from orchestration.endpoints.assets import candidate_definitions
from orchestration.flights import cleaning, source
from orchestration.flights.datasets import FEATURES
from orchestration.lake import Lake
from orchestration.staleness import materialize_stale

JANUARY = "2013-01-01"
LOGISTIC, BOOSTING = logistic(), boosting(iterations=5)
ENDPOINT = flight_delay.ENDPOINT
MODEL = "flight-delay-logistic"


class Site:
    """A lake with training and validation tables, both registries, and an instance that remembers."""

    def __init__(self, root: Path, instance: dg.DagsterInstance):
        self.lake = Lake(root / "lake")
        self.staging, self.registry = Registry(root / "staging"), Registry(root / "registry")
        self.instance = instance

    def definitions(self, recipes: Sequence[Recipe]) -> dg.Definitions:
        resources = {"lake": self.lake, "staging": self.staging, "registry": self.registry}
        made = candidate_definitions(ENDPOINT._replace(recipes=tuple(recipes)))
        return dg.Definitions.merge(made, dg.Definitions(resources=resources))

    def refresh(self, *recipes: Recipe) -> list[str]:
        selection = dg.AssetSelection.groups("candidates")
        return materialize_stale(self.definitions(recipes), self.instance, selection)

    def run(self, recipe: Recipe, *names: str) -> dg.ExecuteInProcessResult:
        return (
            self.definitions([recipe])
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                instance=self.instance,
                asset_selection=[dg.AssetKey(name) for name in names],
                raise_on_error=False,
            )
        )

    def metadata(self, name: str) -> dict[str, object]:
        event = self.instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event is not None
        assert event.asset_materialization is not None
        return {key: value.value for key, value in event.asset_materialization.metadata.items()}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    built = next(dataset for dataset in ENDPOINT.data.datasets if dataset.name == "flight_features").build
    inputs = {
        "clean_flights": cleaning.clean_flights(source.flights(JANUARY), source.airports()).frame,
        "clean_weather": cleaning.clean_weather(source.weather(JANUARY)).frame,
        "raw_planes": source.planes(),
    }
    features = built(inputs, JANUARY).frame
    return features.dropna(subset=["late"])[list(ENDPOINT.data.train.columns)].iloc[::4].reset_index(drop=True)


def fill(site: Site, rows: pd.DataFrame) -> None:
    site.lake.write_if_changed(ENDPOINT.data.train.table, rows[_train(rows)])
    site.lake.write_if_changed(ENDPOINT.data.validation.table, rows[~_train(rows)])


def _train(rows: pd.DataFrame) -> np.ndarray:
    return np.arange(len(rows)) % 3 > 0


@pytest.fixture
def site(tmp_path: Path, rows: pd.DataFrame) -> Iterator[Site]:
    with dg.DagsterInstance.ephemeral() as instance:
        filled = Site(tmp_path, instance)
        fill(filled, rows)
        yield filled


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, rows: pd.DataFrame) -> Iterator[Site]:
    """A site where both recipes were trained and registered."""
    with dg.DagsterInstance.ephemeral() as instance:
        filled = Site(tmp_path_factory.mktemp("site"), instance)
        fill(filled, rows)
        filled.refresh(LOGISTIC, BOOSTING)
        yield filled


def test_candidates_are_registered_and_can_be_served(trained: Site) -> None:
    assert [str(reference) for reference in trained.registry.references()] == [
        "flight-delay-boosting@1",
        "flight-delay-logistic@1",
    ]
    for reference in trained.registry.references():
        assert load(trained.registry, reference).manifest.runtime == "onnx"


def test_signature_is_the_declaration(trained: Site) -> None:
    signatures = [trained.registry.manifest(reference).signature for reference in trained.registry.references()]
    assert [feature.name for feature in signatures[0].features] == list(FEATURES)
    assert signatures[0] == signatures[1]


def test_manifest_names_the_datasets_and_the_code(trained: Site) -> None:
    manifest = trained.registry.manifest(ModelReference(MODEL, 1))
    for period in (ENDPOINT.data.train, ENDPOINT.data.validation):
        found = manifest.datasets[period.name]
        assert (found.version, found.content_hash) == trained.lake.version(period.table)
    assert manifest.code_version == code_of(Candidate(ENDPOINT, LOGISTIC))
    assert manifest.params == dict(LOGISTIC.params)


def test_metrics_are_those_of_the_stored_predictions(trained: Site) -> None:
    stored = trained.lake.read("candidates/flight_delay_logistic")
    assert len(stored) == len(trained.lake.read(ENDPOINT.data.validation.table))
    expected = scores(stored["late"].to_numpy(), stored["prediction"].to_numpy())
    metrics = trained.registry.manifest(ModelReference(MODEL, 1)).metrics
    assert {name: metric.value for name, metric in metrics.items()} == pytest.approx(expected)
    for metric in metrics.values():
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low < metric.value < metric.high


def test_registered_files_are_those_that_were_checked(trained: Site) -> None:
    reference = ModelReference(MODEL, 1)
    assert trained.registry.manifest(reference).files == trained.staging.manifest(reference).files


def test_metadata_shows_quality_reliability_and_parity(trained: Site) -> None:
    metadata = trained.metadata("flight_delay_logistic_candidate")
    assert "| log_loss |" in str(metadata["quality"])
    assert str(metadata["reliability"]).startswith(f"![Reliability of {MODEL}](data:image/png;base64,iVBOR")
    assert metadata["runtime"] == "onnx, float32"
    assert trained.metadata("flight_delay_logistic")["model"] == f"{MODEL}@1"


def test_unchanged_rerun_trains_and_publishes_nothing(trained: Site) -> None:
    assert trained.refresh(LOGISTIC, BOOSTING) == []
    assert len(trained.registry.references()) == 2


def test_code_version_is_of_the_one_recipe() -> None:
    changed = logistic(inverse_penalty=0.5)
    assert code_of(Candidate(ENDPOINT, changed)) != code_of(Candidate(ENDPOINT, LOGISTIC))
    assert code_of(Candidate(ENDPOINT._replace(recipes=(changed,)), BOOSTING)) == code_of(Candidate(ENDPOINT, BOOSTING))


def test_code_version_is_of_the_code_that_was_loaded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source file that is edited during a run must not be recorded as the code that ran."""
    definitions, loaded = site.definitions([LOGISTIC]), code_of(Candidate(ENDPOINT, LOGISTIC))
    monkeypatch.setattr("orchestration.candidates.training.installed_version", lambda _: "edited since")
    assert code_of(Candidate(ENDPOINT, LOGISTIC)) != loaded
    materialize_stale(definitions, site.instance, dg.AssetSelection.groups("candidates"))
    assert site.registry.manifest(ModelReference(MODEL, 1)).code_version == loaded


def test_changed_recipe_retrains_only_its_candidate(site: Site) -> None:
    site.refresh(LOGISTIC, BOOSTING)
    made = site.refresh(logistic(inverse_penalty=0.5), BOOSTING)
    assert made == ["flight_delay_logistic_candidate", "flight_delay_logistic"]
    assert site.registry.versions(MODEL) == (1, 2)
    assert site.registry.versions("flight-delay-boosting") == (1,)


def misled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, with every label of the training period turned round."""
    return rows.assign(late=rows["late"].where(~_train(rows), 1 - rows["late"]))


def test_candidate_without_skill_is_not_registered(site: Site, rows: pd.DataFrame) -> None:
    fill(site, misled(rows))
    result = site.run(LOGISTIC, "flight_delay_logistic_candidate", "flight_delay_logistic")
    assert not result.success
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks == {"parity": True, "skill": False}
    assert not site.registry.root.exists()


def test_candidate_that_serves_something_else_is_not_registered(site: Site) -> None:
    """Another table of predictions stands for an export that does not predict what was judged."""
    assert site.run(LOGISTIC, "flight_delay_logistic_candidate").success
    judged = site.lake.read("candidates/flight_delay_logistic")
    judged["prediction"] += 0.001
    site.lake.write_if_changed("candidates/flight_delay_logistic", judged)
    checks = site.definitions([LOGISTIC]).resolve_implicit_global_asset_job_def()
    parity = dg.AssetCheckKey(dg.AssetKey("flight_delay_logistic_candidate"), "parity")
    only_parity = checks.get_subset(asset_check_selection={parity}, asset_selection=set())
    result = only_parity.execute_in_process(instance=site.instance, raise_on_error=False)
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.description == "largest difference 1.0e-03, 1e-04 is allowed"


def test_failed_candidate_cannot_be_registered_by_a_later_run(site: Site, rows: pd.DataFrame) -> None:
    fill(site, misled(rows))
    assert not site.run(LOGISTIC, "flight_delay_logistic_candidate").success
    result = site.run(LOGISTIC, "flight_delay_logistic")
    failure = result.failure_data_for_node("flight_delay_logistic")
    assert failure is not None
    assert failure.error is not None
    assert failure.error.cause is not None
    assert "its checks skill have not passed" in failure.error.cause.message
    assert not site.registry.root.exists()
