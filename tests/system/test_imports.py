"""What a router of ONNX models holds: its import budget, and what the collector is spared. Times vary, these not."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from models.reference import ModelReference
from models.registry import Registry
from router.client import Turnout
from tests.databases import put_empty_ledger
from tests.system.processes import Router

pytestmark = pytest.mark.system

BUDGET = 1300
"""Modules in all, each about a millisecond of the start: 1,263 when this was written, of which Litestar 215."""

FORBIDDEN = {
    "alembic",  # only a start that migrates needs it
    "altair",
    "dagster",
    "deltalake",
    "duckdb",
    "ibis",
    "joblib",
    "mako",
    "matplotlib",
    "mlflow",
    "onnx",
    "pandas",
    "psycopg",
    "pyarrow",
    "pytest",
    "rich",
    "skl2onnx",
    "sklearn",
    "skops",
    "tea_tasting",
}

# The mathematics of allocations and verdicts is in `scipy.special`, which is all of SciPy that may be loaded.
FORBIDDEN_IN_SCIPY = {
    "cluster",
    "integrate",
    "interpolate",
    "linalg",
    "ndimage",
    "optimize",
    "signal",
    "sparse",
    "stats",
}

# Uvicorn lets the signal end the process once it has closed; here the process says first what it has imported.
SERVE = """
import atexit, gc, json, signal, sys
from pathlib import Path
atexit.register(lambda: Path(sys.argv[1]).write_text(json.dumps([gc.get_freeze_count(), list(sys.modules)])))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
from router.cli import main
main(sys.argv[2:], prog_name="turnout")
"""


class Held(NamedTuple):
    """What a process had at its end."""

    frozen: int
    """Objects that the collector of garbage did not look at."""
    modules: set[str]


@pytest.fixture(scope="module")
def held(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Held:
    """What a router held that started over a ledger, ran an experiment and took an outcome."""
    state = tmp_path_factory.mktemp("imports")
    put_empty_ledger(state / "ledger.db")

    def launch(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            command = [sys.executable, "-c", SERVE, str(state / "held"), *arguments]
            return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

    running = Router(state, registry, launch=launch)
    try:
        running.wait_until_ready()
        with Turnout(running.url) as client:
            use(client)
    finally:
        status = running.stop()
    assert status == 0, running.log.read_text()
    frozen, modules = json.loads((state / "held").read_text())
    return Held(frozen, set(modules))


@pytest.fixture(scope="module")
def imported(held: Held) -> set[str]:
    return held.modules


def use(client: Turnout) -> None:
    arms = {"control": "logistic@1", "boosting": "boosting@1"}
    client.create_endpoint({"name": "delay", "champion": "logistic@1"})
    client.create_experiment(
        {
            "name": "two",
            "endpoint": "delay",
            "arms": [{"name": name, "model": model} for name, model in arms.items()],
            "allocation": {"kind": "split", "weights": {"control": 0.5, "boosting": 0.5}},
            "metrics": [{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}],
        }
    )
    client.start("two")
    decided = client.predict("delay", unit="u", inputs={"distance": 500.0, "hour": 17.0, "carrier": "B6"})
    assert decided["model"] in arms.values()
    assert client.outcomes([{"decision_id": decided["decision_id"], "metric": "click", "value": 1}])["accepted"] == 1


def test_the_models_are_served_by_onnx(registry: Path) -> None:
    manifests = [Registry(registry).manifest(ModelReference(name, 1)) for name in ("logistic", "boosting")]
    assert [manifest.runtime for manifest in manifests] == ["onnx", "onnx"]


def test_what_serves_is_imported(imported: set[str]) -> None:
    assert {"litestar", "onnxruntime", "sqlalchemy", "router.serving.predict", "router.ledger.writer"} <= imported


def test_nothing_is_imported_that_does_not_serve(imported: set[str]) -> None:
    packages = {name.partition(".")[0] for name in imported}
    assert packages & FORBIDDEN == set()


def test_of_scipy_only_special_functions_are_imported(imported: set[str]) -> None:
    parts = {name.split(".")[1] for name in imported if name.startswith("scipy.")}
    assert parts & FORBIDDEN_IN_SCIPY == set()


def test_start_stays_within_the_budget(imported: set[str]) -> None:
    # Which `make coverage` adds.
    counted = [name for name in imported if name.partition(".")[0] != "coverage"]
    largest = Counter(name.partition(".")[0] for name in counted).most_common(12)
    assert len(counted) <= BUDGET, f"{len(counted)} modules, most of them from {largest}"


def test_the_collector_is_spared_what_was_there_at_the_start(held: Held) -> None:
    # To look through them takes a tenth of a second, in which nobody is answered.
    assert held.frozen > 100_000
