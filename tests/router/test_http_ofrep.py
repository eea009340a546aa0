from typing import Any

from litestar import Litestar
from litestar.testing import TestClient
from sqlalchemy import func, select

from models.registry import Registry
from router.decision_id import Signer
from router.http.app import application
from router.ledger import schema
from router.ledger.database import open_database
from router.service import Service
from router.settings import Settings
from router.verification.findings import Failure
from router.verification.ledger import verify
from tests.router.documents import INPUTS, experiment
from tests.router.keyrings import bearer, make_key
from tests.router.small_models import load_small

Client = TestClient[Litestar]

FLAGS = "/ofrep/v1/evaluate/flags"
FLAG = f"{FLAGS}/too-vs-sum"


def start(client: Client, **changes: Any) -> None:
    document = experiment(**changes)
    assert client.post("/v1/experiments", json=document).status_code == 201
    assert client.post(f"/v1/experiments/{document['name']}/start", headers={"If-Match": "*"}).status_code == 200


def evaluated(client: Client, unit: str = "u", key: str = "too-vs-sum", **attributes: Any) -> dict[str, Any]:
    response = client.post(f"{FLAGS}/{key}", json={"context": {"targetingKey": unit, **attributes}})
    assert response.status_code == 200, response.text
    flag: dict[str, Any] = response.json()
    assert flag["key"] == key
    return flag


def decisions(settings: Settings) -> int:
    engine = open_database(settings.database)
    with engine.connect() as connection:
        count: int = connection.execute(select(func.count()).select_from(schema.decisions)).scalar_one()
    engine.dispose()
    return count


def test_a_flag_is_the_arm_that_predict_would_give(client: Client) -> None:
    start(client)
    variants = set()
    for number in range(20):
        unit = f"user-{number}"
        plain = client.post("/v1/endpoints/delay/predict", json={"unit": unit, "inputs": INPUTS}).json()
        flag = evaluated(client, unit)
        assert (flag["reason"], flag["variant"], flag["value"]) == ("SPLIT", plain["arm"], plain["arm"])
        metadata = flag["metadata"]
        assert metadata.pop("decisionId") != plain["decision_id"]
        assert metadata == {"endpoint": "delay", "epoch": 1, "propensity": 0.5, "model": plain["model"]}
        variants.add(flag["variant"])
    assert variants == {"control", "too"}


def test_an_evaluation_is_an_exposure_with_one_item_that_nobody_predicted(client: Client) -> None:
    start(client)
    flag = evaluated(client, "u", origin="JFK", hour=9, vip=True, tags=["a"], nothing=None, nested={"a": 1})
    decision_id = flag["metadata"]["decisionId"]
    stored = client.get(f"/v1/decisions/{decision_id}").json()
    assert (stored["experiment"], stored["arm"], stored["unit"]) == ("too-vs-sum", flag["variant"], "u")
    assert stored["context"] == {"origin": "JFK", "hour": 9, "vip": True}
    assert (stored["inputs"], stored["predictions"]) == ([{}], [None])
    assert stored["model"] == stored["served_model"] == flag["metadata"]["model"]
    outcomes = [{"decision_id": decision_id, "metric": name, "value": 1} for name in ("click", "late")]
    outcomes.append({"decision_id": decision_id, "metric": "click", "value": 1, "item": 1})
    receipts = client.post("/v1/outcomes", json=outcomes).json()["receipts"]
    assert [each["status"] for each in receipts] == ["accepted", "accepted", "rejected"]
    assert "out of range: the decision has 1 input, which is item 0" in receipts[2]["reason"]


def test_exposures_and_their_outcomes_are_verified(settings: Settings, registry: Registry) -> None:
    assert registry.names()
    service = Service(settings, load_model=load_small)
    with TestClient(application(service, max_body_bytes=10_000)) as client:
        client.post("/v1/endpoints", json={"name": "delay", "champion": "sum@1"})
        start(client, holdout=0.2, sticky=True, traffic=0.8)
        start(client, name="anew", randomise="request")
        for number in range(60):
            for key in ("too-vs-sum", "anew"):
                flag = evaluated(client, f"user-{number}", key)
                if "decisionId" in flag["metadata"]:
                    row = {"decision_id": flag["metadata"]["decisionId"], "metric": "click", "value": number % 2}
                    assert client.post("/v1/outcomes", json=row).json() == {"status": "accepted"}
    engine, failures = open_database(settings.database), list[Failure]()
    verify(engine, Signer(settings.secrets()), report=failures.append)
    engine.dispose()
    assert failures == []


def test_the_audience_decides_and_the_reason_says_so(client: Client) -> None:
    start(client, audience=[{"attribute": "origin", "op": "eq", "value": "JFK"}])
    assert evaluated(client, origin="JFK")["reason"] == "TARGETING_MATCH"
    outside = evaluated(client, origin="EWR")
    assert outside == {
        "key": "too-vs-sum",
        "reason": "DISABLED",
        "variant": "(none)",
        "metadata": {"endpoint": "delay", "state": "running"},
    }


def test_an_arm_that_everybody_gets_is_static(client: Client) -> None:
    start(client, allocation={"kind": "split", "weights": {"control": 0.0, "too": 1.0}})
    flag = evaluated(client)
    assert (flag["reason"], flag["value"], flag["metadata"]["propensity"]) == ("STATIC", "too", 1.0)


def test_the_holdout_is_an_exposure_without_a_value(client: Client) -> None:
    start(client, holdout=0.9)
    flags = [evaluated(client, f"user-{number}") for number in range(20)]
    held = [flag for flag in flags if flag["variant"] == "holdout"]
    assert len(held) > 10
    assert all(flag["reason"] == "SPLIT" and "value" not in flag for flag in held)
    stored = client.get(f"/v1/decisions/{held[0]['metadata']['decisionId']}").json()
    assert (stored["arm"], stored["model"], stored["propensity"]) == ("holdout", "sum@1", 0.9)


def test_what_does_not_run_is_disabled_and_no_exposure(client: Client, settings: Settings) -> None:
    assert client.post("/v1/experiments", json=experiment()).status_code == 201
    assert evaluated(client)["metadata"]["state"] == "draft"
    for move, state in (("start", None), ("pause", "paused"), ("resume", None), ("conclude", "concluded")):
        client.post(f"/v1/experiments/too-vs-sum/{move}", headers={"If-Match": "*"})
        if state is not None:
            flag = evaluated(client)
            assert (flag["reason"], flag["variant"], flag["metadata"]["state"]) == ("DISABLED", "(none)", state)
    assert decisions(settings) == 0


def test_a_unit_that_another_experiment_takes_is_not_taken_twice(client: Client) -> None:
    start(client, traffic=0.5)
    start(client, name="second")
    taken = [
        {key for key in ("too-vs-sum", "second") if "value" in evaluated(client, f"user-{number}", key)}
        for number in range(30)
    ]
    assert {len(each) for each in taken} == {1}
    assert {key for each in taken for key in each} == {"too-vs-sum", "second"}


def test_a_unit_keeps_its_first_arm_where_that_is_sticky(client: Client) -> None:
    start(client, sticky=True)
    before = {f"user-{number}": evaluated(client, f"user-{number}")["value"] for number in range(20)}
    changed = experiment(sticky=True, allocation={"kind": "split", "weights": {"control": 0.0, "too": 1.0}})
    assert client.put("/v1/experiments/too-vs-sum", json=changed, headers={"If-Match": "*"}).status_code == 200
    assert {unit: evaluated(client, unit)["value"] for unit in before} == before
    predicted = client.post("/v1/endpoints/delay/predict", json={"unit": "user-3", "inputs": INPUTS}).json()
    assert predicted["arm"] == before["user-3"]


def test_an_experiment_that_interleaves_is_no_flag(client: Client) -> None:
    client.post("/v1/endpoints", json={"name": "choice", "kind": "rank", "champion": "sum@1"})
    start(
        client,
        endpoint="choice",
        allocation={"kind": "interleave"},
        metrics=[{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}],
    )
    response = client.post(FLAG, json={"context": {"targetingKey": "u"}})
    assert (response.status_code, response.json()["errorCode"]) == (404, "FLAG_NOT_FOUND")
    assert "interleaves rankings, which gives a unit no arm" in response.json()["errorDetails"]
    assert client.post(FLAGS, json={"context": {"targetingKey": "u"}}).json() == {"flags": []}


def test_all_flags_at_once_are_no_exposure(client: Client, settings: Settings) -> None:
    start(client, traffic=0.5)
    start(client, name="second")
    start(client, name="anew", randomise="request")
    client.post("/v1/experiments", json=experiment("draft"))
    for number in range(10):
        context = {"targetingKey": f"user-{number}"}
        flags = client.post(FLAGS, json={"context": context}).json()["flags"]
        single = [evaluated(client, f"user-{number}", key) for key in ("too-vs-sum", "second")]
        for flag in single:
            flag["metadata"].pop("decisionId", None)
        assert flags == single
    assert decisions(settings) == 10


def test_unchanged_flags_are_not_sent_again(client: Client) -> None:
    start(client)
    body = {"context": {"targetingKey": "u"}}
    first = client.post(FLAGS, json=body)
    tag = first.headers["etag"]
    for given in (tag, f'"x", W/{tag}', "*"):
        again = client.post(FLAGS, json=body, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.post(FLAGS, json=body, headers={"If-None-Match": '"x"'}).json() == first.json()
    client.post("/v1/experiments/too-vs-sum/pause", headers={"If-Match": "*"})
    changed = client.post(FLAGS, json=body, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()) == (200, {"flags": []})


BAD: list[tuple[bytes, str]] = [
    (b"", "PARSE_ERROR"),
    (b"{", "PARSE_ERROR"),
    (b"\xff", "PARSE_ERROR"),
    (b'{"context": {"targetingKey": "\xff"}}', "PARSE_ERROR"),
    (b"[" * 100_000, "PARSE_ERROR"),
    (b"[]", "INVALID_CONTEXT"),
    (b'{"context": 5}', "INVALID_CONTEXT"),
    (b"{}", "TARGETING_KEY_MISSING"),
    (b'{"context": {}}', "TARGETING_KEY_MISSING"),
    (b'{"context": {"targetingKey": ""}}', "TARGETING_KEY_MISSING"),
    (b'{"context": {"targetingKey": 5}}', "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": "\\u0000"}}', "INVALID_CONTEXT"),
    (b'{"context": {"targetingKey": "%s"}}' % (b"x" * 600), "INVALID_CONTEXT"),
]


def test_a_context_that_is_none_is_refused(client: Client) -> None:
    start(client)
    for content, code in BAD:
        single, bulk = client.post(FLAG, content=content), client.post(FLAGS, content=content)
        assert (single.status_code, bulk.status_code) == (400, 400), content
        assert (single.json()["key"], single.json()["errorCode"]) == ("too-vs-sum", code), content
        assert bulk.json()["errorCode"] == code
        assert "key" not in bulk.json()
        assert single.json()["errorDetails"] == bulk.json()["errorDetails"] != ""


def test_an_unknown_flag_is_not_found(client: Client) -> None:
    response = client.post(f"{FLAGS}/nobody", json={"context": {"targetingKey": "u"}})
    assert (response.status_code, response.json()["errorCode"]) == (404, "FLAG_NOT_FOUND")
    assert response.json()["key"] == "nobody"


def test_refusals_have_the_protocols_shape(settings: Settings, registry: Registry) -> None:
    assert registry.names()
    _, slow = make_key(settings.database, "predict", rate=0.5)
    _, wrong = make_key(settings.database, "outcome")
    with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
        assert (client.post(FLAG).status_code, client.post(FLAG, headers=bearer(wrong)).status_code) == (401, 403)
        assert client.post(FLAG, headers={"X-API-Key": slow}, content=b" " * 20_000).status_code == 413
        limited = client.post(FLAG, headers={"X-API-Key": slow})
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "2")
        assert limited.json()["errorCode"] == "GENERAL"
        assert "slow down" in limited.json()["errorDetails"]
        assert client.get(FLAG).json() == {
            "key": "too-vs-sum",
            "errorCode": "GENERAL",
            "errorDetails": "Method Not Allowed",
        }
