"""Rollouts and verdicts over HTTP."""

import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from models.registry import Registry
from models.signature import Feature, Signature
from router.http.app import application
from router.ledger.database import open_database
from router.service import Service
from router.settings import Settings
from tests.router.documents import INPUTS, experiment
from tests.router.rolling import ALIKE, BETTER, CLICK, LAST, SPLIT, Rolling, rollout
from tests.router.small_models import add_model, load_small

Client = TestClient[Litestar]

LONG = 10**6
SLOWLY = [{**SPLIT, "min_decisions": LONG}, {**LAST, "min_decisions": LONG}]
"""Stages that nothing but a person or a breach ends."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("router")
    return Settings(database=f"sqlite:///{folder}/ledger.db", registry=folder / "registry", spool=folder / "spool")


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    registry = Registry(settings.registry)
    for name in ("sum", "sum-too", "sum-third", "error"):
        add_model(registry, name)
    add_model(registry, "sum-other", Signature((Feature("hour", "number"),), "probability"))
    return registry


@pytest.fixture(scope="module")
def client(settings: Settings, registry: Registry) -> Iterator[Client]:
    """A router on which every test has endpoints of its own."""
    service = Service(settings, load_model=load_small)
    with TestClient(application(service, max_body_bytes=settings.max_body_bytes)) as client:
        yield client


@pytest.fixture(scope="module")
def traffic(client: Client, settings: Settings, registry: Registry) -> Iterator[Rolling]:
    """Who makes decisions in the same ledger without asking a model for each."""
    engine = open_database(settings.database)
    yield Rolling(engine, registry)
    engine.dispose()


def call(
    client: Client, method: str, path: str, body: Any = None, status: int = 200, if_match: str | None = "*"
) -> Any:
    headers = {} if if_match is None else {"If-Match": if_match}
    response = client.request(method, f"/v1/{path}", json=body, headers=headers)
    assert response.status_code == status, response.text
    if "ETag" in response.headers:
        assert response.headers["ETag"] == f'"{response.json()["revision"]}"'
    return response.json()


def begin(client: Client, name: str, **changes: Any) -> dict[str, Any]:
    """Create an endpoint and a rollout of the same name."""
    kind = changes.pop("kind", "predict")
    call(client, "POST", "endpoints", {"name": name, "champion": "sum@1", "kind": kind}, 201)
    document = rollout(name, endpoint=name, **{"stages": SLOWLY, **changes})
    created: dict[str, Any] = call(client, "POST", "rollouts", document, 201)
    return created


def until(client: Client, name: str, *states: str) -> dict[str, Any]:
    """Return a rollout once the router itself has brought it into one of these states."""
    ends = time.monotonic() + 20
    while (found := call(client, "GET", f"rollouts/{name}"))["state"] not in states:
        assert time.monotonic() < ends, found
        time.sleep(0.05)
    return dict(found)


def test_rollout_is_created_and_begins_by_itself(client: Client) -> None:
    created = begin(client, "begins", stages=[{"kind": "shadow"}, LAST])
    assert (created["state"], created["revision"], created["champion"], created["stage_began_at"]) == (
        "waiting",
        1,
        None,
        None,
    )
    found = until(client, "begins", "running")
    assert (found["stage"], found["stage_kind"], found["champion"], found["revision"]) == (0, "shadow", "sum@1", 2)
    assert [(each["number"], each["actor"], each["action"]) for each in found["transitions"]] == [
        (1, "local", "create"),
        (2, "controller", "start"),
    ]
    assert found["document"]["guardrails"] == {"errors": 0.1, "latency": None}
    assert found["document"]["stages"][1]["control_share"] == 0.05
    assert call(client, "GET", "endpoints/begins")["document"]["shadows"] == ["sum-too@1"]
    assert "begins" in [each["document"]["name"] for each in call(client, "GET", "rollouts")]
    verdict = call(client, "GET", "rollouts/begins/verdict")
    assert verdict["verdict"] == "insufficient"
    assert verdict["reasons"] == ["0 of 100 decisions of the candidate in this stage"]


REFUSED: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "no endpoint": ({"endpoint": "nowhere"}, 404, None),
    "no model": ({"candidate": "sum@99"}, 404, None),
    "no fit": ({"candidate": "sum-other@1"}, 400, "candidate"),
    "champion": ({"candidate": "sum@1"}, 400, "candidate"),
    "unknown field": ({"plan": []}, 400, "plan"),
    "unknown field of a stage": ({"stages": [{"kind": "split", "shares": 0.5}, LAST]}, 400, "stages[0].shares"),
    "wrong value": ({"error": 2}, 400, "error"),
    "order": ({"stages": [LAST, SPLIT]}, 400, "stages[0]"),
    "interleaving": ({"stages": [{"kind": "interleave"}, LAST]}, 400, "stages[0]"),
    "bandit on a ratio": (
        {
            "metrics": [
                {
                    "name": "r",
                    "kind": "ratio",
                    "numerator": "a",
                    "denominator": "b",
                    "direction": "increase",
                    "role": "primary",
                }
            ],
            "stages": [{"kind": "canary", "share": 0.1}, {"kind": "bandit"}, LAST],
        },
        400,
        "stages[1]",
    ),
    "audience": ({"audience": [{"attribute": "x", "op": "in", "value": "JFK"}]}, 400, "audience[0].value"),
    "slower than the timeout": ({"guardrails": {"latency": {"limit_ms": 200}}}, 400, "guardrails.latency.limit_ms"),
    "tiny traffic": ({"traffic": 0.00001}, 400, "traffic"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_rollout_that_cannot_be_carried_out_is_refused(client: Client, why: str) -> None:
    changes, status, field = REFUSED[why]
    if "refusing" not in [each["document"]["name"] for each in call(client, "GET", "endpoints")]:
        call(client, "POST", "endpoints", {"name": "refusing", "champion": "sum@1"}, 201)
    problem = call(client, "POST", "rollouts", rollout("refused", **{"endpoint": "refusing", **changes}), status)
    assert problem.get("field") == field, problem
    assert problem["detail"]
    assert problem["status"] == status
    call(client, "GET", "rollouts/refused", status=404)


def test_name_of_a_rollout_is_taken_once(client: Client) -> None:
    begin(client, "twice")
    problem = call(client, "POST", "rollouts", rollout("twice", endpoint="twice"), 409)
    assert "rollout 'twice' exists already" in problem["detail"]


@pytest.mark.parametrize("verb", ["hold", "resume", "advance", "rollback"])
def test_move_needs_the_revision(client: Client, verb: str) -> None:
    name = f"moved-{verb}"
    begin(client, name)
    until(client, name, "running")
    if verb == "resume":
        call(client, "POST", f"rollouts/{name}/hold")
    revision = call(client, "GET", f"rollouts/{name}")["revision"]
    needed = call(client, "POST", f"rollouts/{name}/{verb}", status=428, if_match=None)
    assert f'If-Match: "{revision}"' in needed["detail"]
    old = call(client, "POST", f"rollouts/{name}/{verb}", status=412, if_match=f'"{revision - 1}"')
    assert f"is at revision {revision}, not {revision - 1}" in old["detail"]
    moved = call(client, "POST", f"rollouts/{name}/{verb}", if_match=f'"{revision}"')
    assert moved["revision"] == revision + 1
    assert (moved["transitions"][-1]["action"], moved["transitions"][-1]["reason"]) == (verb, f"{verb} by hand")


def test_move_that_a_state_does_not_allow_is_a_conflict(client: Client) -> None:
    begin(client, "states")
    until(client, "states", "running")
    assert "it is running, not held" in call(client, "POST", "rollouts/states/resume", status=409)["detail"]
    call(client, "POST", "rollouts/states/hold")
    assert "it is held, not running" in call(client, "POST", "rollouts/states/hold", status=409)["detail"]
    call(client, "POST", "rollouts/states/advance")
    assert call(client, "GET", "endpoints/states")["document"]["champion"] == "sum-too@1"
    ended = call(client, "POST", "rollouts/states/advance")
    assert (ended["state"], ended["stage_kind"], bool(ended["ended_at"])) == ("promoted", "champion", True)
    for verb in ("hold", "resume", "advance", "rollback"):
        problem = call(client, "POST", f"rollouts/states/{verb}", status=409)
        assert "it is promoted; create a new one" in problem["detail"]
    call(client, "POST", "rollouts/nobody/hold", status=404)


def test_rollout_that_waits_or_has_ended_has_a_verdict_too(client: Client) -> None:
    begin(client, "verdicts")
    call(client, "POST", "rollouts", rollout("verdicts-next", endpoint="verdicts", candidate="sum-third@1"), 201)
    waiting = call(client, "GET", "rollouts/verdicts-next/verdict")
    assert (waiting["verdict"], waiting["reasons"][0]) == ("insufficient", "rollout 'verdicts-next' has not begun")
    until(client, "verdicts", "running")
    call(client, "POST", "rollouts/verdicts/rollback")
    assert call(client, "GET", "rollouts/verdicts/verdict")["verdict"] == "insufficient"
    until(client, "verdicts-next", "running")
    call(client, "GET", "rollouts/nobody/verdict", status=404)


def running(client: Client, name: str, **changes: Any) -> None:
    """Start an experiment of sum-too@1 against the champion of an endpoint of the same name."""
    call(client, "POST", "endpoints", {"name": name, "champion": "sum@1"}, 201)
    arms = [{"name": "control", "model": "sum@1"}, {"name": "candidate", "model": "sum-too@1"}]
    split = {"kind": "split", "weights": {"control": 0.5, "candidate": 0.5}}
    document = experiment(name, endpoint=name, arms=arms, allocation=split, metrics=[CLICK], planned_decisions=500)
    call(client, "POST", "experiments", {**document, **changes}, 201)
    call(client, "POST", f"experiments/{name}/start")


def test_verdict_of_an_experiment_for_gates_that_read_json(client: Client, traffic: Rolling) -> None:
    running(client, "gate")
    nothing = call(client, "GET", "experiments/gate/verdict")
    assert list(nothing) == ["verdict", "reasons", "findings"]
    assert nothing["verdict"] == "insufficient"
    traffic.send(1500, BETTER, endpoint="gate")
    found = call(client, "GET", "experiments/gate/verdict")
    assert found["verdict"] == "advance", found["reasons"]
    click = found["findings"][0]
    assert (click["name"], click["verdict"], click["role"]) == ("click", "better", "primary")
    assert 0 < click["low"] < click["difference"] < click["high"] < 1
    assert click["p_value"] < 0.05
    assert click["control_n"] + click["candidate_n"] == 1500
    # What Flagger sends along; a gate that halts by a bad status waits for the rollback.
    body = {"name": "podinfo", "namespace": "test", "phase": "Progressing", "metadata": {"arm": "candidate"}}
    assert call(client, "POST", "experiments/gate/verdict", body) == found
    assert call(client, "POST", "experiments/gate/verdict") == found
    halted = call(client, "POST", "experiments/gate/verdict?verdict=rollback", body, 409)
    assert "the verdict is 'advance', not 'rollback'" in halted["detail"]
    wrong = call(client, "POST", "experiments/gate/verdict?verdict=maybe", body, 400)
    assert (wrong["field"], '"maybe"' in wrong["detail"]) == ("verdict", True)


def test_what_counts_as_slow_is_below_the_timeout_when_an_experiment_starts(client: Client) -> None:
    running(client, "slow", slow_ms=150)
    arms = [{"name": "control", "model": "sum@1"}, {"name": "candidate", "model": "sum-too@1"}]
    even = {"kind": "split", "weights": {"control": 0.5, "candidate": 0.5}}
    never = experiment("never", endpoint="slow", arms=arms, allocation=even, metrics=[CLICK], slow_ms=200)
    assert call(client, "POST", "experiments", never, 400)["field"] == "slow_ms"
    call(client, "PUT", "endpoints/slow", {"name": "slow", "champion": "sum@1", "timeout_ms": 100})
    document = call(client, "GET", "experiments/slow")["document"]
    split = {"kind": "split", "weights": {"control": 1, "candidate": 0}}
    # Nothing keeps anybody from taking the traffic away.
    call(client, "PUT", "experiments/slow", {**document, "allocation": split})


def test_verdict_of_an_experiment_that_harms(client: Client, traffic: Rolling) -> None:
    running(client, "harms")
    problem = call(client, "POST", "experiments/harms/verdict", {}, 409)
    assert problem["code"] == "not-advancing"
    assert "the verdict is 'insufficient', not 'advance'" in problem["detail"]
    traffic.send(600, ALIKE, failed={"candidate": 0.5}, endpoint="harms")
    assert call(client, "GET", "experiments/harms/verdict")["verdict"] == "rollback"
    assert call(client, "POST", "experiments/harms/verdict?verdict=rollback", {})["verdict"] == "rollback"
    assert "errors" in call(client, "POST", "experiments/harms/verdict", {}, 409)["detail"]


def test_verdict_of_several_arms_says_which(client: Client) -> None:
    arms = [
        {"name": name, "model": model}
        for name, model in (("control", "sum@1"), ("a", "sum-too@1"), ("b", "sum-third@1"))
    ]
    split = {"kind": "split", "weights": {"control": 0.5, "a": 0.25, "b": 0.25}}
    running(client, "several", arms=arms, allocation=split)
    problem = call(client, "GET", "experiments/several/verdict", status=400)
    assert problem["field"] == "arm"
    assert "name one with ?arm=, of: a, b" in problem["detail"]
    for arm in ("control", "c"):
        problem = call(client, "GET", f"experiments/several/verdict?arm={arm}", status=400)
        assert f"{arm!r} is none of its arms besides the control" in problem["detail"]
    for method in ("GET", "POST"):
        call(client, method, "experiments/several/verdict?arm=a", status=200 if method == "GET" else 409)
    names = [each["name"] for each in call(client, "GET", "experiments/several/verdict?arm=a")["findings"]]
    assert names == ["click", "errors", "sample_ratio"]
    call(client, "GET", "experiments/nobody/verdict", status=404)


def test_verdict_of_a_draft(client: Client) -> None:
    call(client, "POST", "endpoints", {"name": "draft", "champion": "sum@1"}, 201)
    call(client, "POST", "experiments", experiment("draft", endpoint="draft"), 201)
    found = call(client, "GET", "experiments/draft/verdict")
    assert (found["verdict"], found["reasons"][0]) == ("insufficient", "experiment 'draft' has not started")


def test_experiment_without_a_rollout_is_rolled_back_alone(client: Client) -> None:
    running(client, "alone")
    call(client, "POST", "experiments/alone/rollback", status=428, if_match=None)
    call(client, "POST", "experiments/alone/rollback", status=412, if_match='"1"')
    ended = call(client, "POST", "experiments/alone/rollback", if_match='"2"')
    assert (ended["state"], ended["revision"]) == ("concluded", 3)
    entry = next(each for each in call(client, "GET", "audit") if each["subject"] == "experiment alone")
    assert entry["action"] == "rollback"
    call(client, "POST", "experiments/alone/rollback", status=409)


def test_rollback_of_an_experiment_ends_the_rollout_that_runs_it(client: Client) -> None:
    begin(client, "owned", stages=[{**LAST, "min_decisions": LONG}])
    until(client, "owned", "running")
    assert call(client, "GET", "endpoints/owned")["document"]["champion"] == "sum-too@1"
    for verb in ("pause", "conclude"):
        problem = call(client, "POST", f"experiments/owned-split/{verb}", status=409)
        assert "is run by rollout 'owned': hold, advance or roll that one back" in problem["detail"]
    call(client, "POST", "experiments/owned-split/rollback", status=412, if_match='"1"')
    assert call(client, "GET", "rollouts/owned")["state"] == "running"
    ended = call(client, "POST", "experiments/owned-split/rollback")
    assert ended["state"] == "concluded"
    assert call(client, "GET", "rollouts/owned")["state"] == "rolled_back"
    assert call(client, "GET", "endpoints/owned")["document"]["champion"] == "sum@1"
    reply = call(client, "POST", "endpoints/owned/predict", {"unit": "u", "inputs": INPUTS})
    assert (reply["model"], reply["arm"]) == ("sum@1", None)


@pytest.mark.parametrize("first", [SPLIT, LAST])
def test_crashing_candidate_is_rolled_back_and_nobody_notices(client: Client, first: dict[str, Any]) -> None:
    name = f"crashing-{first['kind']}"
    stages = [first] if first is LAST else [first, LAST]
    begin(client, name, candidate="error@1", stages=[{**each, "min_decisions": LONG} for each in stages])
    until(client, name, "running")
    served: Counter[str] = Counter()
    ends = time.monotonic() + 30
    for number in count():
        reply = call(client, "POST", f"endpoints/{name}/predict", {"unit": f"u{number}", "inputs": INPUTS})
        # The routes may be a moment older than the ledger.
        if (reply["experiment"] is None and served) or time.monotonic() > ends:
            break
        if reply["experiment"] is not None:
            served[reply.get("served_model", reply["model"])] += 1
    assert (reply["model"], reply["experiment"]) == ("sum@1", None)
    # Those were its first calls, before it crashed.
    assert served["error@1"] < 10
    found = until(client, name, "rolled_back")
    assert found["transitions"][-1]["reason"].startswith("errors: ")
    breach = [each for each in found["transitions"][-1]["findings"] if each["name"] == "errors"]
    assert msgspec.json.encode(breach)
    assert (breach[0]["verdict"], breach[0]["candidate_n"] > 10) == ("breached", True)
    assert call(client, "GET", f"endpoints/{name}")["document"]["champion"] == "sum@1"
