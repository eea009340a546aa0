"""What was acknowledged is in the ledger exactly once: under load, after a kill, with retries.

`EXACTLY_ONCE_REQUESTS` is how many predictions make the load; 4,000 is the full strength.
"""

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import httpx
import pytest
from sqlalchemy import create_engine, func, select

from router.client import AsyncTurnout
from router.decision_id import decode
from router.ledger import schema
from router.ledger.contributions import ITEMS
from tests.system.conftest import create_experiment
from tests.system.processes import Router, router

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

CLIENTS = 100
REQUESTS = int(os.environ.get("EXACTLY_ONCE_REQUESTS", "1000"))


def inputs(number: int) -> dict[str, Any]:
    return {"distance": float(number % 2400 + 80), "hour": float(number % 19 + 5), "carrier": "B6"}


async def predict_all(url: str, units: range, acknowledged: list[str], retry_id: bool = False) -> None:
    """Predict for every unit from 100 clients at once; a client ends at the first connection that breaks."""
    waiting = iter(units)

    async def client(http: AsyncTurnout) -> None:
        for number in waiting:
            key = f"key-{number}" if retry_id else None
            try:
                reply = await http.predict("delay", unit=f"u{number}", inputs=inputs(number), id=key)
            except httpx.TransportError:
                return
            acknowledged.append(reply["decision_id"])

    async with AsyncTurnout(url, connections=CLIENTS, timeout_s=60) as http:
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))


async def post_all(url: str, decision_ids: list[str], clients: int = 8) -> list[dict[str, Any]]:
    """Post a label for every decision from several clients, in lists of 100, each list twice and in any order."""
    rows = [{"decision_id": text, "metric": "late", "value": ord(text[-1]) % 2} for text in decision_ids]
    batches = [rows[start : start + 100] for start in range(0, len(rows), 100)] * 2
    random.Random(3).shuffle(batches)
    waiting = iter(batches)
    receipts: list[dict[str, Any]] = []

    async def client(http: AsyncTurnout) -> None:
        receipts.extend([await http.outcomes(batch) for batch in waiting])

    async with AsyncTurnout(url, timeout_s=60) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return receipts


def ledger(state: Path) -> dict[str, Any]:
    engine = create_engine(f"sqlite:///{state}/ledger.db")
    of_outcomes = schema.statistics.c.metric != ITEMS
    with engine.connect() as connection:
        found = {
            "decisions": [row[0] for row in connection.execute(select(schema.decisions.c.id))],
            "outcomes": [row[0] for row in connection.execute(select(schema.outcomes.c.decision_id))],
            "folded": connection.execute(select(func.sum(schema.statistics.c.count)).where(of_outcomes)).scalar(),
            "sum": connection.execute(select(func.sum(schema.statistics.c.sum)).where(of_outcomes)).scalar(),
            "scores": connection.execute(
                select(
                    func.sum(
                        (schema.outcomes.c.prediction - schema.outcomes.c.value)
                        * (schema.outcomes.c.prediction - schema.outcomes.c.value)
                    )
                )
            ).scalar(),
        }
    engine.dispose()
    return found


def test_every_acknowledged_prediction_and_outcome_is_stored_once(tmp_path: Path, running: Router) -> None:
    acknowledged: list[str] = []
    asyncio.run(predict_all(running.url, range(REQUESTS), acknowledged))
    receipts = asyncio.run(post_all(running.url, acknowledged))
    stored = ledger(tmp_path)
    assert len(acknowledged) == REQUESTS
    assert sorted(stored["decisions"]) == sorted(map(decode, acknowledged))
    assert sorted(stored["outcomes"]) == sorted(map(decode, acknowledged))
    assert sum(receipt["accepted"] for receipt in receipts) == REQUESTS
    assert sum(receipt["duplicate"] for receipt in receipts) == REQUESTS
    assert stored["folded"] == REQUESTS
    assert stored["sum"] == pytest.approx(stored["scores"])


def test_nothing_acknowledged_is_lost_when_the_router_is_killed(tmp_path: Path, registry: Path) -> None:
    acknowledged: list[str] = []

    async def load_and_kill(running: Router, first: int) -> None:
        load = asyncio.create_task(predict_all(running.url, range(first, first + 100_000), acknowledged))
        await asyncio.sleep(1.0)
        running.kill()
        await load

    for kill in range(3):
        with router(tmp_path, registry) as running:
            if kill == 0:
                create_experiment(running.url)
            asyncio.run(load_and_kill(running, kill * 100_000))
    assert len(acknowledged) > CLIENTS
    with router(tmp_path, registry) as running:
        receipts = asyncio.run(post_all(running.url, acknowledged))
    stored = ledger(tmp_path)
    assert set(map(decode, acknowledged)) <= set(stored["decisions"])
    assert len(stored["decisions"]) == len(set(stored["decisions"]))
    assert sum(receipt["accepted"] for receipt in receipts) == len(acknowledged) == stored["folded"]


def test_retries_with_an_id_are_decided_once(tmp_path: Path, running: Router) -> None:
    acknowledged: list[str] = []
    units = [*range(200)] * 5
    random.Random(1).shuffle(units)
    asyncio.run(predict_all(running.url, units, acknowledged, retry_id=True))  # type: ignore[arg-type]
    assert len(acknowledged) == 1000
    assert len(set(acknowledged)) == 200
    assert sorted(ledger(tmp_path)["decisions"]) == sorted(map(decode, set(acknowledged)))


def test_two_processes_share_one_ledger(tmp_path: Path, registry: Path) -> None:
    acknowledged: list[str] = []
    with router(tmp_path, registry, "--workers", "2") as running:
        create_experiment(running.url)
        wait_for_the_other_process(running.url)
        asyncio.run(predict_all(running.url, range(REQUESTS), acknowledged))
        receipts = asyncio.run(post_all(running.url, acknowledged))
    stored = ledger(tmp_path)
    assert set(map(decode, acknowledged)) <= set(stored["decisions"])
    assert sum(receipt["accepted"] for receipt in receipts) == REQUESTS == stored["folded"]


def wait_for_the_other_process(url: str) -> None:
    """Return when forty new connections in a row were answered within the experiment, by whichever process."""
    body = json.dumps({"unit": "probe", "inputs": inputs(0)}).encode()
    for _ in range(100):
        if all(answered_within_the_experiment(url, body) for _ in range(40)):
            return
        time.sleep(0.1)
    raise AssertionError("a process does not know the experiment")


def answered_within_the_experiment(url: str, body: bytes) -> bool:
    try:
        with urlopen(f"{url}/v1/endpoints/delay/predict", data=body) as response:
            return bool(json.load(response)["experiment"] == "four")
    except HTTPError:
        return False
