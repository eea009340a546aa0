import json
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from tests.router.documents import INPUTS, experiment
from tests.router.small_models import FEATURES

Client = TestClient[Litestar]

PREDICT = "/v1/endpoints/delay/predict"


def start(client: Client, document: dict[str, Any]) -> None:
    created = client.post("/v1/experiments", json=document)
    assert created.status_code == 201, created.text
    started = client.post(f"/v1/experiments/{document['name']}/start", headers={"If-Match": '"1"'})
    assert started.status_code == 200, started.text


def predict(client: Client, unit: str = "u", inputs: Any = INPUTS, **fields: Any) -> dict[str, Any]:
    response = client.post(PREDICT, json={"unit": unit, "inputs": inputs, **fields})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def forced(client: Client, arm: str, unit: str = "u", **fields: Any) -> dict[str, Any]:
    body = {"unit": unit, "inputs": INPUTS, **fields}
    response = client.post(PREDICT, json=body, headers={"X-Turnout-Arm": arm})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def problem(client: Client, body: Any, status: int = 400, endpoint: str = "delay") -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(f"/v1/endpoints/{endpoint}/predict", content=content)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == status
    assert found["title"]
    return found


def test_predict_without_experiment_is_the_champions(client: Client) -> None:
    reply = predict(client)
    assert reply["model"] == "sum@1"
    assert reply["experiment"] is None
    assert reply["arm"] is None
    assert reply["propensity"] == 1.0
    assert reply["prediction"] == pytest.approx(0.526, abs=1e-3)
    stored = client.get(f"/v1/decisions/{reply['decision_id']}").json()
    assert stored["predictions"] == [reply["prediction"]]
    assert stored["inputs"] == [INPUTS]
    assert stored["outcomes"] == []


def test_predict_in_an_experiment_names_arm_and_propensity(client: Client) -> None:
    start(client, experiment())
    replies = [predict(client, unit=f"user-{number}") for number in range(40)]
    assert {reply["arm"] for reply in replies} == {"control", "too"}
    assert {reply["propensity"] for reply in replies} == {0.5}
    assert {(reply["arm"], reply["model"]) for reply in replies} == {("control", "sum@1"), ("too", "sum-too@1")}
    assert [predict(client, unit=f"user-{number}")["arm"] for number in range(40)] == [r["arm"] for r in replies]


def test_predict_of_a_list_is_one_decision(client: Client) -> None:
    reply = predict(client, inputs=[INPUTS, {**INPUTS, "distance": 900.0}])
    assert len(reply["predictions"]) == 2
    assert "prediction" not in reply
    assert len(client.get(f"/v1/decisions/{reply['decision_id']}").json()["inputs"]) == 2


def test_predict_keeps_the_order_of_features_apart_from_the_arms(client: Client, registry: Any) -> None:
    from models.signature import Signature
    from tests.router.small_models import add_model

    reference = add_model(registry, "sum-reversed", Signature(tuple(reversed(FEATURES)), "probability"))
    arms = [{"name": "control", "model": "sum@1"}, {"name": "reversed", "model": reference}]
    weights = {"control": 0.0, "reversed": 1.0}
    plain = predict(client)["prediction"]
    start(client, experiment(arms=arms, allocation={"kind": "split", "weights": weights}))
    reply = predict(client)
    assert reply["arm"] == "reversed"
    assert reply["prediction"] == pytest.approx(plain)


def test_predict_serves_an_unknown_category(client: Client) -> None:
    assert 0 < predict(client, inputs={**INPUTS, "carrier": "never seen 🚂"})["prediction"] < 1


def test_predict_serves_null_where_the_signature_allows_it(client: Client) -> None:
    assert 0 < predict(client, inputs={**INPUTS, "wind": None})["prediction"] < 1


def test_predict_with_an_id_is_answered_once(client: Client) -> None:
    first, again = (predict(client, id="order-1") for _ in range(2))
    assert first == again
    start(client, experiment())
    assert predict(client, id="order-1") == first
    assert predict(client, id="order-2", unit="v")["experiment"] == "too-vs-sum"
    assert predict(client, id="order-2", unit="v")["arm"] == predict(client, id="order-3", unit="v")["arm"]


def test_predict_with_an_id_of_another_request_is_refused(client: Client) -> None:
    predict(client, id="order-1")
    found = problem(client, {"unit": "somebody else", "inputs": INPUTS, "id": "order-1"}, status=409)
    assert "made for another unit" in found["detail"]


def test_predict_audience_looks_at_the_context(client: Client) -> None:
    start(client, experiment(audience=[{"attribute": "origin", "op": "eq", "value": "JFK"}]))
    assert predict(client, context={"origin": "JFK"})["experiment"] == "too-vs-sum"
    assert predict(client, context={"origin": "EWR"})["experiment"] is None
    reply = predict(client, context={"origin": "JFK", "hour": 9.0, "vip": True})
    assert client.get(f"/v1/decisions/{reply['decision_id']}").json()["context"] == {
        "origin": "JFK",
        "hour": 9.0,
        "vip": True,
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("slow", "no prediction within 50 ms"),
        ("error", "RuntimeError: out of order"),
        ("nan", "it predicted a value that is not finite"),
    ],
)
def test_predict_of_a_failing_arm_is_answered_by_the_champion(client: Client, name: str, reason: str) -> None:
    arms = [{"name": "control", "model": "sum@1"}, {"name": "bad", "model": f"{name}@1"}]
    start(client, experiment(arms=arms, allocation={"kind": "split", "weights": {"control": 0.0, "bad": 1.0}}))
    replies = [predict(client, unit=f"user-{number}") for number in range(5)]
    reply = replies[-1]
    assert (reply["arm"], reply["model"], reply["served_model"]) == ("bad", f"{name}@1", "sum@1")
    assert reply["fallback"] == reason
    stored = client.get(f"/v1/decisions/{reply['decision_id']}").json()
    assert (stored["arm"], stored["served_model"], stored["fallback"]) == ("bad", "sum@1", reason)


def test_predict_of_a_failing_champion_is_a_problem_and_no_decision(client: Client) -> None:
    client.post("/v1/endpoints", json={"name": "broken", "champion": "nan@1"})
    found = problem(client, {"unit": "u", "inputs": INPUTS}, status=500, endpoint="broken")
    assert found["code"] == "prediction-failed"
    assert "nan@1" in found["detail"]


def test_predict_on_an_unknown_endpoint_names_the_known(client: Client) -> None:
    found = problem(client, {"unit": "u", "inputs": INPUTS}, status=404, endpoint="dealy")
    assert found["detail"] == "there is no endpoint 'dealy'; known endpoints: delay"
    assert found["code"] == "unknown-endpoint"


def test_predict_in_the_holdout_is_the_champions_and_logged(client: Client) -> None:
    arms = [{"name": "slow", "model": "slow@1"}, {"name": "too", "model": "sum-too@1"}]
    weights = {"kind": "split", "weights": {"slow": 0.0, "too": 1.0}}
    start(client, experiment(arms=arms, allocation=weights, holdout=0.4))
    replies = [predict(client, unit=f"user-{number}") for number in range(30)]
    assert {(reply["arm"], reply["model"], reply["propensity"]) for reply in replies} == {
        ("too", "sum-too@1", 0.6),
        ("holdout", "sum@1", 0.4),
    }
    assert {(reply["experiment"], reply["epoch"]) for reply in replies} == {("too-vs-sum", 1)}
    for reply in replies:
        stored = client.get(f"/v1/decisions/{reply['decision_id']}").json()
        assert {name: stored[name] for name in reply.keys() & stored.keys()} == {
            name: reply[name] for name in reply.keys() & stored.keys()
        }
        assert stored["served_model"] == reply["model"]


def test_predict_in_the_holdout_with_an_id_is_answered_once(client: Client) -> None:
    start(client, experiment(holdout=0.9))
    first, again = (predict(client, unit="user-1", id="order-1") for _ in range(2))
    assert first["arm"] == "holdout"
    assert again == first


def test_predict_in_the_holdout_takes_outcomes_of_the_experiment(client: Client) -> None:
    start(client, experiment(holdout=0.9))
    reply = predict(client, unit="user-1")
    assert reply["arm"] == "holdout"
    for metric, status in (("late", 200), ("never-declared", 400)):
        body = {"decision_id": reply["decision_id"], "metric": metric, "value": 1}
        assert client.post("/v1/outcomes", json=body).status_code == status


def test_predict_with_a_forced_arm_is_that_arms_and_outside_of_every_epoch(client: Client) -> None:
    weights = {"kind": "split", "weights": {"control": 1.0, "too": 0.0}}
    nobody = [{"attribute": "origin", "op": "eq", "value": "nowhere"}]
    start(client, experiment(allocation=weights, audience=nobody, traffic=0.0, sticky=True))
    for name in ("too", "too-vs-sum/too"):
        reply = forced(client, name)
        assert [reply[name] for name in ("experiment", "epoch", "arm", "model", "propensity")] == [
            "too-vs-sum",
            0,
            "too",
            "sum-too@1",
            1.0,
        ]
        stored = client.get(f"/v1/decisions/{reply['decision_id']}").json()
        assert (stored["epoch"], stored["arm"], stored["propensity"]) == (0, "too", 1.0)


def test_predict_with_a_forced_arm_leaves_the_units_own_assignment_alone(client: Client) -> None:
    start(client, experiment(sticky=True))
    free = {predict(client, unit=unit)["arm"] for unit in ("a", "b", "c", "d", "e")}
    assert free == {"control", "too"}
    for unit in ("f", "g", "h", "i", "j"):
        assert forced(client, "too", unit=unit)["arm"] == "too"
    assert {predict(client, unit=unit)["epoch"] for unit in ("f", "g", "h", "i", "j")} == {1}
    assert {predict(client, unit=unit)["arm"] for unit in ("f", "g", "h", "i", "j")} == {"control", "too"}


def test_predict_with_a_forced_arm_takes_any_outcome_and_counts_it_nowhere(client: Client) -> None:
    start(client, experiment())
    body = {"decision_id": forced(client, "too")["decision_id"], "metric": "never-declared", "value": 7}
    assert client.post("/v1/outcomes", json=body).json() == {"status": "accepted"}


def test_predict_with_a_forced_arm_and_an_id_is_answered_once(client: Client) -> None:
    start(client, experiment())
    first = forced(client, "too", id="order-1")
    assert forced(client, "too-vs-sum/too", id="order-1") == first
    for headers in ({}, {"X-Turnout-Arm": "control"}):
        again = client.post(PREDICT, json={"unit": "u", "inputs": INPUTS, "id": "order-1"}, headers=headers)
        assert again.status_code == 409
        assert "whose arm was chosen in another way" in again.json()["detail"]
    predict(client, id="order-2")
    again = client.post(
        PREDICT, json={"unit": "u", "inputs": INPUTS, "id": "order-2"}, headers={"X-Turnout-Arm": "too"}
    )
    assert again.status_code == 409


@pytest.mark.parametrize("name", ["tow", "too-vs-sum/tow", "other/too", "holdout", ""])
def test_predict_with_an_unknown_forced_arm_names_the_known(client: Client, name: str) -> None:
    start(client, experiment(holdout=0.1))
    refused = client.post(PREDICT, json={"unit": "u", "inputs": INPUTS}, headers={"X-Turnout-Arm": name})
    assert refused.status_code == 400
    assert refused.json()["field"] == "X-Turnout-Arm"
    assert refused.json()["detail"] == (
        f"X-Turnout-Arm names {name!r}, which no running experiment of endpoint 'delay' has; "
        "known arms: too-vs-sum/control, too-vs-sum/too"
    )


def test_predict_with_a_forced_arm_that_fails_is_answered_by_the_champion(client: Client) -> None:
    arms = [{"name": "control", "model": "sum@1"}, {"name": "bad", "model": "nan@1"}]
    start(client, experiment(arms=arms, allocation={"kind": "split", "weights": {"control": 1.0, "bad": 0.0}}))
    reply = forced(client, "bad")
    assert (reply["arm"], reply["model"], reply["served_model"], reply["epoch"]) == ("bad", "nan@1", "sum@1", 0)


without_wind = {name: value for name, value in INPUTS.items() if name != "wind"}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b"{", None, "not valid JSON"),
        (b"", None, "not valid JSON"),
        (b'{"unit": "u", "inputs": {"distance": NaN}}', None, "not valid JSON"),
        ([], None, "the body: here stands []; give an object"),
        (
            {"inputs": INPUTS},
            "unit",
            "it is missing; give a text without NUL, of 1 to 512 characters (fields here: unit, ",
        ),
        ({"unit": "", "inputs": INPUTS}, "unit", 'here stands ""; give a text without NUL, of 1 to 512 characters'),
        ({"unit": 7, "inputs": INPUTS}, "unit", "here stands 7; give a text"),
        ({"unit": "u"}, "inputs", "it is missing; add it"),
        (
            {"unit": "u", "inputs": INPUTS, "input": 1},
            "input",
            "there is no such field; did you mean inputs? (fields here: ",
        ),
        ({"unit": "u", "inputs": []}, "inputs", "the list of inputs is empty"),
        ({"unit": "u", "inputs": without_wind}, "inputs.wind", "it is missing; add it"),
        ({"unit": "u", "inputs": {**INPUTS, "speed": 1}}, "inputs.speed", "there is no such field; remove it"),
        ({"unit": "u", "inputs": {**INPUTS, "distance": "far"}}, "inputs.distance", 'here stands "far"; give a number'),
        ({"unit": "u", "inputs": {**INPUTS, "distance": None}}, "inputs.distance", "here stands null; give a number"),
        ({"unit": "u", "inputs": {**INPUTS, "distance": True}}, "inputs.distance", "here stands true; give a number"),
        ({"unit": "u", "inputs": {**INPUTS, "carrier": 6}}, "inputs.carrier", "here stands 6; give a text"),
        (
            {"unit": "u", "inputs": [INPUTS, {**INPUTS, "distance": "x"}]},
            "inputs[1].distance",
            'here stands "x"; give a number',
        ),
        (b'{"unit": "u", "inputs": {"distance": 1e999, "carrier": "A", "wind": 1}}', "inputs.distance", "out of range"),
        (
            {"unit": "u", "inputs": {**INPUTS, "distance": 1e300}},
            "inputs.distance",
            "here stands 1e300; give a number <= 3.4",
        ),
        (
            {"unit": "u", "inputs": INPUTS, "context": {"a": [1]}},
            "context.a",
            "here stands [1]; give a number, a text, true or false",
        ),
        (
            {"unit": "u", "inputs": INPUTS, "id": ""},
            "id",
            'here stands ""; give a text without NUL, of 1 to 128 characters or null',
        ),
        (b'{"unit": "\\ud800", "inputs": {}}', None, "not valid JSON"),
    ],
)
def test_predict_of_bad_input_names_field_and_remedy(
    client: Client, body: Any, field: str | None, message: str
) -> None:
    found = problem(client, body)
    assert message in found["detail"]
    assert found.get("field") == field


def test_predict_of_bad_features_lists_what_the_endpoint_takes(client: Client) -> None:
    found = problem(client, {"unit": "u", "inputs": without_wind})
    assert "(fields here: distance (number), carrier (category), wind (number))" in found["detail"]


def test_predict_of_ten_megabytes_is_too_large(client: Client) -> None:
    body = b'{"unit": "u", "inputs": [' + b" " * 10_000_000 + b"]}"
    assert problem(client, body, status=413)["title"] == "Request Entity Too Large"


def test_predict_of_too_many_inputs_is_too_large(client: Client) -> None:
    found = problem(client, {"unit": "u", "inputs": [INPUTS] * 101}, status=413)
    assert found["detail"] == "101 inputs in one request; the limit is 100: send several requests"


def test_predict_of_deep_nesting_is_refused(client: Client) -> None:
    assert problem(client, b'{"unit": "u", "inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")["status"] == 400
