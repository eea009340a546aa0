"""The router that its ledger is measured against must decide as the router does, and store nothing."""

import json
import sqlite3
import urllib.request
from pathlib import Path

import pytest

from bench.harness import COUNT, body_of, running
from bench.model import example
from bench.routers import published, router
from models.registry import Registry

pytestmark = pytest.mark.system


@pytest.mark.parametrize(("module", "stored"), [("router", 1), ("bench.servers.unlogged_router", 0)])
def test_decision_is_stored_by_the_router_only(tmp_path: Path, module: str, stored: int) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    server = router("turnout", tmp_path, 8481, published(tmp_path), database_url=url, module=module)
    with running(server, core=None):
        body = body_of(server, example()).replace(COUNT, "1").encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(server.url, body, headers)
        with urllib.request.urlopen(request) as answer:
            reply = json.load(answer)
    assert reply["experiment"] == "bench"
    assert reply["decision_id"]
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("select count(*) from decisions").fetchone() == (stored,)
    connection.close()


def test_runtime_of_the_published_models_is_the_wanted_one(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    assert {registry.verify(each).runtime for each in published(tmp_path)} == {"onnx"}
    again = published(tmp_path, runtime="sklearn")
    assert {registry.verify(each).runtime for each in again} == {"sklearn"}
    assert [each.name for each in again] == ["a", "b", "c"]
