"""The hot calls are answered without Litestar; whatever it is, both ways give the same reply."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from router.http.hot_calls import Application
from tests.router.documents import INPUTS, experiment
from tests.router.small_models import FEATURES

Client = TestClient[Litestar]

PREDICT, RANK, OUTCOMES = "/v1/endpoints/delay/predict", "/v1/endpoints/choice/rank", "/v1/outcomes"
GOOD = {"unit": "u", "inputs": INPUTS}
DIFFERS = {"decision_id", "date"}
"""What no two replies have in common."""


def in_pieces(body: bytes) -> Iterator[bytes]:
    """A body whose length is not known, which only Litestar takes."""
    yield body


def replies(client: Client, path: str, body: bytes, **options: Any) -> tuple[httpx.Response, httpx.Response]:
    """The hot reply and Litestar's."""
    hot = client.post(path, content=body, **options)
    return hot, client.post(path, content=in_pieces(body), **options)


def told(response: httpx.Response) -> Any:
    content = response.json()
    return {name: value for name, value in content.items() if name not in DIFFERS}


def headers(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name != "content-length"}


def assert_alike(hot: httpx.Response, general: httpx.Response) -> None:
    assert hot.status_code == general.status_code
    assert headers(hot) == headers(general)
    assert told(hot) == told(general)
    assert int(hot.headers["content-length"]) == len(hot.content)


@pytest.fixture
def litestar_fails(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise AssertionError("Litestar was asked")

    monkeypatch.setattr(client.app, "asgi_handler", fail)


@pytest.mark.usefixtures("litestar_fails")
@pytest.mark.parametrize("path", [PREDICT, RANK, OUTCOMES, "/v1/endpoints/nothing/predict"])
@pytest.mark.parametrize("body", [b"", b"{", json.dumps(GOOD).encode()])
def test_hot_calls_pass_litestar_by(client: Client, path: str, body: bytes) -> None:
    assert isinstance(client.app, Application)
    assert client.post(path, content=body or b" ").status_code in {200, 400, 404}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, GOOD),
        (PREDICT, {"unit": "u", "inputs": [INPUTS, INPUTS]}),
        (PREDICT, {"unit": "u", "inputs": []}),
        (PREDICT, {"unit": "u", "inputs": {**INPUTS, next(iter(FEATURES)).name: "much"}}),
        (PREDICT, {"unit": "u", "inputs": INPUTS, "more": 1}),
        (PREDICT, {"unit": "", "inputs": INPUTS}),
        ("/v1/endpoints/delay/rank", {"unit": "u", "candidates": [{"id": "a", **INPUTS}]}),
        ("/v1/endpoints/nobody/predict", GOOD),
        ("/v1/endpoints/delay%20x/predict", GOOD),
        (OUTCOMES, {"decision_id": "x", "metric": "late", "value": 1}),
        (OUTCOMES, [{"decision_id": "x", "metric": "late", "value": 1}, {"metric": "late"}]),
        (OUTCOMES, {"decision_id": "-" * 44, "metric": "late", "value": 1}),
        (OUTCOMES, []),
    ],
)
def test_both_ways_give_the_same_reply(client: Client, path: str, body: Any) -> None:
    assert_alike(*replies(client, path, json.dumps(body).encode()))


@pytest.mark.parametrize(
    "body", [b" ", b"{", b"[", b"nul", b'"\xff"', b"[" * 100_000, b'{"unit": "u", "inputs": 1e999}']
)
@pytest.mark.parametrize("path", [PREDICT, OUTCOMES])
def test_both_ways_refuse_rubbish_alike(client: Client, path: str, body: bytes) -> None:
    hot, general = replies(client, path, body)
    assert hot.status_code == 400
    assert_alike(hot, general)


def test_an_experiments_decisions_and_outcomes_are_the_same_both_ways(client: Client) -> None:
    document = experiment("split")
    assert client.post("/v1/experiments", json=document).status_code == 201
    assert client.post("/v1/experiments/split/start", headers={"If-Match": "*"}).status_code == 200
    hot, general = replies(client, PREDICT, json.dumps(GOOD).encode())
    assert_alike(hot, general)
    assert hot.json()["experiment"] == "split"
    for reply in (hot, general):
        outcome = {"decision_id": reply.json()["decision_id"], "metric": "click", "value": 1}
        first, second = (client.post(OUTCOMES, json=outcome) for _ in range(2))
        assert first.json() == {"status": "accepted"}
        assert second.json() == {"status": "duplicate"}


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (PREDICT, {"headers": {"X-Turnout-Arm": "nobody"}}),
        (PREDICT, {"headers": {"host": "a/b"}}),
        (f"{PREDICT}/", {}),
        (f"/{PREDICT}", {}),
        ("/v1/endpoints//predict", {}),
        ("/v1/endpoints/delay/predict/more", {}),
        ("/v1/endpoints/delay/praise", {}),
    ],
)
def test_what_is_unusual_is_left_to_litestar(client: Client, path: str, options: dict[str, Any]) -> None:
    assert_alike(*replies(client, path, json.dumps(GOOD).encode(), **options))


def test_a_body_beyond_the_limit_is_refused_unread(client: Client) -> None:
    hot, general = replies(client, PREDICT, b" " * 20_000_000)
    assert hot.status_code == 413
    assert_alike(hot, general)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_litestars(client: Client, method: str) -> None:
    allowed = client.request(method, PREDICT)
    assert allowed.status_code == (204 if method == "OPTIONS" else 405)
    assert "POST" in allowed.headers["allow"]


def test_bugs_are_answered_without_saying_what_they_were(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    assert isinstance(client.app, Application)
    monkeypatch.setattr(client.app.hot.predictor, "_route", fail)
    hot, general = replies(client, PREDICT, json.dumps(GOOD).encode())
    assert hot.status_code == 500
    assert "secret" not in hot.text
    assert_alike(hot, general)
