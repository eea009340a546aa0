"""A ledger with every kind of decision and outcome, made through a router's own HTTP interface."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from litestar import Litestar
from litestar.testing import TestClient
from sqlalchemy import Engine, Table, delete, insert, select

from models.registry import Registry
from router.decision_id import DecisionId, Signer, encode
from router.http.app import application
from router.ledger import schema
from router.ledger.database import open_database
from router.service import Service, system_clock
from router.settings import Settings
from tests.databases import database
from tests.metrics import BRIER
from tests.router.documents import INPUTS, experiment
from tests.router.small_models import add_model, load_small

SECRET = "a secret of enough length"
UNITS = 120

_METRICS = [
    BRIER,
    {"name": "click", "kind": "binary", "default": 0, "window_s": 60, "direction": "increase"},
    {"name": "yield", "kind": "ratio", "numerator": "revenue", "denominator": "seats", "direction": "increase"},
]
_ORIGINS = ("JFK", "LGA", "EWR")

# In this order they may take a unit.
_EXPERIMENTS: tuple[dict[str, Any], ...] = (
    {
        "name": "sticky",
        "sticky": True,
        "holdout": 0.2,
        "traffic": 0.5,
        "audience": [{"attribute": "origin", "op": "in", "value": ["JFK", "LGA"]}],
    },
    {"name": "by-request", "randomise": "request", "traffic": 0.4},
    {
        "name": "by-unit",
        "arms": [{"name": "control", "model": "sum@1"}, {"name": "broken", "model": "error@1"}],
        "allocation": {"kind": "split", "weights": {"control": 0.5, "broken": 0.5}},
        "traffic": 0.7,
        "holdout": 0.1,
    },
)


@contextmanager
def filled_ledger(backend: str, folder: Path) -> Iterator[Engine]:
    """Yield a filled ledger in a database of its own."""
    with database(backend, folder) as url:
        fill(url, folder)
        engine = open_database(url)
        yield engine
        engine.dispose()


@contextmanager
def restored(engine: Engine) -> Iterator[Engine]:
    """Put every row back as it was before the block."""
    before = {table: rows_of(engine, table) for table in schema.metadata.sorted_tables}
    yield engine
    with engine.begin() as connection:
        for table, rows in before.items():
            connection.execute(delete(table))
            if rows:
                connection.execute(insert(table), rows)


def rows_of(engine: Engine, table: Table) -> list[dict[str, Any]]:
    """Return every row of a table."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def fill(url: str, folder: Path) -> None:
    """Fill an empty database."""
    settings = Settings(database=url, registry=folder / "registry", spool=folder / "spool", secret=SECRET)
    registry = Registry(settings.registry)
    for model in ("sum", "sum-too", "error"):
        add_model(registry, model)
    service = Service(settings, load_model=load_small)
    with TestClient(application(service, max_body_bytes=settings.max_body_bytes)) as client:
        _call(client, "POST", "endpoints", {"name": "delay", "champion": "sum@1"})
        for fields in _EXPERIMENTS:
            _call(client, "POST", "experiments", experiment(**{"metrics": _METRICS, **fields}))
            _call(client, "POST", f"experiments/{fields['name']}/start")
        _call(client, "POST", "experiments", experiment("draft"))
        decisions = list(_decide(client))
        rows = [row for number, reply in enumerate(decisions) for row in _outcomes(number, reply)] + _early()
        for _ in range(2):
            assert _call(client, "POST", "outcomes", rows)["rejected"] == 0
        _call(client, "POST", "experiments/by-request/pause")
        _call(client, "POST", "experiments/by-unit/conclude")


def _decide(client: TestClient[Litestar]) -> Iterator[dict[str, Any]]:
    """Yield decisions, while weights, holdout and traffic change."""
    for number in range(UNITS):
        if number % 20 == 19:
            _reweight(client, number)
        inputs = [INPUTS] * 3 if number % 5 == 0 else INPUTS
        body = {
            "unit": f"unit-{number % 70}",
            "inputs": inputs,
            "context": {"origin": _ORIGINS[number % 3], "n": number},
        }
        headers = {"X-Turnout-Arm": "by-request/too"} if number % 10 == 4 else {}
        yield _call(client, "POST", "endpoints/delay/predict", body, headers)


def _reweight(client: TestClient[Litestar], number: int) -> None:
    for fields in _EXPERIMENTS:
        document = experiment(**{"metrics": _METRICS, **fields})
        first, second = (arm["name"] for arm in document["arms"])
        weight = round(0.3 + number / 200, 2)
        document["allocation"] = {"kind": "split", "weights": {first: weight, second: round(1 - weight, 2)}}
        document["traffic"] = fields["traffic"] + number / 1000
        _call(client, "PUT", f"experiments/{document['name']}", document)


def _outcomes(number: int, reply: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield labels of items, sums, corrections, retractions, late ones; nothing about every third decision."""
    about = {"decision_id": reply["decision_id"]}
    if number % 3 == 0:
        return
    yield {**about, "metric": "late", "value": number % 2}
    if "predictions" in reply:
        yield {**about, "metric": "late", "value": 1, "item": 2}
    if number % 4 == 1:
        yield {**about, "metric": "late", "value": 1 - number % 2, "version": 1}
    if number % 4 == 2:
        yield {**about, "metric": "revenue", "value": 10.1 + number, "id": "a"}
        yield {**about, "metric": "revenue", "value": 5.7, "id": "b"}
        yield {**about, "metric": "revenue", "value": None, "id": "a", "version": number}
        yield {**about, "metric": "seats", "value": 3}
    if number % 4 == 3:
        after = datetime.now(UTC) + timedelta(seconds=120 if number % 8 == 7 else 0)
        yield {**about, "metric": "click", "value": 1, "at": after.isoformat()}


def _early() -> list[dict[str, Any]]:
    """Return an outcome of a decision that another router has not handed in yet."""
    content = DecisionId(system_clock(), 1, 1, 0, 4000, os.urandom(8))
    return [{"decision_id": encode(Signer([SECRET]).sign(content)), "metric": "late", "value": 1}]


def _call(
    client: TestClient[Litestar], method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    response = client.request(method, f"/v1/{path}", json=body, headers={"If-Match": "*", **(headers or {})})
    assert response.status_code < 300, f"{path}: {response.text}"
    reply: dict[str, Any] = response.json()
    return reply
