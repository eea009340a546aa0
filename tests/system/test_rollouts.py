"""Candidates that walk to champion and back by themselves, with real processes: nobody touches them."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.registry import Registry
from router.client import Turnout
from tests.databases import database
from tests.router.small_models import add_model
from tests.system.candidates import ended, load_candidate, rollout, told, travelling
from tests.system.conftest import until
from tests.system.processes import Router, free_port
from tests.system.strange_router import launch_strange, strange_router

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

CHAMPION = "skewed-30@1"
LIVE = [{"kind": "canary", "share": 0.1, "min_decisions": 20}, {"kind": "split"}, {"kind": "champion"}]
CANDIDATES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "better": ("skewed-5", {}),
    "worse": ("skewed-45", {"stages": [{"kind": "shadow", "min_decisions": 1000}, *LIVE]}),
    "worse-live": ("skewed-46", {"stages": LIVE}),
    "slow": ("sleepy-0", {"stages": LIVE}),
    "crashing": ("crashing", {}),
    "crashing-live": ("crashing-too", {"stages": LIVE}),
    # Its clients ask again, and so its arm gets more decisions than its share.
    "biased": ("skewed-4", {"stages": [{"kind": "canary", "share": 0.1, "min_decisions": 10**6}, LIVE[-1]]}),
}
EXPECTED = {
    "worse": (0, "brier"),
    "worse-live": (1, "brier"),
    "slow": (0, "latency"),
    "crashing": (0, "errors"),
    "crashing-live": (0, "errors"),
    "biased": (0, "sample ratio"),
}
"""In which stage at the latest, and for which reason."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turnout]:
    """A router that has brought every candidate to its end."""
    folder = tmp_path_factory.mktemp("rollouts")
    models = ["skewed-30", *(model for model, _ in CANDIDATES.values())]
    with strange_router(folder, models, load_candidate) as running, Turnout(running.url) as client:
        for name, (model, changes) in CANDIDATES.items():
            begin(client, name, model, **changes)
        with travelling([running.url], list(CANDIDATES), careless=["biased"]):
            until(lambda: all(ended(client, name) for name in CANDIDATES), 120)
        yield client


def begin(client: Turnout, name: str, model: str, **changes: Any) -> None:
    client.create_endpoint({"name": name, "champion": CHAMPION})
    client.create_rollout(rollout(name, f"{model}@1", **changes))


def test_better_candidate_reaches_champion_untouched(outcome: Turnout) -> None:
    found = outcome.rollout("better")
    assert found["state"] == "promoted", told(outcome, "better")
    assert [step["stage"] for step in found["transitions"]] == [0, 0, 1, 2, 3, 3]
    assert {step["actor"] for step in found["transitions"][1:]} == {"controller"}
    endpoint = outcome.endpoint("better")["document"]
    assert (endpoint["champion"], endpoint["shadows"]) == ("skewed-5@1", [])
    reply = outcome.predict("better", unit="u", inputs={"distance": 1.0, "carrier": "AA", "wind": None})
    assert (reply["model"], reply["experiment"]) == ("skewed-5@1", None)


@pytest.mark.parametrize("name", EXPECTED)
def test_bad_candidate_is_rolled_back(outcome: Turnout, name: str) -> None:
    stage, why = EXPECTED[name]
    found, last = outcome.rollout(name), outcome.rollout(name)["transitions"][-1]
    assert found["state"] == "rolled_back", told(outcome, name)
    assert last["actor"] == "controller"
    assert last["stage"] <= stage
    assert why in last["reason"]
    # The numbers that decided are there, and nobody gets the candidate any more.
    assert any(each["verdict"] in {"breached", "worse"} for each in last["findings"])
    assert outcome.endpoint(name)["document"]["champion"] == CHAMPION
    assert outcome.endpoint(name)["document"]["shadows"] == []
    for unit in range(20):
        reply = outcome.predict(name, unit=f"later-{unit}", inputs={"distance": 1.0, "carrier": "AA", "wind": None})
        assert (reply["model"], reply["arm"]) == (CHAMPION, None)


@pytest.mark.parametrize("name", ["worse", "crashing"])
def test_shadow_stops_a_bad_candidate_before_anybody_gets_it(outcome: Turnout, name: str) -> None:
    assert outcome.rollout(name)["experiments"] == []


def test_every_step_is_in_the_audit_log(outcome: Turnout) -> None:
    entries = [each for each in outcome.audit(1000) if each["subject"] == "rollout better"]
    actions = [each["action"] for each in entries[::-1]]
    assert actions == ["create", "start", "advance", "advance", "advance", "advance"]


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_replicas_that_die_and_come_back_take_every_step_once(tmp_path: Path, backend: str) -> None:
    registry = Registry(tmp_path / "registry")
    for model in ("skewed-30", "skewed-5"):
        add_model(registry, model)
    with database(backend, tmp_path) as url:
        replicas = [replica(tmp_path / str(number), registry, url) for number in range(2)]
        try:
            for each in replicas:
                each.wait_until_ready()
            with Turnout(replicas[1].url) as client:
                begin(client, "better", "skewed-5", stages=LIVE)
                with travelling([each.url for each in replicas], ["better"]):
                    until(lambda: client.rollout("better")["experiments"], 60)
                    replicas[0].kill()
                    until(lambda: client.rollout("better")["stage"] >= 1, 60)
                    replicas[0] = replica(tmp_path / "0", registry, url, port=replicas[0].port)
                    replicas[0].wait_until_ready()
                    until(lambda: ended(client, "better"), 60)
                found = client.rollout("better")
                assert found["state"] == "promoted", told(client, "better")
                assert [step["stage"] for step in found["transitions"]] == [0, 0, 1, 2, 2]
                assert [step["number"] for step in found["transitions"]] == [1, 2, 3, 4, 5]
                audited = Counter(each["subject"] for each in client.audit(1000))
                assert audited["rollout better"] == 5
                assert len(client.experiments()) == 1
        finally:
            for each in replicas:
                each.stop()


def test_router_that_is_alone_goes_on_where_it_was(tmp_path: Path) -> None:
    with strange_router(tmp_path, ["skewed-30", "skewed-45"], load_candidate) as running:
        with Turnout(running.url) as client:
            begin(client, "worse", "skewed-45", stages=LIVE[1:])
            until(lambda: client.rollout("worse")["state"] == "running")
            # Too few for a verdict.
            rows = [ask(client, number) for number in range(40)]
            client.outcomes(rows)
        running.kill()
        again = Router(tmp_path, tmp_path / "registry", port=running.port, launch=launch_strange(load_candidate))
        try:
            again.wait_until_ready()
            with Turnout(again.url) as client, travelling([again.url], ["worse"]):
                assert client.rollout("worse")["state"] == "running"
                until(lambda: ended(client, "worse"), 90)
                last = client.rollout("worse")["transitions"][-1]
                assert last["action"] == "rollback", told(client, "worse")
                decided = sum(each["candidate_n"] for each in last["findings"] if each["name"] == "errors")
                assert decided > 20
        finally:
            again.stop()


def test_rollback_happens_though_dagster_was_killed(tmp_path: Path) -> None:
    with (
        strange_router(tmp_path, ["skewed-30", "skewed-45"], load_candidate) as running,
        Turnout(running.url) as client,
    ):
        dagster = start_dagster(tmp_path, running)
        try:
            begin(client, "worse", "skewed-45", stages=LIVE[1:])
            until(lambda: client.rollout("worse")["state"] == "running")
            client.outcomes([ask(client, number) for number in range(40)])
        finally:
            os.killpg(dagster.pid, signal.SIGKILL)
            dagster.wait(10)
        with travelling([running.url], ["worse"]):
            until(lambda: ended(client, "worse"), 90)
        assert client.rollout("worse")["transitions"][-1]["action"] == "rollback", told(client, "worse")


def start_dagster(folder: Path, running: Router) -> subprocess.Popen[bytes]:
    """Start Dagster's server and daemon with the project's definitions, and return when they answer."""
    home, port = folder / "dagster", free_port()
    home.mkdir()
    environment = {**running.environment, "DAGSTER_HOME": str(home), "TURNOUT_LAKE": str(folder / "lake")}
    command = [str(Path(sys.executable).with_name("dg")), "dev", "--port", str(port)]
    with (folder / "dagster.log").open("wb") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}/server_info"

    def answers() -> bool:
        assert started.poll() is None, (folder / "dagster.log").read_text()
        try:
            return httpx.get(address).is_success
        except httpx.TransportError:
            return False

    until(answers, 90)
    return started


def ask(client: Turnout, number: int) -> dict[str, Any]:
    inputs = {"distance": 900.0, "carrier": "AA", "wind": None}
    reply = client.predict("worse", unit=f"early-{number}", inputs=inputs)
    return {"decision_id": reply["decision_id"], "metric": "late", "value": 1}


def replica(state: Path, registry: Registry, url: str, **options: Any) -> Router:
    state.mkdir(exist_ok=True)
    settings = {"TURNOUT_SECRET": "one for all replicas"}
    launch = launch_strange(load_candidate)
    return Router(state, registry.root, database=url, settings=settings, launch=launch, **options)
