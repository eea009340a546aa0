"""The whole graph, pinned: what is in it, what hangs on what, and that it loads quietly."""

import subprocess
import sys

import dagster as dg
import pytest

from orchestration.automation.attributes import DATA_TAG, ENDPOINT_TAG
from orchestration.definitions import build
from orchestration.endpoints import flight_choice, flight_delay
from orchestration.endpoints.declaration import Retraining
from router.settings import Settings

GROUPS = {
    "datasets": {
        "raw_flights", "raw_weather", "raw_planes", "raw_airports", "clean_flights", "clean_weather",
        "flight_features", "flight_delay_train", "flight_delay_validation", "flight_delay_replay",
    },
    "candidates": {
        "flight_delay_base_rate", "flight_delay_base_rate_candidate",
        "flight_delay_logistic", "flight_delay_logistic_candidate",
        "flight_delay_boosting", "flight_delay_boosting_candidate",
        "flight_delay_forest", "flight_delay_forest_candidate",
        "flight_choice_base_rate", "flight_choice_base_rate_candidate",
        "flight_choice_boosting", "flight_choice_boosting_candidate",
    },
    "rollouts": {
        "flight_delay_base_rate_rollout", "flight_delay_logistic_rollout", "flight_delay_boosting_rollout",
        "flight_delay_forest_rollout", "flight_delay_rollouts",
        "flight_choice_base_rate_rollout", "flight_choice_boosting_rollout", "flight_choice_rollouts",
    },
    "logs": {"ledger", "logged_experiments", "logged_traffic"},
    "results": {
        "boosting_vs_logistic_result", "four_delay_models_result", "boosting_vs_base_rate_result",
        "flight_delay_drift", "flight_choice_drift", "flight_delay_live_quality", "flight_choice_live_quality",
        "flight_delay_labelling_queue", "lineage",
    },
}  # fmt: skip
CANDIDATE = {"parity", "skill", "latency", "not_worse_than_champion"}
CHECKS = {
    "clean_flights": {"schema"},
    "flight_features": {"schema", "leakage"},
    "flight_delay_train": {"row_key"},
    "flight_delay_validation": {"row_key"},
    **{f"flight_delay_{name}_candidate": CANDIDATE for name in ("base_rate", "logistic", "boosting", "forest")},
    **{f"flight_choice_{name}_candidate": CANDIDATE for name in ("base_rate", "boosting")},
    "logged_experiments": {"decisions_can_be_proved"},
    "flight_delay_drift": {"no_drift"},
    "flight_choice_drift": {"no_drift"},
    "flight_delay_live_quality": {"no_decay"},
    "flight_choice_live_quality": {"no_decay"},
}
REPORTED = {"decisions_can_be_proved", "no_drift", "no_decay", "not_worse_than_champion"}
"""Checks that block nothing: of what is there already, and of candidates that experiments name."""

SENSORS = {
    "automation",
    "ledger_export",
    "rollouts",
    "flight_delay_retraining_reasons",
    "flight_choice_retraining_reasons",
}
SCHEDULES = {"ledger_daily", "flight_choice_retraining_schedule"}
CHOICE = flight_choice.ENDPOINT._replace(owners=("team:travel",), retraining=Retraining(cron="0 4 * * 1"))
ENDPOINTS = (flight_delay.ENDPOINT, CHOICE)


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    root = tmp_path_factory.mktemp("var")
    settings = Settings(database=f"sqlite:///{root}/turnout.db", registry=root / "registry", lake=root / "lake")
    return build(settings, ENDPOINTS)


def test_graph_has_these_assets(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found: dict[str, set[str]] = {}
    for key in graph.get_all_asset_keys():
        found.setdefault(str(graph.get(key).group_name), set()).add(key.to_user_string())
    assert found == GROUPS


def test_graph_has_these_checks_and_all_that_decide_block(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found: dict[str, set[str]] = {}
    for check in graph.asset_check_keys:
        found.setdefault(check.asset_key.to_user_string(), set()).add(check.name)
        assert graph.get(check).blocking is (check.name not in REPORTED)
    assert found == CHECKS


def test_every_asset_is_described_and_versioned(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        assert graph.get(key).description, key
        assert graph.get(key).kinds, key
        group = graph.get(key).group_name
        assert graph.get(key).code_version or not graph.get(key).is_materializable or group in {"logs", "results"}, key


def test_graph_has_these_sensors_and_schedules_and_all_run(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == SENSORS
    assert {sensor.default_status for sensor in repository.sensor_defs} <= {dg.DefaultSensorStatus.RUNNING}
    assert {schedule.name for schedule in repository.schedule_defs} == SCHEDULES
    assert {schedule.default_status for schedule in repository.schedule_defs} <= {dg.DefaultScheduleStatus.RUNNING}


def test_somebody_answers_for_every_asset_and_finds_it_by_its_tag(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node, name = graph.get(key), key.to_user_string()
        if node.group_name == "logs" or name == "lineage":
            assert list(node.owners) == ["team:turnout"], name
        elif node.group_name == "datasets":
            assert (list(node.owners), node.tags[DATA_TAG]) == (["team:travel", "team:turnout"], "flights"), name
        else:
            assert list(node.owners) == [
                {"flight-choice": "team:travel"}.get(node.tags[ENDPOINT_TAG], "team:turnout")
            ], name
            assert name.startswith(node.tags[ENDPOINT_TAG].replace("-", "_")) or node.group_name == "results"


def test_every_asset_says_when_it_is_made(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node, name = graph.get(key), key.to_user_string()
        if node.is_materializable and node.group_name != "logs":
            assert node.automation_condition is not None, name
        is_seen_to_be_old = node.freshness_policy is not None
        assert is_seen_to_be_old == (
            name in {"raw_flights", "raw_weather", "logged_traffic", "logged_experiments"}
            or node.group_name == "results"
        ), name


@pytest.mark.parametrize("model", ["flight_delay_boosting", "flight_choice_boosting"])
def test_models_of_both_endpoints_descend_from_the_same_datasets(definitions: dg.Definitions, model: str) -> None:
    graph = definitions.resolve_asset_graph()
    upstream = dg.AssetSelection.assets(model).upstream().resolve(graph)
    datasets = GROUPS["datasets"] - {"flight_delay_replay"}
    assert {key.to_user_string() for key in upstream} == datasets | {model, f"{model}_candidate"}


def test_definitions_load_without_a_warning_and_without_what_only_runs_need() -> None:
    """Every run, sensor and step loads them."""
    code = (
        "import sys, dagster as dg, orchestration.definitions as d; dg.Definitions.validate_loadable(d.definitions());"
        "assert not {'ibis', 'altair', 'sklearn', 'onnxruntime', 'scipy.stats'} & set(sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (loaded.returncode, loaded.stderr) == (0, "")
