"""A candidate that begins to fail under load: what callers see of it, and for how long it is still tried.

`FAIL_AT` is the number of the request from which on it fails.
"""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import select

from router.client import Turnout
from router.ledger import schema
from router.ledger.database import open_database
from tests.system.processes import Router
from tests.system.strange_models import FIRST_FAILURE, load_strange
from tests.system.strange_router import strange_router

REQUESTS = 3 * FIRST_FAILURE
CLIENTS = 16
OPEN_S = 0.5

pytestmark = [pytest.mark.system, pytest.mark.timeout(120 + REQUESTS / 50)]

Tally = Callable[[object], None]


class Sent(NamedTuple):
    """A request: its number, when it was sent and how long its answer took."""

    number: int
    at_s: float
    took_s: float
    status: int
    reply: dict[str, Any]

    @property
    def fallback(self) -> str:
        """Why the champion answered; empty where it did not."""
        return str(self.reply.get("fallback", ""))

    @property
    def models(self) -> tuple[str, str, bool]:
        """The assigned and the served model, and whether the reply says why they differ."""
        assigned = self.reply["model"]
        return assigned, self.reply.get("served_model", assigned), bool(self.fallback)

    @property
    def was_tried(self) -> bool:
        """Whether the candidate was asked, and failed."""
        return bool(self.fallback) and not self.was_skipped

    @property
    def was_skipped(self) -> bool:
        """Whether the champion answered at once."""
        return self.fallback.startswith("circuit open")


def begin(router: Router, candidate: str) -> None:
    with Turnout(router.url) as http:
        breaker = {"failure_rate": 0.5, "calls": 20, "open_s": OPEN_S}
        http.create_endpoint({"name": "delay", "champion": "sum@1", "timeout_ms": 200, "breaker": breaker})
        http.create_experiment(
            {
                "name": "candidate",
                "endpoint": "delay",
                "arms": [{"name": "control", "model": "sum@1"}, {"name": "candidate", "model": candidate}],
                "allocation": {"kind": "split", "weights": {"control": 0.5, "candidate": 0.5}},
                "metrics": [{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}],
            }
        )
        http.start("candidate")


async def client(http: httpx.AsyncClient, numbers: Iterator[int], sent: list[Sent]) -> None:
    for number in numbers:
        at_s = time.monotonic()
        body = {"unit": f"u{number}", "inputs": {"distance": float(number), "carrier": "B6", "wind": 1.0}}
        answer = await http.post("/v1/endpoints/delay/predict", json=body)
        sent.append(Sent(number, at_s, time.monotonic() - at_s, answer.status_code, answer.json()))


async def load(url: str) -> list[Sent]:
    """Send all requests in the order of their numbers, from several clients."""
    sent: list[Sent] = []
    numbers = iter(range(REQUESTS))
    async with httpx.AsyncClient(base_url=url, timeout=20, verify=False) as http:  # noqa: S501
        await asyncio.gather(*(client(http, numbers, sent) for _ in range(CLIENTS)))
    return sorted(sent)


def logged(folder: Path) -> Counter[tuple[str, str, bool]]:
    """Return how many decisions the ledger has, by assigned model, served model and whether it says why they differ."""
    engine = open_database(f"sqlite:///{folder}/ledger.db")
    table = schema.decisions
    with engine.connect() as connection:
        rows = connection.execute(select(table.c.model, table.c.served_model, table.c.fallback)).all()
    engine.dispose()
    return Counter((model, served, fallback is not None) for model, served, fallback in rows)


def verify_log(router: Router) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router", "verify-log"]
    return subprocess.run(command, env=router.environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("kind", ["raising", "hanging"])
def test_callers_see_nothing_of_a_candidate_that_begins_to_fail(kind: str, tmp_path: Path, tally: Tally) -> None:
    candidate = f"{kind}@1"
    with strange_router(tmp_path, ["sum", kind], load_strange) as router:
        begin(router, candidate)
        sent = asyncio.run(load(router.url))
        proof = verify_log(router)
    failed = [each for each in sent if each.status != httpx.codes.OK]
    hit = [each for each in sent if each.number >= FIRST_FAILURE and each.reply["model"] == candidate]
    tried, skipped = [each for each in hit if each.was_tried], [each for each in hit if each.was_skipped]
    began_s = min(each.at_s for each in hit)
    skipped_s = min(each.at_s for each in skipped) - began_s
    lasted_s = max(each.at_s for each in sent) - began_s
    tally(
        f"candidate {kind} from request {FIRST_FAILURE:,} of {REQUESTS:,} on: {len(failed)} failures seen by callers; "
        f"of {len(hit)} requests of its share it was asked {len(tried)} times, champion alone after "
        f"{skipped_s * 1000:.0f} ms, {max(each.took_s for each in tried) * 1000:.0f} ms the slowest of those replies"
    )
    assert failed == []
    assert len(tried) + len(skipped) == len(hit)
    assert {each.reply["served_model"] for each in hit} == {"sum@1"}
    # What opens the breaker, what was under way by then, and one probe each time it may be tried again.
    assert len(tried) <= 10 + CLIENTS + lasted_s / OPEN_S + 1
    assert len(skipped) > len(hit) / 2
    assert proof.returncode == 0, proof.stdout + proof.stderr
    assert logged(tmp_path) == Counter(each.models for each in sent)
