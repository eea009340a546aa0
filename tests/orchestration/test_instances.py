"""The settings of Dagster's instances, for one machine and for several."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.config import dagster_instance_config

import orchestration
from orchestration.automation.attributes import ENDPOINT_TAG

FOLDER = Path(str(orchestration.__path__[0]))


@pytest.mark.parametrize("name", ["dagster.yaml", "dagster.postgresql.yaml"])
def test_settings_are_what_dagster_takes(name: str) -> None:
    found, _ = dagster_instance_config(str(FOLDER), name)
    assert found["telemetry"]["enabled"] is False
    assert found["run_monitoring"] == {
        "enabled": True,
        "start_timeout_seconds": 300,
        "max_runtime_seconds": 86_400,
    }
    (limit,) = found["concurrency"]["runs"]["tag_concurrency_limits"]
    assert (limit["key"], limit["limit"]) == (ENDPOINT_TAG, 1)


def test_postgresql_is_reached_by_a_named_driver() -> None:
    found, _ = dagster_instance_config(str(FOLDER), "dagster.postgresql.yaml")
    assert found["storage"]["postgres"]["postgres_db"]["scheme"] == "postgresql+psycopg2"


def test_one_machine_limits_its_runs_and_watches_freshness(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2  # type: ignore[union-attr]
        assert instance.freshness_enabled
        assert (instance.run_monitoring_enabled, instance.run_monitoring_max_runtime_seconds) == (True, 86_400)
