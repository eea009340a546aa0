"""`turnout serve` and the commands that talk to it, as a person at a terminal uses them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router.client import ApiError, Turnout
from tests.system.processes import Router, free_port, router

pytestmark = pytest.mark.system

INPUTS = {"distance": 500.0, "hour": 17.0, "carrier": "B6"}


def turnout(*arguments: str, environment: dict[str, str] | None = None, stdin: str = "") -> Any:
    return subprocess.run(
        [sys.executable, "-m", "router", *arguments],
        env=environment or dict(os.environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_serve_stops_in_good_order(running: Router) -> None:
    with Turnout(running.url) as client:
        client.predict("delay", unit="u", inputs=INPUTS)
    # uvicorn ends in good order, then lets the signal have its usual effect on the exit status.
    assert running.stop() == -signal.SIGTERM
    assert "Traceback" not in running.log.read_text()


def test_serve_on_a_taken_port_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = turnout("serve", "--port", port, "--database", f"sqlite:///{tmp_path}/ledger.db")
    assert done.returncode == 1
    assert (
        done.stderr == f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port\n"
    )


def test_serve_refuses_other_machines(tmp_path: Path) -> None:
    done = turnout("serve", "--host", "0.0.0.0", "--database", f"sqlite:///{tmp_path}/ledger.db")  # noqa: S104
    assert done.returncode == 1
    assert "host '0.0.0.0' is reachable from other machines" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--database", "sqlite:////proc/nowhere/ledger.db"],
            "cannot open the ledger sqlite:////proc/nowhere/ledger.db",
        ),
        (["--database", "mysql://x"], "setting TURNOUT_DATABASE is wrong"),
        (["--port", "99999"], "setting TURNOUT_PORT is wrong"),
    ],
)
def test_serve_names_what_it_cannot_use(options: list[str], message: str) -> None:
    done = turnout("serve", "--port", str(free_port()), *options)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_without_models_is_ready_and_says_what_to_do(tmp_path: Path) -> None:
    with router(tmp_path, tmp_path / "no-registry") as running, Turnout(running.url) as client:
        assert client.endpoints() == []
        with pytest.raises(ApiError, match="no endpoint 'delay'; known endpoints: none yet"):
            client.predict("delay", unit="u", inputs=INPUTS)
        with pytest.raises(ApiError, match="no model logistic@1"):
            client.create_endpoint({"name": "delay", "champion": "logistic@1"})


def test_commands_create_start_and_conclude(tmp_path: Path, registry: Path) -> None:
    with router(tmp_path, registry) as running:
        at = ("--url", running.url)
        created = turnout("endpoint", "create", "-", *at, stdin='{"name": "delay", "champion": "logistic@1"}')
        assert created.returncode == 0, created.stderr
        again = turnout("endpoint", "create", "-", *at, stdin='{"name": "delay", "champion": "logistic@1"}')
        assert again.returncode == 1
        assert "endpoint 'delay' exists already" in again.stderr
        document = {
            "name": "two",
            "endpoint": "delay",
            "arms": [{"name": "control", "model": "logistic@1"}, {"name": "forest", "model": "forest@1"}],
            "allocation": {"kind": "split", "weights": {"control": 0.9, "forest": 0.1}},
            "metrics": [{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}],
        }
        file = tmp_path / "two.json"
        file.write_text(json.dumps(document))
        assert turnout("experiment", "create", str(file), *at).returncode == 0
        assert "two is running (revision 2, epoch 1)" in turnout("experiment", "start", "two", *at).stdout
        stale = turnout("experiment", "conclude", "two", "--revision", "1", *at)
        assert stale.returncode == 1
        assert "is at revision 2, not 1" in stale.stderr
        assert "two is paused" in turnout("experiment", "pause", "two", *at).stdout
        assert "two is running" in turnout("experiment", "resume", "two", *at).stdout
        listed = json.loads(turnout("experiment", "list", "--json", *at).stdout)
        assert listed[0]["arms"] == "control 90.00%, forest 10.00%"
        assert "control 90.00%" in turnout("experiment", "list", *at).stdout
        assert json.loads(turnout("experiment", "show", "two", *at).stdout)["state"] == "running"
        assert json.loads(turnout("endpoint", "show", "delay", *at).stdout)["revision"] == 1
        assert json.loads(turnout("endpoint", "list", "--json", *at).stdout)[0]["champion"] == "logistic@1"
        assert "two is concluded" in turnout("experiment", "conclude", "two", *at).stdout


def test_lists_have_every_kind_of_experiment(running: Router) -> None:
    at = ("--url", running.url)
    allocations = {
        "split": {"kind": "split", "weights": {"control": 0.9, "forest": 0.1}},
        "thompson": {"kind": "thompson", "metric": "click"},
        "contextual": {
            "kind": "contextual",
            "metric": "click",
            "features": [{"kind": "category", "name": "origin", "values": ["JFK", "LGA"]}],
        },
        "interleave": {"kind": "interleave"},
    }
    with Turnout(running.url) as client:
        client.create_endpoint({"name": "list", "kind": "rank", "champion": "logistic@1"})
        for name, allocation in allocations.items():
            client.create_experiment(
                {
                    "name": name,
                    "endpoint": "list" if name == "interleave" else "delay",
                    "arms": [{"name": "control", "model": "logistic@1"}, {"name": "forest", "model": "forest@1"}],
                    "allocation": allocation,
                    "metrics": [{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}],
                }
            )
    drafts = json.loads(turnout("experiment", "list", "--json", *at).stdout)
    assert {row["arms"] for row in drafts if row["name"] in allocations} == {"control, forest"}
    for name in allocations:
        assert turnout("experiment", "start", name, *at).returncode == 0
    started = json.loads(turnout("experiment", "list", "--json", *at).stdout)
    assert {row["name"]: row["arms"] for row in started if row["name"] in allocations} == {
        "split": "control 90.00%, forest 10.00%",
        "thompson": "control 50.00%, forest 50.00%",
        "contextual": "control, forest",
        "interleave": "control, forest",
    }
    printed = turnout("experiment", "list", *at).stdout.splitlines()
    assert {line.split()[0] for line in printed} >= {"name", *allocations}
    endpoints = turnout("endpoint", "list", *at).stdout.splitlines()
    assert endpoints[1].split() == ["delay", "predict", "logistic@1", "1"]
    assert endpoints[2].split() == ["list", "rank", "logistic@1", "1"]


def test_commands_without_a_router_say_so() -> None:
    done = turnout("endpoint", "list", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "is `turnout serve` running?" in done.stderr


def test_model_commands_read_the_registry(registry: Path) -> None:
    environment = {**os.environ, "TURNOUT_REGISTRY": str(registry)}
    listed = json.loads(turnout("model", "list", "--json", environment=environment).stdout)
    assert {row["model"] for row in listed} == {"logistic@1", "bayes@1", "boosting@1", "forest@1"}
    shown = json.loads(turnout("model", "show", "forest@1", environment=environment).stdout)
    assert [feature["name"] for feature in shown["signature"]["features"]] == ["distance", "hour", "carrier"]
    assert "files as published" in turnout("model", "verify", "forest@1", environment=environment).stdout
    missing = turnout("model", "show", "forest@2", environment=environment)
    assert missing.returncode == 1
    assert "no model forest@2" in missing.stderr


def test_db_upgrade_makes_the_ledger(tmp_path: Path) -> None:
    environment = {**os.environ, "TURNOUT_DATABASE": f"sqlite:///{tmp_path}/new/ledger.db"}
    made = turnout("db", "upgrade", environment=environment).stdout
    assert "(was empty)" in made
    [revision] = re.findall(r"is at revision (\d{4})", made)
    assert f"is at revision {revision} (was {revision})" in turnout("db", "upgrade", environment=environment).stdout
