"""Keys, secrets and their rotation, with real router processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, make_url, text

from router.client import ApiError, Turnout
from tests.databases import database
from tests.system.processes import Router, free_port

pytestmark = pytest.mark.system

INPUTS = {"distance": 500.0, "hour": 17.0, "carrier": "B6"}
ENDPOINT = {"name": "delay", "champion": "logistic@1"}


@contextmanager
def running(state: Path, registry: Path, *options: str, **settings: str) -> Iterator[Router]:
    """Run a router with TURNOUT_* settings until the block ends."""
    process = Router(state, registry, *options, settings=_variables(settings))
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.stop()


def turnout(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "router", *arguments],
        env={**os.environ, **_variables(settings)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"TURNOUT_{name.upper()}": value for name, value in settings.items()}


def make_key(address: str, *scopes: str) -> tuple[str, str]:
    """Make a key with the command and return its id and text."""
    done = turnout("key", "create", "--name", "test", *(f"--scope={each}" for each in scopes), database=address)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("_")[1], done.stdout.strip()


def statuses(url: str, headers: Mapping[str, str], calls: int = 24) -> set[int]:
    """Return what new connections are answered, which the kernel spreads over the workers."""
    return {httpx.get(f"{url}/v1/endpoints", headers=headers).status_code for _ in range(calls)}


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_worker_asks_for_a_key_and_hears_of_changes(tmp_path: Path, registry: Path) -> None:
    address = f"sqlite:///{tmp_path}/ledger.db"
    with running(tmp_path, registry, "--workers", "2") as router:
        assert statuses(router.url, {}) == {200}
        key_id, key = make_key(address, "read")
        shown = {"X-API-Key": key}
        eventually(lambda: statuses(router.url, {}) == {401})
        assert statuses(router.url, shown) == {200}
        assert turnout("key", "revoke", key_id, database=address).returncode == 0
        eventually(lambda: statuses(router.url, shown) == {401})
        assert statuses(router.url, {}) == {401}
    assert "Traceback" not in router.log.read_text()


def test_beyond_loopback_a_router_needs_a_key_that_works(tmp_path: Path, registry: Path) -> None:
    address = f"sqlite:///{tmp_path}/ledger.db"
    everywhere = ("--host", "0.0.0.0")  # noqa: S104

    def refused() -> str:
        done = turnout("serve", *everywhere, port=str(free_port()), database=address, registry=str(registry))
        assert done.returncode == 1
        return done.stderr

    assert "make one with turnout key create --name NAME --scope admin, or listen on 127.0.0.1" in refused()
    key_id, key = make_key(address, "admin")
    with running(tmp_path, registry, *everywhere) as router:
        assert statuses(router.url, {}, calls=1) == {401}
        assert statuses(router.url, {"Authorization": f"Bearer {key}"}, calls=1) == {200}
        turnout("key", "revoke", key_id, database=address)
        # A running router locks; it neither opens nor ends.
        eventually(lambda: statuses(router.url, {"Authorization": f"Bearer {key}"}, calls=1) == {401})
        assert statuses(router.url, {}, calls=1) == {401}
    assert "this router has no API key" in refused()


def test_a_last_use_outlives_the_process(tmp_path: Path, registry: Path) -> None:
    address = f"sqlite:///{tmp_path}/ledger.db"
    _, key = make_key(address, "read")
    with running(tmp_path, registry) as router:
        assert statuses(router.url, {"X-API-Key": key}, calls=1) == {200}
    listed = turnout("key", "list", database=address).stdout
    assert "never" not in listed
    assert "active" in listed


def test_the_signing_secret_rotates(tmp_path: Path, registry: Path) -> None:
    old, new = "the-old-secret-of-enough-length", "the-new-secret-of-enough-length"

    def decide(client: Turnout) -> str:
        decided: str = client.predict("delay", unit="u", inputs=INPUTS)["decision_id"]
        return decided

    def label(client: Turnout, decision_id: str) -> Any:
        return client.outcomes([{"decision_id": decision_id, "metric": "late", "value": 1}])["receipts"][0]

    with running(tmp_path, registry, secret=old) as router, Turnout(router.url) as client:
        client.create_endpoint(ENDPOINT)
        first, second = decide(client), decide(client)
    with running(tmp_path, registry, secret=f"{new},{old}") as router, Turnout(router.url) as client:
        assert label(client, first) == {"status": "accepted"}
        third = decide(client)
        assert label(client, third) == {"status": "accepted"}
    with running(tmp_path, registry, secret=new) as router, Turnout(router.url) as client:
        # What was decided between is of the new secret; what was decided before is no longer accepted.
        assert client.decision(third)["outcomes"][0]["value"] == 1.0
        refused = label(client, second)
        assert refused["status"] == "rejected"
        assert "its signature is not ours" in refused["reason"]
        assert "put the secret that signed it back into TURNOUT_SECRET" in refused["reason"]
        with pytest.raises(ApiError, match=r"400: decision_id .* its signature is not ours"):
            client.decision(first)


def test_no_secret_is_ever_printed(tmp_path: Path, registry: Path) -> None:
    secret, password = "a-signing-secret-nobody-may-see", "a-password-nobody-may-see"
    with database("postgresql", tmp_path) as plain:
        address = make_url(plain).set(password=password).render_as_string(hide_password=False)
        keys = [make_key(address, "admin"), make_key(address, "predict")]
        hidden = [secret, password, *(key.split("_")[2] for _, key in keys)]
        admin, predict = ({"Authorization": f"Bearer {key}"} for _, key in keys)
        said: list[str] = []

        def call(method: str, path: str, headers: Mapping[str, str], status: int, **body: Any) -> None:
            answer = httpx.request(method, f"{router.url}{path}", headers=headers, **body)
            assert answer.status_code == status, answer.text
            said.append(f"{answer.headers} {answer.text}")

        with running(tmp_path, registry, database=address, secret=secret) as router:
            rows = {"unit": "u", "inputs": INPUTS}
            call("POST", "/v1/endpoints", admin, 201, json=ENDPOINT)
            call("POST", "/v1/endpoints/delay/predict", predict, 200, json=rows)
            call("GET", "/v1/endpoints", predict, 403)
            call("GET", "/v1/endpoints", {"X-API-Key": f"{keys[0][1]}0"}, 401)
            call("GET", "/v1/endpoints", {"X-API-Key": keys[0][1][:-1]}, 401)
            call("GET", "/v1/decisions/" + "0" * 44, admin, 400)
            call("POST", "/v1/outcomes", admin, 400, json={"decision_id": "0" * 44, "metric": "late", "value": 1})
            call("POST", "/v1/endpoints", admin, 400, content=b"{")
            call("GET", "/v1/audit", admin, 200)
            call("GET", "/schema/openapi.json", {}, 200)
            engine = create_engine(address)
            with engine.begin() as connection:
                connection.execute(text("alter table audit rename to elsewhere"))
            engine.dispose()
            call("GET", "/v1/audit", admin, 500)
            call("PUT", "/v1/endpoints/delay", {**admin, "If-Match": "*"}, 500, json=ENDPOINT)
        said.append(router.log.read_text())
        assert "Traceback" in said[-1]

        absent = make_url(address).set(database="nowhere").render_as_string(hide_password=False)
        unreachable = make_url(address).set(port=9).render_as_string(hide_password=False)
        for arguments, settings in (
            (("serve",), {"database": absent}),
            (("serve",), {"database": unreachable}),
            (("serve",), {"database": address.replace(":5432/", ":54x/")}),
            (("serve", "--port", "99999"), {"database": address}),
            (("db", "upgrade"), {"database": address}),
            (("db", "upgrade"), {"database": absent}),
            (("key", "list"), {"database": address}),
            (("key", "list", "--json"), {"database": address}),
            (("key", "revoke", "nobody"), {"database": address}),
            (("endpoint", "list"), {"url": "http://127.0.0.1:9", "api_key": keys[0][1]}),
            (("endpoint", "list"), {"url": "http://127.0.0.1:9", "api_key": f"{keys[0][1]}\nmore"}),
        ):
            done = turnout(*arguments, **{"secret": secret, "port": str(free_port()), **settings})
            said.append(f"{arguments} {done.stdout} {done.stderr}")
    assert [(each, text) for text in said for each in hidden if each in text] == []
