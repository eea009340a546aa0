from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from tests.router.documents import INPUTS, experiment

Client = TestClient[Litestar]


def post(client: Client, path: str, body: Any = None, status: int = 201, match: str | None = None) -> dict[str, Any]:
    return send(client, "POST", path, body, status, match)


def send(client: Client, method: str, path: str, body: Any, status: int, match: str | None) -> dict[str, Any]:
    headers = {} if match is None else {"If-Match": match}
    response = client.request(method, f"/v1/{path}", json=body, headers=headers)
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


def arm_of(client: Client, unit: str) -> str | None:
    reply = client.post("/v1/endpoints/delay/predict", json={"unit": unit, "inputs": INPUTS}).json()
    arm: str | None = reply["arm"]
    return arm


def test_endpoint_is_created_listed_and_read(client: Client) -> None:
    created = post(client, "endpoints", {"name": "other", "champion": "sum-too@1"})
    assert created["document"] == {
        "name": "other",
        "kind": "predict",
        "champion": "sum-too@1",
        "timeout_ms": 200,
        "max_concurrency": 64,
        "breaker": {"failure_rate": 0.5, "calls": 20, "open_s": 5.0},
        "shadows": [],
    }
    assert created["revision"] == 1
    assert [each["document"]["name"] for each in client.get("/v1/endpoints").json()] == ["delay", "other"]
    read = client.get("/v1/endpoints/other")
    assert read.json() == created
    assert read.headers["etag"] == '"1"'


def test_endpoint_gets_a_new_champion_at_once(client: Client) -> None:
    body = {"name": "delay", "champion": "sum-too@1"}
    assert send(client, "PUT", "endpoints/delay", body, 200, '"1"')["revision"] == 2
    reply = client.post("/v1/endpoints/delay/predict", json={"unit": "u", "inputs": INPUTS}).json()
    assert reply["model"] == "sum-too@1"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"name": "delay", "champion": "sum@1"}, 409, "endpoint 'delay' exists already"),
        ({"name": "new", "champion": "nothing@1"}, 404, "no model nothing@1"),
        ({"name": "new", "champion": "sum@9"}, 404, "no model sum@9"),
        ({"name": "new", "champion": "sum"}, 400, "champion"),
        ({"name": "New!", "champion": "sum@1"}, 400, "name"),
        ({"name": "new", "champion": "sum@1", "surprise": 1}, 400, "surprise"),
        ({"name": "new", "champion": "sum@1", "kind": "race"}, 400, "kind"),
        ({"name": "new"}, 400, "champion"),
        (None, 400, ""),
    ],
)
def test_endpoint_of_a_bad_document_is_a_problem(client: Client, body: Any, status: int, message: str) -> None:
    found = post(client, "endpoints", body, status)
    assert message in found["detail"]


def test_endpoint_keeps_its_signature(client: Client) -> None:
    found = send(client, "PUT", "endpoints/delay", {"name": "delay", "champion": "sum-other@1"}, 400, '"1"')
    assert found["field"] == "champion"
    assert "feature 'distance' is a category, not a number" in found["detail"]
    assert "the output is a number, not a probability" in found["detail"]


def test_endpoint_keeps_its_name(client: Client) -> None:
    found = send(client, "PUT", "endpoints/delay", {"name": "other", "champion": "sum@1"}, 400, '"1"')
    assert "a name cannot change" in found["detail"]


@pytest.mark.parametrize(
    ("match", "status", "message"),
    [(None, 428, 'needs If-Match: "1"'), ('"7"', 412, "is at revision 1, not 7"), ("x", 412, "not x")],
)
def test_writes_need_the_revision(client: Client, match: str | None, status: int, message: str) -> None:
    found = send(client, "PUT", "endpoints/delay", {"name": "delay", "champion": "sum@1"}, status, match)
    assert message in found["detail"]


def test_experiment_goes_through_its_states(client: Client) -> None:
    created = post(client, "experiments", experiment())
    assert (created["state"], created["revision"], created["epoch"]) == ("draft", 1, None)
    assert arm_of(client, "u") is None
    started = post(client, "experiments/too-vs-sum/start", status=200, match='"1"')
    assert (started["state"], started["revision"], started["epoch"]) == ("running", 2, 1)
    arm = arm_of(client, "u")
    assert arm is not None
    post(client, "experiments/too-vs-sum/pause", status=200, match='"2"')
    assert arm_of(client, "u") is None
    post(client, "experiments/too-vs-sum/resume", status=200, match='"3"')
    assert arm_of(client, "u") == arm
    concluded = post(client, "experiments/too-vs-sum/conclude", status=200, match='"4"')
    assert concluded["ended_at"] is not None
    assert arm_of(client, "u") is None


@pytest.mark.parametrize("verb", ["pause", "resume", "conclude"])
def test_experiment_refuses_what_its_state_does_not_allow(client: Client, verb: str) -> None:
    post(client, "experiments", experiment())
    found = post(client, f"experiments/too-vs-sum/{verb}", status=409, match="*")
    assert f"cannot {verb} experiment 'too-vs-sum': it is draft" in found["detail"]


def test_experiment_reweighted_moves_only_the_difference(client: Client) -> None:
    post(client, "experiments", experiment())
    post(client, "experiments/too-vs-sum/start", status=200, match="*")
    units = [f"user-{number}" for number in range(60)]
    before = [arm_of(client, unit) for unit in units]
    weights = {"kind": "split", "weights": {"control": 0.2, "too": 0.8}}
    changed = send(client, "PUT", "experiments/too-vs-sum", experiment(allocation=weights), 200, '"2"')
    assert changed["epoch"] == 2
    after = [arm_of(client, unit) for unit in units]
    assert all(late == "too" for early, late in zip(before, after, strict=True) if early == "too")
    assert before != after
    epochs = client.get("/v1/experiments/too-vs-sum/allocation").json()
    assert [each["probabilities"] for each in epochs] == [{"control": 0.5, "too": 0.5}, {"control": 0.2, "too": 0.8}]
    assert [each["reason"] for each in epochs] == ["start", "new weights"]
    assert epochs[1]["runs"] == [[2000, 0], [3000, 1], [5000, 1]] or sum(run[0] for run in epochs[1]["runs"]) == 10_000


def test_experiment_with_new_traffic_gets_an_epoch_of_the_same_table(client: Client) -> None:
    post(client, "experiments", experiment(traffic=0.1))
    post(client, "experiments/too-vs-sum/start", status=200, match="*")
    changed = send(client, "PUT", "experiments/too-vs-sum", experiment(traffic=0.5), 200, "*")
    assert changed["epoch"] == 2
    epochs = client.get("/v1/experiments/too-vs-sum/allocation").json()
    assert [(each["traffic"], each["reason"]) for each in epochs] == [(0.1, "start"), (0.5, "new traffic")]
    assert epochs[0]["runs"] == epochs[1]["runs"]


def test_experiment_with_a_holdout_shows_it_beside_its_arms(client: Client) -> None:
    post(client, "experiments", experiment(holdout=0.1))
    post(client, "experiments/too-vs-sum/start", status=200, match="*")
    send(client, "PUT", "experiments/too-vs-sum", experiment(), 200, "*")
    first, second = client.get("/v1/experiments/too-vs-sum/allocation").json()
    assert first["probabilities"] == {"control": 0.45, "too": 0.45, "holdout": 0.1}
    assert first["runs"] == [[4500, 0], [4500, 1], [1000, 255]]
    assert second["probabilities"] == {"control": 0.5, "too": 0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metrics": [{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}]},
            "'metrics' can no",
        ),
        (
            {"arms": [{"name": "control", "model": "sum@1"}, {"name": "too", "model": "sum@1"}]},
            "its arms keep their names",
        ),
        (
            {"randomise": "request"},
            "'randomise' can no longer change, only allocation, arms, holdout, shadows, traffic",
        ),
        ({"sticky": True}, "'sticky' can no longer change"),
        ({"planned_decisions": 20_000}, "'planned_decisions' can no longer change"),
    ],
)
def test_running_experiment_keeps_arms_and_metrics(client: Client, changes: dict[str, Any], message: str) -> None:
    post(client, "experiments", experiment())
    post(client, "experiments/too-vs-sum/start", status=200, match="*")
    found = send(client, "PUT", "experiments/too-vs-sum", experiment(**changes), 409, "*")
    assert message in found["detail"]


def test_draft_can_change_everything_but_its_endpoint(client: Client) -> None:
    post(client, "experiments", experiment())
    send(client, "PUT", "experiments/too-vs-sum", experiment(randomise="request", traffic=0.5), 200, '"1"')
    post(client, "endpoints", {"name": "other", "champion": "sum@1"})
    found = send(client, "PUT", "experiments/too-vs-sum", experiment(endpoint="other"), 400, "*")
    assert found["field"] == "endpoint"


def test_concluded_experiment_cannot_change(client: Client) -> None:
    post(client, "experiments", experiment())
    post(client, "experiments/too-vs-sum/start", status=200, match="*")
    post(client, "experiments/too-vs-sum/conclude", status=200, match="*")
    assert "is concluded" in send(client, "PUT", "experiments/too-vs-sum", experiment(), 409, "*")["detail"]


@pytest.mark.parametrize(
    ("changes", "status", "field", "message"),
    [
        (
            {"allocation": {"kind": "split", "weights": {"control": 0.5, "too": 0.4}}},
            400,
            "allocation.weights",
            "the weights sum to 0.9; they must sum to 1",
        ),
        (
            {"arms": [{"name": "control", "model": "sum@1"}, {"name": "too", "model": "sum-other@1"}]},
            400,
            "arms[1].model",
            "model 'sum-other@1' of arm 'too' does not fit endpoint 'delay'",
        ),
        (
            {"arms": [{"name": "control", "model": "sum@1"}, {"name": "too", "model": "away@1"}]},
            404,
            None,
            "no model away@1",
        ),
        (
            {"allocation": {"kind": "split", "weights": {"control": 0.5, "forest": 0.5}}},
            400,
            "allocation.weights",
            "'forest' is not an arm; arms: control, too",
        ),
        (
            {"allocation": {"kind": "split", "weights": {"control": "half", "too": 0.5}}},
            400,
            "allocation.weights.control",
            'here stands "half"; give a number',
        ),
        ({"arm": []}, 400, "arm", "there is no such field; did you mean arms? (fields here: name, endpoint, arms, "),
        ({"endpoint": "nowhere"}, 404, None, "there is no endpoint 'nowhere'; known endpoints: delay"),
        (
            {"allocation": {"kind": "coin"}},
            400,
            "allocation.kind",
            'here stands "coin"; give split, thompson, contextual or interleave',
        ),
        ({"traffic": "0.5"}, 400, "traffic", 'here stands "0.5"; give a number'),
        ({"sticky": True, "randomise": "request"}, 400, "sticky", "set randomise to 'unit' or sticky to false"),
    ],
)
def test_experiment_of_a_bad_document_is_a_problem(
    client: Client, changes: dict[str, Any], status: int, field: str | None, message: str
) -> None:
    found = post(client, "experiments", experiment(**changes), status)
    assert message in found["detail"]
    assert found.get("field") == field
    assert client.get("/v1/experiments").json() == []


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ("limit=many", "limit", 'here stands "many"; give a whole number'),
        ("limit=0", "limit", 'here stands "0"; give a whole number >= 1'),
        ("before=x", "before", 'here stands "x"; give a whole number or null'),
    ],
)
def test_a_parameter_of_another_type_is_a_problem(client: Client, query: str, field: str, reason: str) -> None:
    found = client.get(f"/v1/audit?{query}").json()
    assert (found["status"], found["field"], found["detail"]) == (400, field, f"{field}: {reason}")


def test_an_empty_body_is_a_problem(client: Client) -> None:
    found = client.post("/v1/endpoints").json()
    assert (found["status"], found["detail"]) == (400, "the body: it is empty; send a document in JSON")


def test_experiment_name_is_taken(client: Client) -> None:
    post(client, "experiments", experiment())
    assert "exists already" in post(client, "experiments", experiment(), 409)["detail"]


def test_unknown_experiment_names_the_known(client: Client) -> None:
    post(client, "experiments", experiment())
    found = client.get("/v1/experiments/else").json()
    assert found["detail"] == "there is no experiment 'else'; known experiments: too-vs-sum"


def test_experiments_on_one_endpoint_decide_in_order(client: Client) -> None:
    for name in ("first", "second"):
        post(client, "experiments", experiment(name, traffic=0.5))
        post(client, f"experiments/{name}/start", status=200, match="*")
    body = {"inputs": INPUTS}
    replies = [
        client.post("/v1/endpoints/delay/predict", json={**body, "unit": f"u{number}"}).json() for number in range(60)
    ]
    assert {reply["experiment"] for reply in replies} == {"first", "second", None}


def test_models_are_listed_and_read(client: Client) -> None:
    listed = client.get("/v1/models").json()
    assert "sum@1" in [each["model"] for each in listed]
    manifest = client.get("/v1/models/sum@1").json()
    assert [feature["name"] for feature in manifest["signature"]["features"]] == ["distance", "carrier", "wind"]
    assert client.get("/v1/models/sum@7").status_code == 404
    assert client.get("/v1/models/sum").status_code == 400
