import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient
from sqlalchemy import select

from models.registry import Registry
from router.http.app import application
from router.ledger import schema
from router.ledger.contributions import ITEMS
from router.ledger.database import open_database
from router.service import Service
from router.settings import Settings
from tests.router.documents import INPUTS, experiment
from tests.router.small_models import load_small

Client = TestClient[Litestar]


@pytest.fixture
def decision_id(client: Client) -> str:
    """A decision of the running experiment too-vs-sum."""
    client.post("/v1/experiments", json=experiment())
    client.post("/v1/experiments/too-vs-sum/start", headers={"If-Match": "*"})
    return decide(client)


def decide(client: Client, **fields: Any) -> str:
    body = {"unit": "u", "inputs": INPUTS, **fields}
    text: str = client.post("/v1/endpoints/delay/predict", json=body).json()["decision_id"]
    return text


def post(client: Client, body: Any, status: int = 200) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post("/v1/outcomes", content=content)
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


def statistics(settings: Settings) -> dict[str, tuple[int, float]]:
    engine = open_database(settings.database)
    with engine.connect() as connection:
        of_outcomes = schema.statistics.c.metric != ITEMS
        rows = connection.execute(select(schema.statistics).where(of_outcomes)).mappings().all()
    engine.dispose()
    return {row["metric"]: (row["count"], row["sum"]) for row in rows}


def test_a_label_is_accepted_scored_and_shown(client: Client, decision_id: str, settings: Settings) -> None:
    assert post(client, {"decision_id": decision_id, "metric": "late", "value": 1}) == {"status": "accepted"}
    decision = client.get(f"/v1/decisions/{decision_id}").json()
    assert [(each["metric"], each["value"], each["item"]) for each in decision["outcomes"]] == [("late", 1.0, 0)]
    count, total = statistics(settings)["brier"]
    assert count == 1
    assert total == pytest.approx((decision["predictions"][0] - 1) ** 2)


def test_outcomes_feed_the_metrics_that_name_them(client: Client, decision_id: str, settings: Settings) -> None:
    rows = [
        {"decision_id": decision_id, "metric": "click", "value": True},
        {"decision_id": decision_id, "metric": "revenue", "value": 99.5, "id": "payment-1"},
        {"decision_id": decision_id, "metric": "revenue", "value": 0.5, "id": "payment-2"},
        {"decision_id": decision_id, "metric": "seats", "value": 2},
    ]
    assert post(client, rows)["accepted"] == 4
    assert statistics(settings) == {"click": (1, 1.0), "yield/numerator": (1, 100.0), "yield/denominator": (1, 2.0)}


def test_the_same_list_again_is_all_duplicates(client: Client, decision_id: str, settings: Settings) -> None:
    rows = [{"decision_id": decision_id, "metric": name, "value": 1} for name in ("late", "click")]
    assert post(client, rows)["accepted"] == 2
    again = post(client, rows * 3)
    assert (again["accepted"], again["duplicate"], again["rejected"]) == (0, 6, 0)
    assert statistics(settings)["click"] == (1, 1.0)


def test_a_bad_row_does_not_stop_the_others(client: Client, decision_id: str) -> None:
    rows = [
        {"decision_id": decision_id, "metric": "late", "value": 1},
        {"decision_id": decision_id, "metric": "late"},
        {"decision_id": decision_id[:-1], "metric": "late", "value": 1},
        "not even an object",
        {"decision_id": decision_id, "metric": "click", "value": 0},
    ]
    receipts = post(client, rows)
    assert (receipts["accepted"], receipts["rejected"]) == (2, 3)
    assert [each["status"] for each in receipts["receipts"]] == ["accepted", *["rejected"] * 3, "accepted"]
    assert "value: it is missing; add it" in receipts["receipts"][1]["reason"]
    assert "has 43 characters" in receipts["receipts"][2]["reason"]


def forged(decision_id: str) -> str:
    return decision_id[:-1] + ("a" if decision_id[-1] != "a" else "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "clicks"}, "has no metric fed by 'clicks'; it takes: click, late, revenue, seats"),
        ({"metric": "brier"}, "'brier' is computed by the router from the label 'late'; post 'late' instead"),
        ({"metric": "click", "value": 0.5}, "'click' takes 0 or 1, not 0.5"),
        ({"value": 2}, "'late' takes 0 or 1, not 2"),
        ({"value": None}, "a null value retracts an outcome; it needs a version above"),
        ({"value": "yes"}, 'value: here stands "yes"; give a number, true, false or null'),
        ({"item": 1}, "item 1 is out of range: the decision has 1 input, which is item 0"),
        ({"item": -1}, "item: here stands -1; give a whole number >= 0"),
        ({"at": "yesterday"}, 'at: here stands "yesterday"; give an RFC 3339 time with its offset, such as "2026-'),
        ({"at": "2026-01-01T00:00:00"}, "give an RFC 3339 time with its offset"),
        ({"at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, "lies in the future"),
        ({"at": "0001-01-01T00:00:00+23:59"}, "lies before the decision"),
        ({"metric": "revenue", "value": 1e101}, "value must lie within 1e+100 of 0"),
        (
            {"surprise": 1},
            "surprise: there is no such field; remove it (fields here: decision_id, metric, value, item, ",
        ),
        ({"decision": 1}, "decision: there is no such field; did you mean decision_id? (fields here: "),
        ({"decision_id": "forged"}, "has 6 characters"),
        ({"decision_id": "z" * 44}, "it is no decision id of this router; send the id exactly as predict or rank"),
        ({"decision_id": 7}, "decision_id: here stands 7; give a text"),
    ],
)
def test_a_bad_outcome_is_a_problem(client: Client, decision_id: str, changes: dict[str, Any], message: str) -> None:
    body = {"decision_id": decision_id, "metric": "late", "value": 1, **changes}
    found = post(client, body, status=400)
    assert message in found["detail"]
    assert client.get(f"/v1/decisions/{decision_id}").json()["outcomes"] == []


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"", "not valid JSON"), (b'{"value": NaN}', "not valid JSON"), (b'[{"value": 1}', "not valid JSON")],
)
def test_what_is_not_json_is_a_problem(client: Client, body: bytes, message: str) -> None:
    assert message in post(client, body, status=400)["detail"]


def test_a_non_finite_value_is_refused(client: Client, decision_id: str) -> None:
    body = f'{{"decision_id": "{decision_id}", "metric": "revenue", "value": 1e999}}'.encode()
    assert "out of range" in post(client, body, status=400)["detail"]


def test_a_forged_id_is_refused_and_stores_nothing(client: Client, decision_id: str) -> None:
    found = post(client, {"decision_id": forged(decision_id), "metric": "late", "value": 1}, status=400)
    assert found["code"] == "invalid-decision-id"
    assert "signature is not ours" in found["detail"]
    assert client.get(f"/v1/decisions/{decision_id}").json()["outcomes"] == []


@pytest.mark.parametrize("body", [b'{"decision_id": "\xff"}', b"[" * 100_000, b'{"a": ' * 100_000])
def test_what_cannot_be_read_is_a_problem(client: Client, body: bytes) -> None:
    for path in ("/v1/outcomes", "/v1/endpoints/delay/predict", "/v1/experiments"):
        response = client.post(path, content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400, response.text
        assert response.headers["content-type"] == "application/problem+json"


def test_metrics_that_share_an_outcome_count_it_once_each(client: Client, settings: Settings) -> None:
    metrics = [
        {"name": "revenue", "kind": "numeric", "direction": "increase", "role": "primary"},
        {
            "name": "per-click",
            "kind": "ratio",
            "numerator": "revenue",
            "denominator": "clicks",
            "direction": "increase",
        },
        {"name": "per-visit", "kind": "ratio", "numerator": "visits", "denominator": "clicks", "direction": "increase"},
    ]
    client.post("/v1/experiments", json=experiment(metrics=metrics))
    client.post("/v1/experiments/too-vs-sum/start", headers={"If-Match": "*"})
    shared = decide(client)
    post(
        client,
        [
            {"decision_id": shared, "metric": "revenue", "value": 10},
            {"decision_id": shared, "metric": "clicks", "value": 3},
        ],
    )
    assert statistics(settings) == {
        "revenue": (1, 10.0),
        "per-click/numerator": (1, 10.0),
        "per-click/denominator": (1, 3.0),
        "per-visit/denominator": (1, 3.0),
    }


def test_a_correction_and_a_retraction_replace_what_was_said(
    client: Client, decision_id: str, settings: Settings
) -> None:
    said = {"decision_id": decision_id, "metric": "revenue"}
    assert post(client, {**said, "value": 5})["status"] == "accepted"
    assert post(client, {**said, "value": 7, "version": 1})["status"] == "accepted"
    assert statistics(settings)["yield/numerator"] == (1, 7.0)
    assert post(client, {**said, "value": None, "version": 2})["status"] == "accepted"
    assert post(client, {**said, "value": None, "version": 2})["status"] == "duplicate"
    assert post(client, {**said, "value": 7, "version": 1})["status"] == "duplicate"
    assert statistics(settings)["yield/numerator"] == (0, 0.0)
    shown = client.get(f"/v1/decisions/{decision_id}").json()["outcomes"]
    assert [(each["version"], each["value"]) for each in shown] == [(0, 5.0), (1, 7.0), (2, None)]


def test_a_retraction_of_nothing_is_a_problem(client: Client, decision_id: str) -> None:
    problem = post(client, {"decision_id": decision_id, "metric": "click", "value": None}, 400)
    assert problem["field"] == "version"
    assert "retracts an outcome; it needs a version" in problem["detail"]


def test_an_outcome_after_its_window_is_kept_and_its_sender_told(settings: Settings, registry: Registry) -> None:
    now = [1_800_000_000_000]
    service = Service(settings, clock=lambda: now[0], load_model=load_small)
    with TestClient(application(service, max_body_bytes=settings.max_body_bytes)) as client:
        client.post("/v1/endpoints", json={"name": "delay", "champion": "sum@1"})
        client.post("/v1/experiments", json=experiment())
        client.post("/v1/experiments/too-vs-sum/start", headers={"If-Match": "*"})
        row = {"decision_id": decide(client), "value": 1}
        now[0] += 86_401_000
        late = post(client, [{**row, "metric": "click"}, {**row, "metric": "late"}])
    assert late["receipts"] == [
        {"status": "accepted", "reason": "it happened after the window of 'click' (86400 s): kept, not counted"},
        {"status": "accepted"},
    ]
    assert statistics(settings).keys() == {"brier"}
    assert registry.names()


def test_a_correction_after_the_window_happened_when_what_it_corrects_did(
    settings: Settings, registry: Registry
) -> None:
    now = [1_800_000_000_000]
    service = Service(settings, clock=lambda: now[0], load_model=load_small)
    with TestClient(application(service, max_body_bytes=settings.max_body_bytes)) as client:
        client.post("/v1/endpoints", json={"name": "delay", "champion": "sum@1"})
        client.post("/v1/experiments", json=experiment())
        client.post("/v1/experiments/too-vs-sum/start", headers={"If-Match": "*"})
        click = {"decision_id": decide(client), "metric": "click", "value": 1}
        post(client, click)
        now[0] += 2 * 86_400_000
        assert post(client, {**click, "version": 1}) == {"status": "accepted"}
        assert statistics(settings)["click"] == (1, 1.0)
        late = post(client, {**click, "version": 2, "at": datetime.fromtimestamp(now[0] / 1000, UTC).isoformat()})
    assert "it happened after the window of 'click'" in late["reason"]
    assert statistics(settings)["click"] == (0, 0.0)
    assert registry.names()


def test_outcomes_of_champion_traffic_are_kept(client: Client) -> None:
    champion = decide(client)
    assert post(client, {"decision_id": champion, "metric": "anything", "value": 3.5}) == {"status": "accepted"}
    assert client.get(f"/v1/decisions/{champion}").json()["outcomes"][0]["value"] == 3.5


def test_outcomes_count_after_the_experiment_is_concluded(client: Client, decision_id: str) -> None:
    client.post("/v1/experiments/too-vs-sum/conclude", headers={"If-Match": "*"})
    assert post(client, {"decision_id": decision_id, "metric": "late", "value": 0})["status"] == "accepted"


def test_an_outcome_keeps_when_it_happened(client: Client, decision_id: str) -> None:
    at = datetime.now(timezone(timedelta(hours=1))).replace(microsecond=0)
    post(client, {"decision_id": decision_id, "metric": "late", "value": 0, "at": at.isoformat()})
    stored = client.get(f"/v1/decisions/{decision_id}").json()["outcomes"][0]
    assert stored["at"] == at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_too_many_rows_are_too_large(client: Client, decision_id: str) -> None:
    row = {"decision_id": decision_id, "metric": "late", "value": 1}
    assert "the limit is 100" in post(client, [row] * 101, status=413)["detail"]


def test_an_empty_list_is_an_empty_receipt(client: Client) -> None:
    assert post(client, []) == {"accepted": 0, "duplicate": 0, "rejected": 0, "receipts": []}


def test_an_unknown_decision_is_not_found(client: Client, decision_id: str) -> None:
    assert client.get(f"/v1/decisions/{forged(decision_id)}").status_code == 400
    assert client.get("/v1/decisions/short").status_code == 400
