"""Every way to allocate, live over HTTP with two replicas: what was drawn against the propensities that were logged.

`STRATEGY_REQUESTS` is how many requests each strategy gets.
"""

import asyncio
import math
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from sqlalchemy import Engine, select

from router.client import Turnout
from router.decision_id import Signer
from router.ledger import schema
from router.ledger.database import open_database
from router.verification import verify
from tests.databases import BACKENDS
from tests.system.processes import Router
from tests.system.sites import SECRET, Site

REQUESTS = int(os.environ.get("STRATEGY_REQUESTS", "600"))
CLIENTS = 16
PROMISED_S = 2.0
Tally = Callable[[object], None]

ARMS = ("logistic", "boosting", "forest")
REWARDS = {"logistic": 0.5, "boosting": 0.4, "forest": 0.3}

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(120 + REQUESTS / 20),
]

CLICK = {"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}
BANDIT = {"metric": "click", "min_matured": 30, "update_every_s": 0.2}
STRATEGIES: Mapping[str, dict[str, Any]] = {
    "split": {"kind": "split", "weights": {"logistic": 0.6, "boosting": 0.3, "forest": 0.1}},
    "thompson": {"kind": "thompson", **BANDIT, "half_life_s": 3600},
    "top-two": {"kind": "thompson", **BANDIT, "top_two": True},
    "contextual": {
        "kind": "contextual",
        **BANDIT,
        "features": [
            {"kind": "category", "name": "origin", "values": ["JFK", "LGA"]},
            {"kind": "number", "name": "hour", "low": 0, "high": 24},
        ],
    },
    "team_draft": {"kind": "interleave", "method": "team_draft", "length": 6},
    "probabilistic": {"kind": "interleave", "method": "probabilistic", "length": 6},
    "optimised": {"kind": "interleave", "method": "optimised", "length": 6},
}


class Drawn(NamedTuple):
    """A decision as it was logged."""

    epoch: int
    arm: int
    propensity: float
    draw: str | None


def document(name: str) -> dict[str, Any]:
    allocation = STRATEGIES[name]
    arms = ARMS if allocation.get("method", "team_draft") == "team_draft" else ARMS[:2]
    return {
        "name": name,
        "endpoint": "choice" if allocation["kind"] == "interleave" else "delay",
        "arms": [{"name": arm, "model": f"{arm}@1"} for arm in arms],
        "allocation": allocation,
        "metrics": [CLICK],
    }


def begin(routers: Sequence[Router], name: str) -> None:
    with Turnout(routers[0].url) as http:
        http.create_endpoint({"name": "delay", "champion": "bayes@1", "timeout_ms": 5000})
        http.create_endpoint({"name": "choice", "kind": "rank", "champion": "bayes@1", "timeout_ms": 5000})
        http.create_experiment(document(name))
        http.start(name)
    # Longer than the other replica may take to see it.
    time.sleep(PROMISED_S)


def features(chance: random.Random) -> dict[str, Any]:
    return {
        "distance": chance.uniform(80, 2500),
        "hour": chance.randrange(5, 24),
        "carrier": chance.choice(["B6", "UA"]),
    }


def rate(arm: str, origin: str) -> float:
    """Return how often an arm is clicked; one of them is the best only at one airport."""
    return REWARDS[arm] + (0.3 if (arm, origin) == ("forest", "JFK") else 0.0)


async def client(http: httpx.AsyncClient, urls: Sequence[str], numbers: Iterator[int], ranks: bool) -> None:
    """Send requests to both replicas in turn, and what came of them, a few at a time."""
    path, outcomes = "choice/rank" if ranks else "delay/predict", list[dict[str, Any]]()
    for number in numbers:
        chance = random.Random(number)
        context = {"origin": chance.choice(["JFK", "LGA"]), "hour": chance.randrange(24)}
        candidates = {"candidates": [{"id": f"c{index}", **features(chance)} for index in range(8)]}
        body = {"unit": f"u{number}", "context": context, **(candidates if ranks else {"inputs": features(chance)})}
        answer = await http.post(f"{urls[number % 2]}/v1/endpoints/{path}", json=body)
        assert answer.status_code == 200, answer.text
        reply = answer.json()
        item = {"item": reply["items"][0]["item"]} if ranks else {}
        clicked = chance.random() < (0.3 if ranks else rate(reply["arm"], str(context["origin"])))
        outcomes.append({"decision_id": reply["decision_id"], "metric": "click", "value": clicked, **item})
        if len(outcomes) == 25:
            await post(http, urls[(number + 1) % 2], outcomes)
            outcomes = []
    await post(http, urls[0], outcomes)


async def post(http: httpx.AsyncClient, url: str, outcomes: Sequence[dict[str, Any]]) -> None:
    if outcomes:
        answer = await http.post(f"{url}/v1/outcomes", json=outcomes)
        assert answer.json()["accepted"] == len(outcomes), answer.text


async def send(urls: Sequence[str], strategy: dict[str, Any]) -> None:
    numbers = iter(range(REQUESTS))
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=2 * CLIENTS)) as http:
        await asyncio.gather(*(client(http, urls, numbers, strategy["kind"] == "interleave") for _ in range(CLIENTS)))


def logged(engine: Engine) -> list[Drawn]:
    table = schema.decisions
    query = select(table.c.epoch, table.c.arm, table.c.propensity, table.c.draw)
    with engine.connect() as connection:
        return [Drawn(*row) for row in connection.execute(query)]


def deviations(drawn: Sequence[Drawn], arms: int) -> list[float]:
    """Return for each arm how many standard errors its draws, weighted by 1 / propensity, are from one per decision."""
    found = []
    for arm in range(arms):
        weights = [1 / each.propensity for each in drawn if each.arm == arm]
        spread = math.sqrt(sum(weight * (weight - 1) for weight in weights))
        found.append((sum(weights) - len(drawn)) / spread)
    return found


def per_epoch(engine: Engine, drawn: Sequence[Drawn]) -> tuple[float, int]:
    """Return chi-square of the draws against the epochs' tables, where enough is expected, and degrees of freedom."""
    table = schema.epochs
    with engine.connect() as connection:
        runs = {row.epoch: msgspec.json.decode(row.runs) for row in connection.execute(select(table))}
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for each in drawn:
        counts[each.epoch][each.arm] += 1
    statistic, freedom = 0.0, 0
    for epoch, found in counts.items():
        shares: Counter[int] = Counter()
        for length, arm in runs[epoch]:
            shares[arm] += length / 10_000
        expected = {arm: share * found.total() for arm, share in shares.items()}
        if min(expected.values()) >= 5:
            statistic += sum((found[arm] - share) ** 2 / share for arm, share in expected.items())
            freedom += len(expected) - 1
    return statistic, freedom


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    try:
        yield engine
    finally:
        engine.dispose()


def pairs() -> Iterator[Any]:
    """Yield each strategy on one of the databases, and those that publish epochs on both."""
    for number, (name, strategy) in enumerate(STRATEGIES.items()):
        both = strategy["kind"] in {"thompson", "contextual"} or REQUESTS > 10_000
        for backend in BACKENDS if both else [BACKENDS[number % 2]]:
            yield pytest.param(backend, name, id=f"{name}-{backend}")


@pytest.mark.parametrize(("site", "name"), list(pairs()), indirect=["site"])
def test_what_is_drawn_has_the_probability_that_is_logged(site: Site, tally: Tally, name: str) -> None:
    routers, strategy = [site.ready(), site.ready()], STRATEGIES[name]
    begin(routers, name)
    started_s = time.monotonic()
    asyncio.run(send([router.url for router in routers], strategy))
    rate_s = REQUESTS / (time.monotonic() - started_s)
    with opened(site.url) as engine:
        drawn, proof = logged(engine), verify(engine, Signer([SECRET]))
        said = check_lists(drawn) if strategy["kind"] == "interleave" else check_draws(engine, strategy, drawn)
    tally(f"{REQUESTS} requests, {rate_s:.0f}/s, {said}, verify-log {proof.failures} in {proof.seconds:.1f} s")
    assert len(drawn) == REQUESTS
    assert proof.failures == 0, proof.first[:3]


def check_lists(drawn: Sequence[Drawn]) -> str:
    assert {(each.arm, each.propensity) for each in drawn} == {(254, 1.0)}
    first = Counter(msgspec.json.decode(each.draw or "")["teams"][0] for each in drawn)
    one, other = first[0], first[1]
    # Neither ranker is more often the first to pick than a coin allows.
    assert abs(one - other) < 4.5 * math.sqrt(one + other)
    return f"first places by team {dict(sorted(first.items()))}"


def check_draws(engine: Engine, strategy: Mapping[str, Any], drawn: Sequence[Drawn]) -> str:
    epochs, arms = len({each.epoch for each in drawn}), Counter(ARMS[each.arm] for each in drawn)
    found = deviations(drawn, len(ARMS))
    said = f"{epochs} epochs, {dict(arms)}, deviations {', '.join(f'{each:.2f}' for each in found)} standard errors"
    assert max(map(abs, found)) < 4.5, said
    assert (epochs > 1) == (strategy["kind"] != "split"), said
    if strategy["kind"] != "contextual":
        statistic, freedom = per_epoch(engine, drawn)
        said += f", chi-square {statistic:.1f} on {freedom}"
        assert statistic < freedom + 5 * math.sqrt(2 * max(freedom, 1)), said
    return said
