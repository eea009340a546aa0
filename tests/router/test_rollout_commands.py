"""`turnout rollout`, and the verdict and rollback of experiments, against a running router."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from models.registry import Registry
from router import cli
from router.client import Turnout
from router.settings import Settings
from tests.router.documents import experiment
from tests.router.rolling import LAST, SPLIT, rollout
from tests.router.servers import serving
from tests.router.small_models import add_model


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A router with the endpoint `delay`, on which a rollout is under way and another one waits."""
    folder = tmp_path_factory.mktemp("router")
    settings = Settings(database=f"sqlite:///{folder}/ledger.db", registry=folder / "registry", spool=folder / "spool")
    for name in ("sum", "sum-too", "sum-third"):
        add_model(Registry(settings.registry), name)
    with serving(settings) as url:
        with Turnout(url) as client:
            for endpoint in ("delay", "other"):
                client.create_endpoint({"name": endpoint, "champion": "sum@1"})
        yield url


def turnout(url: str, *arguments: str, fails: int = 0, said: str | None = None) -> str:
    """Run a command and return what it printed."""
    done = CliRunner().invoke(cli.main, [*arguments, "--url", url], input=said, env={"COLUMNS": "160"})
    assert done.exit_code == fails, done.output
    return done.output


def begun(url: str, name: str) -> dict[str, Any]:
    """Return a rollout once it has begun."""
    ends = time.monotonic() + 20
    while (found := json.loads(turnout(url, "rollout", "show", name, "--json")))["state"] == "waiting":
        assert time.monotonic() < ends, found
        time.sleep(0.05)
    return dict(found)


def test_rollout_from_beginning_to_end(url: str, tmp_path: Path) -> None:
    assert turnout(url, "rollout", "list") == "no rollouts yet: turnout rollout create FILE\n"
    assert json.loads(turnout(url, "rollout", "list", "--json")) == []
    file = tmp_path / "rollout.json"
    file.write_text(json.dumps(rollout(stages=[{"kind": "canary", "share": 0.1}, SPLIT, LAST])))
    created = json.loads(turnout(url, "rollout", "create", str(file)))
    assert (created["state"], created["revision"]) == ("waiting", 1)
    waiting = json.dumps(rollout("next", candidate="sum-third@1"))
    turnout(url, "rollout", "create", "-", said=waiting)
    found = begun(url, "new")
    assert found["verdict"]["verdict"] == "insufficient"
    lines = turnout(url, "rollout", "show", "new").splitlines()
    assert lines[0] == "new is running in stage 1 of 3, canary"
    assert lines[1].endswith("create    local: created")
    assert lines[2].endswith("start     controller: beside champion sum@1")
    assert lines[3:] == [
        "insufficient",
        "- 0 of 100 decisions of the candidate in this stage",
        "- not judged yet: click: too few values so far, 0 and 0 values",
    ]
    assert turnout(url, "rollout", "show", "next").splitlines()[0] == "next is waiting in stage 1 of 2, split"
    table = turnout(url, "rollout", "list")
    assert "new   delay     sum-too@1    sum@1     running  1 of 3, canary" in table
    assert [each["document"]["name"] for each in json.loads(turnout(url, "rollout", "list", "--json"))] == [
        "new",
        "next",
    ]
    assert turnout(url, "rollout", "hold", "new") == "new is held in stage 1, canary\n"
    refused = turnout(url, "rollout", "resume", "new", "--revision", "2", fails=1)
    assert "rollout 'new' is at revision 3, not 2" in refused
    assert turnout(url, "rollout", "resume", "new", "--revision", "3") == "new is running in stage 1, canary\n"
    assert turnout(url, "rollout", "advance", "new") == "new is running in stage 2, split\n"
    assert "it is running, not held" in turnout(url, "rollout", "resume", "new", fails=1)
    assert turnout(url, "rollout", "rollback", "new") == "new is rolled_back in stage 2, split\n"
    shown = turnout(url, "rollout", "show", "new").splitlines()
    assert shown[0] == "new is rolled_back in stage 2 of 3, split"
    assert shown[-1].endswith("rollback  local: rollback by hand")
    assert begun(url, "next")["champion"] == "sum@1"


def test_rollout_that_is_refused_says_why(url: str, tmp_path: Path) -> None:
    bad = json.dumps(rollout("bad", stages=[LAST, SPLIT]))
    assert "400: champion is the last stage; move it to the end (stages[0])" in turnout(
        url, "rollout", "create", "-", said=bad, fails=1
    )
    file = tmp_path / "rollout.json"
    file.write_text("{")
    assert "rollout.json is not JSON" in turnout(url, "rollout", "create", str(file), fails=1)
    assert "there is no rollout 'bad'" in turnout(url, "rollout", "show", "bad", fails=1)


def test_experiment_is_judged_and_rolled_back(url: str) -> None:
    turnout(url, "experiment", "create", "-", said=json.dumps(experiment(endpoint="other")))
    assert turnout(url, "experiment", "verdict", "too-vs-sum").splitlines()[:2] == [
        "insufficient",
        "- experiment 'too-vs-sum' has not started",
    ]
    turnout(url, "experiment", "start", "too-vs-sum")
    judged = json.loads(turnout(url, "experiment", "verdict", "too-vs-sum", "--arm", "too", "--json"))
    assert (judged["verdict"], judged["findings"][0]["name"]) == ("insufficient", "brier")
    assert "is none of its arms" in turnout(url, "experiment", "verdict", "too-vs-sum", "--arm", "three", fails=1)
    assert turnout(url, "experiment", "rollback", "too-vs-sum") == "too-vs-sum is concluded (revision 3)\n"
    assert "it is concluded" in turnout(url, "experiment", "rollback", "too-vs-sum", fails=1)
