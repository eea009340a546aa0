import inspect
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar, get
from litestar.testing import TestClient

import models.errors
import router.errors
from models.registry import Registry
from models.signature import Signature
from router.http.app import application
from router.http.data_plane import ReceiptView
from router.http.examples import OUTCOME_EXAMPLES, PREDICT_EXAMPLES, RANK_EXAMPLES
from router.http.problems import HANDLERS, STATUS, status_of
from router.service import Service
from router.serving.outcomes import PostedOutcome
from router.serving.requests import PredictReply, RankReply, rank_decoder, request_decoder
from router.settings import Settings
from tests.router.documents import INPUTS, experiment
from tests.router.small_models import FEATURES, load_small

Client = TestClient[Litestar]


def errors_of(module: Any, base: type[Exception]) -> list[type[Exception]]:
    return [each for _, each in inspect.getmembers(module, inspect.isclass) if issubclass(each, base)]


@pytest.mark.parametrize(
    "error",
    [
        *errors_of(router.errors, router.errors.TurnoutError),
        *errors_of(models.errors, models.errors.ModelError),
    ],
)
def test_every_error_has_a_status_and_stands_in_its_tree(error: type[Exception]) -> None:
    module = inspect.getmodule(error)
    assert module is not None
    assert error.__name__ in (module.__doc__ or "")
    if error is not router.errors.TurnoutError:
        assert any(ancestor in STATUS for ancestor in error.__mro__)


def test_an_unforeseen_error_is_500_and_tells_nothing() -> None:
    assert status_of(KeyError("secret")) == HTTPStatus.INTERNAL_SERVER_ERROR

    @get("/bug", sync_to_thread=False)
    def bug() -> None:
        raise KeyError("secret")

    with TestClient(Litestar([bug], exception_handlers=HANDLERS)) as client:
        response = client.get("/bug")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/v1/outcomes", 405)])
def test_unknown_paths_and_methods_are_problems(client: Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["title"] == HTTPStatus(status).phrase


def test_health_says_live_and_ready(client: Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    response = client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "models": 1, "problems": {}}


def test_openapi_documents_every_call_with_examples(client: Client) -> None:
    document = client.get("/schema/openapi.json").json()
    paths = document["paths"]
    assert set(paths) == {
        "/health/live",
        "/health/ready",
        "/metrics",
        "/v1/audit",
        "/v1/decisions/{decision_id}",
        "/v1/endpoints",
        "/v1/endpoints/{endpoint}/predict",
        "/v1/endpoints/{endpoint}/rank",
        "/v1/endpoints/{name}",
        "/v1/experiments",
        "/v1/experiments/{name}",
        "/v1/experiments/{name}/allocation",
        "/v1/experiments/{name}/conclude",
        "/v1/experiments/{name}/pause",
        "/v1/experiments/{name}/resume",
        "/v1/experiments/{name}/rollback",
        "/v1/experiments/{name}/start",
        "/v1/experiments/{name}/verdict",
        "/v1/models",
        "/v1/models/{reference}",
        "/v1/outcomes",
        "/v1/rollouts",
        "/v1/rollouts/{name}",
        "/v1/rollouts/{name}/advance",
        "/v1/rollouts/{name}/hold",
        "/v1/rollouts/{name}/resume",
        "/v1/rollouts/{name}/rollback",
        "/v1/rollouts/{name}/verdict",
    }
    for path, examples in (
        ("/v1/endpoints/{endpoint}/predict", PREDICT_EXAMPLES),
        ("/v1/endpoints/{endpoint}/rank", RANK_EXAMPLES),
        ("/v1/outcomes", OUTCOME_EXAMPLES),
    ):
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]
        assert set(body["examples"]) == set(examples)
        assert "200" in paths[path]["post"]["responses"]


@pytest.mark.parametrize(
    ("path", "of", "type_"),
    [
        ("/v1/endpoints/{endpoint}/predict", "request", request_decoder(Signature(FEATURES, "probability")).type),
        ("/v1/endpoints/{endpoint}/predict", "reply", PredictReply),
        ("/v1/endpoints/{endpoint}/rank", "request", rank_decoder(Signature(FEATURES, "probability")).type),
        ("/v1/endpoints/{endpoint}/rank", "reply", RankReply),
        ("/v1/outcomes", "request", PostedOutcome),
        ("/v1/outcomes", "reply", ReceiptView),
    ],
)
def test_openapi_has_the_fields_that_are_really_decoded(client: Client, path: str, of: str, type_: Any) -> None:
    operation = client.get("/schema/openapi.json").json()["paths"][path]["post"]
    content = operation["requestBody"] if of == "request" else operation["responses"]["200"]
    documented = content["content"]["application/json"]["schema"]
    documented = documented.get("oneOf", [documented])[0]
    fields = msgspec.structs.fields(type_)
    assert set(documented["properties"]) == {field.encode_name for field in fields}
    assert set(documented["required"]) == {field.encode_name for field in fields if field.required}


def test_a_restart_serves_what_was_there(settings: Settings, registry: Registry) -> None:
    def run(*calls: tuple[str, str, Any]) -> list[Any]:
        with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
            return [
                client.request(method, path, json=body, headers={"If-Match": "*"}).json()
                for method, path, body in calls
            ]

    predict = ("POST", "/v1/endpoints/delay/predict", {"unit": "u", "inputs": INPUTS})
    assert registry.names()
    first = run(
        ("POST", "/v1/endpoints", {"name": "delay", "champion": "sum@1"}),
        ("POST", "/v1/experiments", experiment()),
        ("POST", "/v1/experiments/too-vs-sum/start", None),
        predict,
    )[-1]
    second = run(predict, ("GET", f"/v1/decisions/{first['decision_id']}", None))
    assert second[0]["arm"] == first["arm"]
    assert second[1]["unit"] == "u"


def test_a_champion_that_cannot_be_loaded_is_named(settings: Settings, registry: Registry, tmp_path: Path) -> None:
    with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
        client.post("/v1/endpoints", json={"name": "delay", "champion": "sum@1"})
        client.post("/v1/endpoints", json={"name": "other", "champion": "sum-too@1"})
    (registry.root / "sum" / "1" / "model").write_bytes(b"something else")
    with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert "is not what was published" in ready.json()["problems"]["sum@1"]
        refused = client.post("/v1/endpoints/delay/predict", json={"unit": "u", "inputs": INPUTS})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "endpoint 'delay' cannot answer" in refused.json()["detail"]
        assert client.post("/v1/endpoints/other/predict", json={"unit": "u", "inputs": INPUTS}).status_code == 200


def test_an_arm_that_cannot_be_loaded_falls_back(settings: Settings, registry: Registry) -> None:
    weights = {"kind": "split", "weights": {"control": 0.0, "too": 1.0}}
    with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
        client.post("/v1/endpoints", json={"name": "delay", "champion": "sum@1"})
        client.post("/v1/experiments", json=experiment(allocation=weights))
        client.post("/v1/experiments/too-vs-sum/start", headers={"If-Match": "*"})
    (registry.root / "sum-too" / "1" / "model").unlink()
    with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
        reply = client.post("/v1/endpoints/delay/predict", json={"unit": "u", "inputs": INPUTS}).json()
        assert (reply["arm"], reply["served_model"]) == ("too", "sum@1")
        assert "model is missing" in reply["fallback"]
        assert client.get("/health/ready").json()["status"] == "degraded"
