import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

import models.remote
from models import publish_remote
from models.errors import RemoteRefused, RemoteUnavailable
from models.reference import ModelReference
from models.registry import Registry
from models.remote import RemoteModel
from models.runtime import Model, load
from models.signature import Signature
from router.http.app import application
from router.http.problems import from_known_error, status_of
from router.service import Service
from router.settings import Settings
from tests.models.inference_servers import InferenceServer, inference_server
from tests.router.documents import INPUTS, experiment
from tests.router.small_models import FEATURES, add_model, load_small

Client = TestClient[Litestar]

TENSORS = [
    {"name": "distance", "datatype": "FP64", "shape": [1], "data": [100.0]},
    {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["B6"]},
    {"name": "wind", "datatype": "FP64", "shape": [1], "data": [3.5]},
]


@pytest.fixture
def server() -> Iterator[InferenceServer]:
    with inference_server() as running:
        yield running


@pytest.fixture
def registry(settings: Settings, server: InferenceServer) -> Registry:
    registry = Registry(settings.registry)
    for name in ("sum", "slow"):
        add_model(registry, name)
    publish_remote(server.url, "sum", signature(), [INPUTS], name="far", registry=registry)
    return registry


def signature() -> Signature:
    return Signature(FEATURES, "probability")


@contextmanager
def router_of(settings: Settings) -> Iterator[Client]:
    """Run a router, and close the connections of its remote models in its loop."""
    far: list[RemoteModel] = []

    def load_any(registry: Registry, reference: ModelReference) -> Model:
        if reference.name != "far":
            return load_small(registry, reference)
        model = load(registry, reference)
        assert isinstance(model, RemoteModel)
        far.append(model)
        return model

    service = Service(settings, load_model=load_any)
    with TestClient(application(service, max_body_bytes=settings.max_body_bytes)) as client:
        try:
            yield client
        finally:
            for model in far:
                client.blocking_portal.call(model.aclose)


@pytest.fixture
def client(settings: Settings, registry: Registry) -> Iterator[Client]:
    assert registry.names()
    with router_of(settings) as client:
        create(client, "delay", "sum@1")
        arms = [{"name": "control", "model": "sum@1"}, {"name": "too", "model": "far@1"}]
        client.post("/v1/experiments", json=experiment(arms=arms)).raise_for_status()
        started = client.post("/v1/experiments/too-vs-sum/start", headers={"If-Match": "*"})
        started.raise_for_status()
        yield client


def create(client: Client, name: str, champion: str, **more: Any) -> None:
    client.post("/v1/endpoints", json={"name": name, "champion": champion, **more}).raise_for_status()


def ask(client: Client, version: str, endpoint: str = "delay") -> Any:
    return client.post(f"/v2/models/{endpoint}/versions/{version}/infer", json={"inputs": TENSORS})


def refusal(client: Client, version: str, endpoint: str = "delay") -> str:
    """Return what a caller is told who may try again."""
    response = ask(client, version, endpoint)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1"), response.text
    error: str = response.json()["error"]
    return error


def test_a_version_whose_server_is_away_is_named_and_may_be_tried_again(
    client: Client, server: InferenceServer
) -> None:
    assert ask(client, "far@1").status_code == 200
    server.answers = {"/infer": (503, b'{"error": "no room"}')}
    url = f"{server.url}/v2/models/sum/infer"
    assert refusal(client, "far@1") == f"model 'far@1': RemoteUnavailable: {url} answers 503: no room"
    server.answers = {"/infer": (400, b'{"error": "bad shape"}')}
    refused = ask(client, "far@1")
    assert refused.status_code == 500
    assert refused.json()["error"] == f"model 'far@1': RemoteRefused: {url} answers 400: bad shape"
    server.answers = {}
    assert ask(client, "far@1").status_code == 200


def test_a_champion_whose_server_is_away_may_be_tried_again(client: Client, server: InferenceServer) -> None:
    create(client, "remote", "far@1")
    server.answers = {"/infer": (503, b"")}
    refused = client.post("/v1/endpoints/remote/predict", json={"unit": "u", "inputs": INPUTS})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1"), refused.text
    assert "champion 'far@1' of 'remote': RemoteUnavailable: " in refused.json()["detail"]
    server.answers = {"/infer": (400, b"")}
    assert client.post("/v1/endpoints/remote/predict", json={"unit": "u", "inputs": INPUTS}).status_code == 500


def test_a_version_that_is_not_asked_is_named(client: Client, server: InferenceServer) -> None:
    server.answers = {"/infer": (503, b"")}
    for _ in range(10):
        refusal(client, "far@1")
    assert refusal(client, "far@1") == "model 'far@1': circuit open: 10 of its last 20 calls failed"


def test_a_version_with_too_many_calls_is_named(client: Client) -> None:
    create(client, "one", "slow@1", max_concurrency=1, timeout_ms=20_000)
    replies: list[Any] = []
    threads = [threading.Thread(target=lambda: replies.append(ask(client, "1", "one"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = {reply.json()["error"] for reply in replies if reply.status_code == 503}
    assert refused == {"model 'slow@1': 1 calls of it are under way, which is its limit"}
    assert {reply.status_code for reply in replies} == {200, 503}


def test_a_server_that_never_answers_neither_keeps_a_router_from_starting_nor_from_changing(
    settings: Settings, registry: Registry, server: InferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.names()
    with router_of(settings) as client:
        create(client, "near", "sum@1")
        create(client, "delay", "far@1")
        released, plain = threading.Event(), InferenceServer.answer

        def answer(self: InferenceServer, path: str, headers: Any, body: bytes) -> Any:
            released.wait(20)
            return plain(self, path, headers, body)

        monkeypatch.setattr(InferenceServer, "answer", answer)
        monkeypatch.setattr(models.remote, "LOADING_S", 1.0)
    try:
        began_s = time.monotonic()
        with router_of(settings) as client:
            create(client, "other", "sum@1")
            assert time.monotonic() - began_s < 15
            body = {"unit": "u", "inputs": INPUTS}
            for endpoint in ("near", "other"):
                assert client.post(f"/v1/endpoints/{endpoint}/predict", json=body).status_code == 200
            dead = client.post("/v1/endpoints/delay/predict", json=body)
            assert (dead.status_code, dead.headers["Retry-After"]) == (503, "1")
            problem = f"far@1 cannot be loaded: {server.url} did not answer within 1 s"
            assert problem in dead.json()["detail"]
            assert problem in client.get("/health/ready").text
            assert problem in refusal(client, "far@1")
    finally:
        released.set()


def test_of_what_remote_models_do_only_being_away_is_temporary() -> None:
    assert status_of(RemoteUnavailable("away")) == HTTPStatus.SERVICE_UNAVAILABLE
    assert status_of(RemoteRefused("odd")) == HTTPStatus.UNPROCESSABLE_ENTITY
    assert from_known_error(None, RemoteUnavailable("away")).headers["Retry-After"] == "1"  # type: ignore[arg-type]
