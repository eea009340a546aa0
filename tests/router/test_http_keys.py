import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from litestar import Litestar, get
from litestar.exceptions import ImproperlyConfiguredException
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

from models.registry import Registry
from router.http.access import check_scopes
from router.http.app import application
from router.keys import SCOPES, Scope
from router.ledger.database import upgraded
from router.ledger.keys import KeyTables
from router.service import Service
from router.settings import Settings
from tests.router.documents import INPUTS, experiment
from tests.router.keyrings import bearer, make_key
from tests.router.small_models import load_small

Client = TestClient[Litestar]

SCOPE_OF = {
    "GET /health/live": "public",
    "GET /health/ready": "public",
    "GET /schema": "public",
    "GET /schema/oauth2-redirect.html": "public",
    "GET /schema/openapi.json": "public",
    "GET /schema/swagger": "public",
    "GET /schema/{path}": "public",
    "GET /metrics": "read",
    "POST /v1/endpoints/{endpoint}/predict": "predict",
    "POST /v1/endpoints/{endpoint}/rank": "predict",
    "POST /v1/outcomes": "outcome",
    "GET /v1/decisions/{decision_id}": "read",
    "GET /v1/endpoints": "read",
    "GET /v1/endpoints/{name}": "read",
    "POST /v1/endpoints": "admin",
    "PUT /v1/endpoints/{name}": "admin",
    "GET /v1/experiments": "read",
    "GET /v1/experiments/{name}": "read",
    "GET /v1/experiments/{name}/allocation": "read",
    "POST /v1/experiments": "admin",
    "PUT /v1/experiments/{name}": "admin",
    "POST /v1/experiments/{name}/start": "admin",
    "POST /v1/experiments/{name}/pause": "admin",
    "POST /v1/experiments/{name}/resume": "admin",
    "POST /v1/experiments/{name}/conclude": "admin",
    "POST /v1/experiments/{name}/rollback": "admin",
    "GET /v1/experiments/{name}/verdict": "read",
    "POST /v1/experiments/{name}/verdict": "read",
    "GET /v1/rollouts": "read",
    "GET /v1/rollouts/{name}": "read",
    "GET /v1/rollouts/{name}/verdict": "read",
    "POST /v1/rollouts": "admin",
    "POST /v1/rollouts/{name}/hold": "admin",
    "POST /v1/rollouts/{name}/resume": "admin",
    "POST /v1/rollouts/{name}/advance": "admin",
    "POST /v1/rollouts/{name}/rollback": "admin",
    "GET /v1/models": "read",
    "GET /v1/models/{reference}": "read",
    "GET /v1/audit": "admin",
    "GET /v2": "predict",
    "GET /v2/health/live": "public",
    "GET /v2/health/ready": "public",
    "GET /v2/models/{name}": "predict",
    "GET /v2/models/{name}/ready": "predict",
    "POST /v2/models/{name}/infer": "predict",
    "GET /v2/models/{name}/versions/{version}": "predict",
    "GET /v2/models/{name}/versions/{version}/ready": "predict",
    "POST /v2/models/{name}/versions/{version}/infer": "predict",
    "POST /v2/repository/index": "predict",
    "POST /ofrep/v1/evaluate/flags": "predict",
    "POST /ofrep/v1/evaluate/flags/{key}": "predict",
}
"""The published list: every call that the router answers, and the scope that it needs."""

PROTOCOLS = ("/v2", "/ofrep")
"""Where errors have the shapes of other protocols, and calls are described by their documents."""

GUARDED = [(call, scope) for call, scope in SCOPE_OF.items() if scope != "public"]


@pytest.fixture
def keys(settings: Settings) -> dict[Scope, str]:
    """A key for each scope, in the ledger before the router starts."""
    return {scope: make_key(settings.database, scope, name=f"the {scope} key")[1] for scope in SCOPES}


@pytest.fixture
def locked(settings: Settings, registry: Registry, keys: dict[Scope, str]) -> Iterator[Client]:
    """A router that needs keys, with endpoint `delay`."""
    assert registry.names()
    service = Service(settings, load_model=load_small)
    with TestClient(application(service, max_body_bytes=settings.max_body_bytes)) as client:
        created = client.post(
            "/v1/endpoints", json={"name": "delay", "champion": "sum@1"}, headers=bearer(keys["admin"])
        )
        assert created.status_code == 201, created.text
        yield client


def send(client: Client, call: str, headers: dict[str, str]) -> Any:
    method, path = call.split(" ")
    for name in ("endpoint", "name", "decision_id", "reference", "path", "version", "key"):
        path = path.replace(f"{{{name}}}", "x")
    return client.request(method, path, headers=headers, json=None if method == "GET" else {})


def reason(call: str, response: Any) -> tuple[str, str]:
    """Return the problem's code, where the path has one, and its text."""
    said, path = response.json(), call.split(" ")[1]
    if path.startswith("/v2"):
        return "", said["error"]
    return ("", said["errorDetails"]) if path.startswith("/ofrep") else (said["code"], said["detail"])


def routes_of(app: Litestar) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        for handler in route.route_handlers:
            for method in handler.http_methods - {"OPTIONS"}:
                yield f"{method} {route.path_format}", handler.opt["scope"]


def test_every_route_is_in_the_list_with_its_scope(locked: Client) -> None:
    assert dict(routes_of(locked.app)) == SCOPE_OF


@pytest.mark.parametrize(("call", "scope"), GUARDED)
def test_a_call_needs_a_key_with_its_scope(locked: Client, keys: dict[Scope, str], call: str, scope: Scope) -> None:
    refused = send(locked, call, {})
    code, text = reason(call, refused)
    assert (refused.status_code, code or "key-required") == (401, "key-required")
    assert "this router needs an API key" in text
    assert refused.headers["www-authenticate"] == 'Bearer realm="turnout"'
    for other in SCOPES:
        response = send(locked, call, bearer(keys[other]))
        if other in {scope, "admin"}:
            assert response.status_code not in {401, 403}, response.text
        else:
            code, text = reason(call, response)
            assert (response.status_code, code or "scope-missing") == (403, "scope-missing")
            assert f"this call needs {scope!r}" in text


@pytest.mark.parametrize("call", [call for call, scope in SCOPE_OF.items() if scope == "public"])
def test_a_public_call_needs_no_key(locked: Client, call: str) -> None:
    assert send(locked, call, {}).status_code in {200, 404}


@pytest.mark.parametrize("path", ["/v1/endpoints", "/v1/outcomes", "/v1/audit"])
def test_the_methods_of_a_path_are_told_to_readers_only(locked: Client, keys: dict[Scope, str], path: str) -> None:
    assert locked.options(path).status_code == 401
    assert locked.options(path, headers=bearer(keys["predict"])).status_code == 403
    assert locked.options(path, headers=bearer(keys["read"])).status_code == 204


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer KEY"}, 200),
        ({"authorization": "bearer KEY"}, 200),
        ({"Authorization": "Bearer   KEY "}, 200),
        ({"X-API-Key": "KEY"}, 200),
        ({"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": "KEY"}, 200),
        ({"Authorization": "Bearer tk_other_key", "X-API-Key": "KEY"}, 401),
        ({"Authorization": "KEY"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Basic KEY"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"Cookie": "X-API-Key=KEY"}, 401),
    ],
)
def test_a_key_is_shown_in_one_of_two_headers(
    locked: Client, keys: dict[Scope, str], headers: dict[str, str], status: int
) -> None:
    shown = {name: value.replace("KEY", keys["read"]) for name, value in headers.items()}
    assert locked.get("/v1/endpoints", headers=shown).status_code == status


def test_a_wrong_key_is_refused_and_not_repeated(locked: Client, keys: dict[Scope, str]) -> None:
    for wrong in ("hunter2-of-somebody", keys["read"][:-1], "tk_\xe9\xff"):
        response = locked.get("/v1/endpoints", headers={b"X-API-Key": wrong.encode("latin-1")})
        assert (response.status_code, response.json()["code"]) == (401, "invalid-key")
        assert wrong not in response.text
        assert "as `turnout key create` printed it" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/endpoints/delay/predict", "/v1/endpoints/delay/rank", "/v1/outcomes"])
def test_hot_calls_refuse_keys_as_litestar_does(locked: Client, keys: dict[Scope, str], path: str) -> None:
    for headers, status in (({}, 401), (bearer("tk_nobody"), 401), (bearer(keys["read"]), 403)):
        hot = locked.post(path, content=b"{}", headers=headers)
        # Whose length is not known goes to Litestar.
        general = locked.post(path, content=iter([b"{}"]), headers=headers)
        assert (hot.status_code, hot.json()) == (general.status_code, general.json())
        assert hot.status_code == status
        assert hot.headers == general.headers


def test_a_refused_body_is_not_even_read(locked: Client) -> None:
    response = locked.post("/v1/endpoints", content=b"x" * 3_000_000)
    assert response.status_code == 401


def test_an_unforeseen_scope_stops_the_start() -> None:
    for opt in ({}, {"scope": "everybody"}):

        @get("/new", opt=opt, sync_to_thread=False)
        def forgotten() -> None: ...

        with pytest.raises(ImproperlyConfiguredException, match="forgotten on /new declares no scope"):
            check_scopes(Litestar([forgotten], openapi_config=None))


def test_a_handler_that_is_added_later_without_a_scope_is_refused(locked: Client, keys: dict[Scope, str]) -> None:
    @get("/new", sync_to_thread=False)
    def forgotten() -> str:
        raise AssertionError("it was called")

    locked.app.register(forgotten)
    assert locked.get("/new", headers=bearer(keys["admin"])).status_code == 500


def test_a_key_has_its_own_rate(settings: Settings, registry: Registry) -> None:
    assert registry.names()
    key_id, slow = make_key(settings.database, "read", rate=0.5)
    _, fast = make_key(settings.database, "read")
    with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
        assert client.get("/v1/endpoints", headers=bearer(slow)).status_code == 200
        refused = client.get("/v1/endpoints", headers=bearer(slow))
        assert (refused.status_code, refused.json()["code"]) == (429, "rate-exceeded")
        assert refused.headers["retry-after"] == "2"
        assert f"API key '{key_id}' is limited to 0.5 calls per second" in refused.json()["detail"]
        assert client.get("/v1/endpoints", headers=bearer(fast)).status_code == 200


def eventually(client: Client, status: int, headers: dict[str, str]) -> Any:
    deadline = time.monotonic() + 5
    while (response := client.get("/v1/endpoints", headers=headers)).status_code != status:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.05)
    return response


def test_the_first_key_locks_a_running_router_and_revoking_it_does_not_open_it(
    client: Client, settings: Settings
) -> None:
    assert client.get("/v1/endpoints").status_code == 200
    key_id, text = make_key(settings.database, "admin")
    eventually(client, 401, {})
    assert client.get("/v1/endpoints", headers=bearer(text)).status_code == 200
    with upgraded(settings.database) as engine:
        KeyTables(engine).revoke(key_id, 5, actor="a test")
    refused = eventually(client, 401, bearer(text)).json()
    assert refused["code"] == "revoked-key"
    assert client.get("/v1/endpoints").status_code == 401


def test_forcing_an_arm_needs_an_admin_key(locked: Client, keys: dict[Scope, str]) -> None:
    admin = bearer(keys["admin"])
    locked.post("/v1/experiments", json=experiment(), headers=admin)
    assert locked.post("/v1/experiments/too-vs-sum/start", headers={**admin, "If-Match": "*"}).status_code == 200
    path, body = "/v1/endpoints/delay/predict", {"unit": "u", "inputs": INPUTS}
    forced = {"X-Turnout-Arm": "too"}
    refused = locked.post(path, json=body, headers={**bearer(keys["predict"]), **forced})
    assert (refused.status_code, refused.json()["code"]) == (403, "scope-missing")
    assert locked.post(path, json=body, headers=bearer(keys["predict"])).status_code == 200
    assert locked.post(path, json=body, headers={**admin, **forced}).json()["arm"] == "too"


def test_the_audit_log_names_the_key(locked: Client, keys: dict[Scope, str]) -> None:
    admin = bearer(keys["admin"])
    key_id = keys["admin"].split("_")[1]
    change = {"name": "delay", "champion": "sum-too@1"}
    locked.put("/v1/endpoints/delay", json=change, headers={**admin, "If-Match": "*"})
    entries = locked.get("/v1/audit", headers=admin).json()
    assert [(each["actor"], each["action"], each["subject"]) for each in entries[:2]] == [
        (f"key {key_id} (the admin key)", "replace", "endpoint delay"),
        (f"key {key_id} (the admin key)", "create", "endpoint delay"),
    ]
    assert entries[0]["before"] == entries[1]["after"]
    assert entries[1]["before"] is None
    assert entries[0]["after"]["document"]["champion"] == "sum-too@1"
    assert [each["subject"] for each in entries[2:]] == [f"key {key.split('_')[1]}" for key in reversed(keys.values())]
    assert all(key.split("_")[2] not in msgspec.json.encode(entries).decode() for key in keys.values())


def test_the_audit_log_comes_in_pages(client: Client) -> None:
    for number in range(3):
        client.post("/v1/endpoints", json={"name": f"e{number}", "champion": "sum@1"})
    first = client.get("/v1/audit?limit=2").json()
    assert [each["subject"] for each in first] == ["endpoint e2", "endpoint e1"]
    assert {each["actor"] for each in first} == {"local"}
    second = client.get(f"/v1/audit?limit=2&before={first[-1]['id']}").json()
    assert [each["subject"] for each in second] == ["endpoint e0", "endpoint delay"]
    assert client.get("/v1/audit?before=1").json() == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "before=0", "before=99999999999999999999"])
def test_an_impossible_page_is_a_problem(client: Client, query: str) -> None:
    response = client.get(f"/v1/audit?{query}")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert query.split("=")[0] in response.json()["detail"]


def test_openapi_says_how_to_show_a_key_and_what_refusals_look_like(client: Client) -> None:
    document = client.get("/schema/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["header"]["in"], schemes["header"]["name"]) == ("header", "X-API-Key")
    assert document["security"] == [{"bearer": []}, {"header": []}]
    for call, scope in SCOPE_OF.items():
        method, path = call.split(" ")
        if path.startswith(("/schema", *PROTOCOLS)):
            assert path not in document["paths"]
            continue
        operation = document["paths"][path][method.lower()]
        if scope == "public":
            assert operation["security"] == [{}]
            continue
        assert "security" not in operation
        assert {"401", "403", "429", "503"} <= set(operation["responses"])
        for status, response in operation["responses"].items():
            if status >= "400":
                reference = response["content"]["application/problem+json"]["schema"]["$ref"]
                assert reference == "#/components/schemas/Problem"


def test_openapi_says_what_is_refused(client: Client) -> None:
    document = client.get("/schema/openapi.json").json()
    schemas = document["components"]["schemas"]
    for name in ("Endpoint", "Experiment", "Arm", "Split", "BinaryMetric", "RatioMetric", "ScoreMetric", "Condition"):
        assert schemas[name]["additionalProperties"] is False, name
    assert "anyOf" in schemas["Condition"]["properties"]["value"]
    parameters = document["paths"]["/v1/endpoints/{name}"]["put"]["parameters"]
    assert [each["required"] for each in parameters if each["name"] == "If-Match"] == [True]
