"""The whole graph, pinned: what is in it, what hangs on what, and that it loads quietly."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from orchestration.definitions import build
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
    "logs": {"ledger", "logged_experiments", "logged_traffic"},
    "results": {"boosting_vs_logistic_result", "four_delay_models_result", "boosting_vs_base_rate_result"},
}  # fmt: skip
CHECKS = {
    "clean_flights": {"schema"},
    "flight_features": {"schema", "leakage"},
    **{
        f"flight_delay_{name}_candidate": {"parity", "skill"}
        for name in ("base_rate", "logistic", "boosting", "forest")
    },
    **{f"flight_choice_{name}_candidate": {"parity", "skill"} for name in ("base_rate", "boosting")},
    "logged_experiments": {"decisions_can_be_proved"},
}
REPORTED = {"decisions_can_be_proved"}
"""Checks of what is there already, whatever came of it."""


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    root = tmp_path_factory.mktemp("var")
    return build(Settings(database=f"sqlite:///{root}/turnout.db", registry=root / "registry", lake=root / "lake"))


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
        assert graph.get(key).code_version or graph.get(key).group_name in {"logs", "results"}, key


@pytest.mark.parametrize("model", ["flight_delay_boosting", "flight_choice_boosting"])
def test_models_of_both_endpoints_descend_from_the_same_datasets(definitions: dg.Definitions, model: str) -> None:
    graph = definitions.resolve_asset_graph()
    upstream = dg.AssetSelection.assets(model).upstream().resolve(graph)
    datasets = GROUPS["datasets"] - {"flight_delay_replay"}
    assert {key.to_user_string() for key in upstream} == datasets | {model, f"{model}_candidate"}


def test_definitions_load_without_a_warning() -> None:
    command = [sys.executable, "-W", "error", "-c", "import orchestration.definitions as d; d.definitions()"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (loaded.returncode, loaded.stderr) == (0, "")


@pytest.mark.timeout(300)
def test_dg_check_passes(tmp_path: Path) -> None:
    dg_command = Path(sys.executable).with_name("dg")
    checked = subprocess.run(
        [dg_command, "check", "defs"],
        env={"DAGSTER_HOME": str(tmp_path), "PATH": str(dg_command.parent), "DAGSTER_DISABLE_TELEMETRY": "yes"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "All definitions loaded successfully" in checked.stdout + checked.stderr
