"""`turnout verify-log` beside a router that goes on deciding, and after somebody has altered a row."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from router.client import AsyncTurnout
from router.decision_id import encode
from tests.system.processes import Router

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

INPUTS = {"distance": 500.0, "hour": 17.0, "carrier": "B6"}


def verify_log(running: Router, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router", "verify-log", *options]
    return subprocess.run(command, env=running.environment, capture_output=True, text=True, timeout=60, check=False)


async def work(http: AsyncTurnout, units: Iterator[int]) -> None:
    """Decide and post outcomes, unit after unit."""
    for unit in units:
        reply = await http.predict("delay", unit=f"u{unit}", inputs=INPUTS)
        await http.outcomes([{"decision_id": reply["decision_id"], "metric": "late", "value": unit % 2}])


async def verify_beside_work(running: Router) -> list[subprocess.CompletedProcess[str]]:
    """Return what came of verifying three times while eight clients were at work."""
    numbers = count()
    async with AsyncTurnout(running.url, connections=8) as http:
        clients = [asyncio.create_task(work(http, numbers)) for _ in range(8)]
        while next(numbers) < 200:
            await asyncio.sleep(0.01)
        results = [await asyncio.to_thread(verify_log, running, "--json") for _ in range(3)]
        for client in clients:
            client.cancel()
        await asyncio.wait(clients)
    return results


def decisions_in(result: subprocess.CompletedProcess[str]) -> int:
    checked: int = json.loads(result.stdout)["checked"]["decisions"]
    return checked


def test_a_log_is_proved_beside_its_router_and_an_altered_row_is_found(tmp_path: Path, running: Router) -> None:
    results = asyncio.run(verify_beside_work(running))
    for result in results:
        assert result.returncode == 0, result.stdout + result.stderr
    assert decisions_in(results[0]) < decisions_in(results[1]) < decisions_in(results[2])
    running.stop()
    engine = create_engine(f"sqlite:///{tmp_path}/ledger.db")
    with engine.begin() as connection:
        row = connection.execute(text("select id, arm from decisions limit 1 offset 100")).one()
        connection.execute(text("update decisions set arm = (arm + 1) % 4 where id = :id"), {"id": row.id})
    engine.dispose()
    altered = verify_log(running)
    assert altered.returncode == 1
    failure = altered.stdout.splitlines()[0]
    expected, found = row.arm, (row.arm + 1) % 4
    assert failure == f"decisions {encode(row.id)}: arm: expected {expected}, found {found}"
    assert altered.stdout.splitlines()[-1] == "failures: 1"
