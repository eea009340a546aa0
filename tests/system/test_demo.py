"""`turnout demo`, as `make demo` runs it, in a folder of its own; then again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select

import analysis
from router.ledger import schema
from tests.system.processes import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

FLIGHTS = 600


def demo(folder: Path, port: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "router", "demo", "--once", "--flights", str(FLIGHTS)],
        cwd=folder,
        env={**os.environ, "TURNOUT_PORT": str(port), "DAGSTER_HOME": str(folder / "dagster")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_demo_runs_the_whole_loop_and_then_retrains_nothing(tmp_path: Path) -> None:
    port = free_port()
    first, second = demo(tmp_path, port), demo(tmp_path, port)
    assert "materialized 39 stale assets" in first
    assert "600 flights replayed, 600 decisions" in first
    assert "600 decisions re-derived, each as it was logged" in first
    assert "boosting-vs-logistic on endpoint flight-delay" in first
    assert "everything is up to date: nothing to train" in second
    assert "600 flights replayed, 600 decisions" in second
    assert ": 0 accepted, " in " ".join(second.split())
    engine = create_engine(f"sqlite:///{tmp_path}/var/turnout.db")
    with engine.connect() as connection:
        decisions = connection.execute(select(func.count()).select_from(schema.decisions)).scalar()
        outcomes = connection.execute(select(func.count()).select_from(schema.outcomes)).scalar()
    engine.dispose()
    assert decisions == FLIGHTS
    sources = (tmp_path / "var" / "lake", f"sqlite:///{tmp_path}/var/turnout.db")
    for report in (analysis.load("boosting-vs-logistic", source) for source in sources):
        primary = report.summary().query("metric == 'brier'")
        assert primary["decisions"].sum() == FLIGHTS
        assert primary["observations"].sum() == outcomes
        assert list(primary["model"]) == ["flight-delay-logistic@1", "flight-delay-boosting@1"]
