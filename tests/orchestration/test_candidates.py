"""Candidates trained on part of January: the way from a table to a registered model, and what bars it.

Rows are dealt in turn to both periods, so that a few days of bad weather do not decide whether a candidate has skill.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from sklearn.linear_model import LogisticRegression

from models import ModelReference, Registry, load, publish
from models.evaluation import scores
from models.recipe import Recipe, boosting, logistic
from models.training import fit
from orchestration.candidates.champion import champion_of
from orchestration.candidates.checks import BEFORE_ROLLOUT, blocking, candidate_checks
from orchestration.candidates.names import Candidate
from orchestration.candidates.training import code_of
from orchestration.endpoints import flight_delay
from orchestration.endpoints.assets import candidate_definitions
from orchestration.endpoints.declaration import Endpoint
from orchestration.flights import cleaning, source
from orchestration.flights.datasets import FEATURES, ON_TIME
from orchestration.lake import Lake
from orchestration.rollouts.router import Router
from orchestration.staleness import materialize_stale
from router.settings import Settings
from tests.router.small_models import WholeModel, add_model

JANUARY = "2013-01-01"
LOGISTIC, BOOSTING = logistic(), boosting(iterations=5)
ENDPOINT = flight_delay.ENDPOINT
MODEL = "flight-delay-logistic"
NOWHERE = Router(Settings(port=9))
"""No router answers there."""


class Site:
    """A lake with training and validation tables, both registries, and an instance that remembers."""

    def __init__(self, root: Path, instance: dg.DagsterInstance):
        self.lake = Lake(root / "lake")
        self.staging, self.registry = Registry(root / "staging"), Registry(root / "registry")
        self.instance = instance
        self.endpoint = ENDPOINT

    def definitions(self, recipes: Sequence[Recipe]) -> dg.Definitions:
        resources = {"lake": self.lake, "staging": self.staging, "registry": self.registry, "router": NOWHERE}
        made = candidate_definitions(self.endpoint._replace(recipes=tuple(recipes)))
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


def test_periods_that_are_cut_anew_meanwhile_do_not_count(
    site: Site, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest names the rows that the model has seen, and the checks go by those."""
    site.refresh(LOGISTIC)
    seen = {period.name: site.lake.version(period.table) for period in ENDPOINT.data.periods[:2]}

    def fitted(*arguments: Any) -> Any:
        fill(site, rows.iloc[::2])
        return fit(*arguments)

    monkeypatch.setattr("orchestration.candidates.training.fit", fitted)
    assert site.refresh(LOGISTIC, BOOSTING) == ["flight_delay_boosting_candidate", "flight_delay_boosting"]
    manifest = site.registry.manifest(ModelReference("flight-delay-boosting", 1))
    assert {name: (found.version, found.content_hash) for name, found in manifest.datasets.items()} == seen
    assert site.lake.version(ENDPOINT.data.train.table) != seen[ENDPOINT.data.train.name]
    fill(site, misled(rows))
    for name in BEFORE_ROLLOUT:
        assert check(site, ENDPOINT, BOOSTING, name).passed, name
    rate = rows[_train(rows)]["late"].mean()
    assert f"predicting {rate:.1%} for every row" in str(check(site, ENDPOINT, BOOSTING, "skill").description)


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


def test_the_same_candidate_again_is_no_new_version(site: Site) -> None:
    for _ in range(2):
        assert site.run(LOGISTIC, "flight_delay_logistic_candidate", "flight_delay_logistic").success
    assert site.staging.versions(MODEL) == (1, 2)
    assert site.registry.versions(MODEL) == (1,)


def test_code_version_is_of_the_one_recipe() -> None:
    changed = logistic(inverse_penalty=0.5)
    assert code_of(Candidate(ENDPOINT, changed)) != code_of(Candidate(ENDPOINT, LOGISTIC))
    assert code_of(Candidate(ENDPOINT._replace(recipes=(changed,)), BOOSTING)) == code_of(Candidate(ENDPOINT, BOOSTING))


def nullable(endpoint: Endpoint, column: str) -> Endpoint:
    """The endpoint, where the schema of its features lets the column be missing."""
    datasets = tuple(
        each._replace(schema=each.schema.update_column(column, nullable=True))
        if each.name == endpoint.data.features_from
        else each
        for each in endpoint.data.datasets
    )
    return endpoint._replace(data=endpoint.data._replace(datasets=datasets))


CHANGED = {
    "label": ENDPOINT._replace(label=ON_TIME),
    "features": ENDPOINT._replace(features=FEATURES[:-1]),
    "nullability": nullable(ENDPOINT, "distance"),
    "cluster": ENDPOINT._replace(data=ENDPOINT.data._replace(cluster="weekday")),
}


@pytest.mark.parametrize("what", CHANGED)
def test_code_version_is_of_what_the_endpoint_declares(what: str) -> None:
    before, changed = (code_of(Candidate(endpoint, LOGISTIC)) for endpoint in (ENDPOINT, CHANGED[what]))
    assert changed != before
    same = nullable(ENDPOINT, "late")
    assert code_of(Candidate(same, LOGISTIC)) == before


@pytest.mark.parametrize("what", ["label", "nullability"])
def test_changed_declaration_is_trained_and_registered_as_a_new_version(site: Site, what: str) -> None:
    site.refresh(LOGISTIC)
    site.endpoint = CHANGED[what]
    assert site.refresh(LOGISTIC) == ["flight_delay_logistic_candidate", "flight_delay_logistic"]
    assert site.registry.versions(MODEL) == (1, 2)


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
    assert checks == {"parity": True, "skill": False, "latency": True, "not_worse_than_champion": True}
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


def check(site: Site, endpoint: Endpoint, recipe: Recipe, name: str) -> AssetCheckEvaluation:
    """What one check of a candidate that is trained already says."""
    (found,) = checked(site, endpoint, recipe, name).get_asset_check_evaluations()
    return found


def checked(
    site: Site, endpoint: Endpoint, recipe: Recipe, name: str, router: Router = NOWHERE
) -> dg.ExecuteInProcessResult:
    resources = {"lake": site.lake, "staging": site.staging, "registry": site.registry, "router": router}
    checks = candidate_checks(Candidate(endpoint, recipe))
    (only,) = (each for each in checks if next(iter(each.check_keys)).name == name)
    job = dg.Definitions(asset_checks=[only], resources=resources).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=site.instance, raise_on_error=False)


def test_candidate_is_compared_with_the_champion_on_the_same_rows(trained: Site) -> None:
    found = check(trained, ENDPOINT, BOOSTING, "not_worse_than_champion")
    metadata = {key: value.value for key, value in found.metadata.items()}
    validation = trained.lake.read(ENDPOINT.data.validation.table)
    assert metadata["champion"] == f"{MODEL}@1"
    assert (metadata["rows"], metadata["clusters"]) == (len(validation), validation["date"].nunique())
    of = {name: trained.registry.manifest(ModelReference(f"flight-delay-{name}", 1)).metrics["log_loss"] for name in
          ("boosting", "logistic")}  # fmt: skip
    difference = of["boosting"].value - of["logistic"].value
    assert f"differs from {MODEL}@1's by {difference:+.4f} (95 % interval " in str(found.description)
    assert str(metadata["differences"]).startswith("![Differences from flight-delay-logistic@1](data:image/png;")
    assert "| log_loss |" in str(metadata["scores"])


def test_a_worse_candidate_fails_and_only_bars_what_is_not_there_to_be_compared(trained: Site) -> None:
    champion = ENDPOINT._replace(champion="boosting", experiments=(), shadows=())
    poor = logistic(inverse_penalty=1e-6)
    candidate = Candidate(champion._replace(recipes=(poor, BOOSTING)), poor)
    rows = trained.lake.read(ENDPOINT.data.validation.table)
    rate = np.where(rows["late"] == 1, 0.2, 0.3)
    stored = trained.lake.read(candidate.predictions)
    trained.lake.write_if_changed(candidate.predictions, stored.assign(prediction=rate))
    found = check(trained, candidate.endpoint, poor, "not_worse_than_champion")
    trained.lake.write_if_changed(candidate.predictions, stored)
    assert not found.passed
    assert str(found.description).startswith("worse: log_loss differs from flight-delay-boosting@1's by +")
    assert "not_worse_than_champion" in blocking(candidate)
    assert "not_worse_than_champion" not in blocking(Candidate(ENDPOINT, LOGISTIC))


class Elsewhere(Router):
    """A router on which another version is champion."""

    def __init__(self, champion: ModelReference):
        super().__init__(Settings(port=9))
        self._champion = champion

    def champion(self, endpoint: str) -> str:
        return str(self._champion)


def against(
    trained: Site, folder: Path, champion: ModelReference, spoil: Callable[[Registry], object] = lambda _: None
) -> dg.ExecuteInProcessResult:
    """The comparison with a champion in a copy of the registry, in which something happened to it."""
    site = copy(trained)
    site.registry = Registry(shutil.copytree(trained.registry.root, folder / "registry"))
    spoil(site.registry)
    return checked(site, ENDPOINT, BOOSTING, "not_worse_than_champion", Elsewhere(champion))


def narrow(registry: Registry) -> None:
    """Publish the model `narrow`, whose only feature the flights do not have."""
    rows = pd.DataFrame({"moon": np.linspace(0.0, 1.0, 100)})
    publish(LogisticRegression().fit(rows, rows["moon"] > 0.3), rows, name="narrow", registry=registry)


def test_a_champion_of_other_features_bars_no_successor(trained: Site, tmp_path: Path) -> None:
    (found,) = against(trained, tmp_path, ModelReference("narrow", 1), narrow).get_asset_check_evaluations()
    assert found.passed
    assert found.description == "not enough evidence: the frame has no column 'moon'"


def test_a_champion_that_cannot_take_the_values_bars_no_successor(
    trained: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(registry: Registry, reference: ModelReference) -> WholeModel:
        return WholeModel(reference, registry.manifest(reference))

    monkeypatch.setattr("orchestration.candidates.checks.load", whole)
    rows = trained.lake.read(ENDPOINT.data.validation.table)
    assert (rows["distance"] % 1 == 0).all()
    monkeypatch.setattr(
        "orchestration.candidates.checks.rows_of", lambda *_: rows.assign(distance=rows["distance"] + 0.5)
    )
    (found,) = against(trained, tmp_path, ModelReference(MODEL, 1)).get_asset_check_evaluations()
    assert found.passed
    assert str(found.description).startswith("not enough evidence: feature 'distance' has a value")


def tamper(registry: Registry) -> None:
    (registry.path(ModelReference(MODEL, 1)) / "model.onnx").write_bytes(b"something else")


SPOILT: dict[str, tuple[ModelReference, Callable[[Registry], object]]] = {
    "TamperedModel": (ModelReference(MODEL, 1), tamper),
    "ModelNotFound": (ModelReference(MODEL, 9), lambda _: None),
}


@pytest.mark.parametrize("error", SPOILT)
def test_a_champion_that_cannot_be_asked_passes_nothing(trained: Site, tmp_path: Path, error: str) -> None:
    champion, spoil = SPOILT[error]
    result = against(trained, tmp_path, champion, spoil)
    assert result.get_asset_check_evaluations() == []
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert f"models.errors.{error}: " in str(failure.step_failure_data.error)


def test_what_the_champion_is_decides_the_router_and_without_it_the_declaration(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    assert champion_of(ENDPOINT, NOWHERE, registry) is None
    add_model(registry, MODEL)
    add_model(registry, MODEL)
    assert champion_of(ENDPOINT, NOWHERE, registry) == ModelReference(MODEL, 2)


def test_a_slow_model_exceeds_its_budget(trained: Site) -> None:
    assert check(trained, ENDPOINT, LOGISTIC, "latency").passed
    found = check(trained, ENDPOINT._replace(latency_ms=1e-6), LOGISTIC, "latency")
    assert not found.passed
    assert str(found.description).endswith("ms, 1e-06 ms are allowed")
