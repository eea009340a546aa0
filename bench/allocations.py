"""What a bandit and a shadow cost the callers of an experiment: throughput and p99 beside those of a plain split.

Three routers in turn, each with an experiment of the same three arms: a split, Thompson sampling whose shares may
change every second, and the split with a shadow. All of them get the same trickle of outcomes meanwhile, so that the
bandit has something to learn; the epochs that it publishes are counted, and the run fails when there are none. The
router and the process of its shadow share one core, wrk and the sender of outcomes have the other. Run it with
`python -m bench.allocations`.
"""

import argparse
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.harness import CLIENT_CORE, Load, Server, load, median, running, write_json
from bench.model import example, features, fitted
from bench.routers import published, router
from bench.shadows import Pace
from models import publish
from models.reference import ModelReference
from models.registry import Registry
from tests.databases import BACKENDS, database

SPLIT, BANDIT, SHADOW = "split", "bandit, an epoch every second", "split and a shadow"
VARIANTS = (SPLIT, BANDIT, SHADOW)
PACES = (Pace("as fast as it answers", 64, 0), Pace("with time", 8, 20))

_PORTS = {SPLIT: 8484, BANDIT: 8485, SHADOW: 8486}
_EXPERIMENTS = {SPLIT: "bench", BANDIT: "learning", SHADOW: "bench"}
_WARM_UP_S = 3
_ROUND_S, _PER_ROUND = 0.5, 20
# Arms that are equally good, of which only the last seconds count: what is known of them never settles.
_RATE, _HALF_LIFE_S = 0.3, 20


class Measured(NamedTuple):
    """What callers saw, how many epochs were published meanwhile, in how long, and what became of shadow calls."""

    loads: dict[str, list[Load]]
    epochs: list[int]
    seconds: list[float]
    shadow_calls: Counter[str]


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--backend", choices=BACKENDS, default="sqlite")
    parser.add_argument("--json", type=Path, default=Path("var/bench/allocations.json"))
    arguments = parser.parse_args()
    # The sender of outcomes must not take the router's core.
    os.sched_setaffinity(0, {CLIENT_CORE})
    found = {name: Measured({pace.name: [] for pace in PACES}, [], [], Counter()) for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder, _routers(arguments.backend, Path(folder)) as servers:
        plan = [name for _ in range(arguments.turns) for name in VARIANTS]
        for name in track(plan, description="measuring", console=Console(stderr=True)):
            _measure(servers[name], _EXPERIMENTS[name], found[name], arguments.seconds)
    if min(found[BANDIT].epochs) == 0:
        raise RuntimeError(f"the bandit published no epoch in a turn: {found[BANDIT].epochs}")
    _print(found)
    write_json(arguments.json, {name: each._asdict() for name, each in found.items()})


@contextmanager
def _routers(backend: str, folder: Path) -> Iterator[dict[str, Server]]:
    references = published(folder)
    shadow = publish(fitted(), features(), name="d", registry=Registry(folder / "registry"))
    with (
        database(backend, _made(folder / "split")) as split,
        database(backend, _made(folder / "bandit")) as bandit,
        database(backend, _made(folder / "shadow")) as shadowed,
    ):
        urls = {SPLIT: split, BANDIT: bandit, SHADOW: shadowed}
        servers = {name: router(name, folder, _PORTS[name], references, database_url=urls[name]) for name in VARIANTS}
        with running(servers[BANDIT]):
            _learn(_root(servers[BANDIT]), references)
        with running(servers[SHADOW]):
            document = {"name": "tumour", "champion": str(references[0]), "shadows": [str(shadow)]}
            changed = httpx.put(
                f"{_root(servers[SHADOW])}/v1/endpoints/tumour", json=document, headers={"If-Match": "*"}
            )
            changed.raise_for_status()
        yield servers


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _root(server: Server) -> str:
    return server.ready.removesuffix("/health/ready")


def _learn(url: str, references: list[ModelReference]) -> None:
    """Put a bandit over the same arms in the place of the split."""
    experiment = {
        "name": _EXPERIMENTS[BANDIT],
        "endpoint": "tumour",
        "arms": [{"name": reference.name, "model": str(reference)} for reference in references],
        "allocation": {
            "kind": "thompson",
            "metric": "click",
            "min_matured": 1,
            "half_life_s": _HALF_LIFE_S,
            "update_every_s": 1,
        },
        "metrics": [{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}],
    }
    any_revision = {"If-Match": "*"}
    httpx.post(f"{url}/v1/experiments/bench/conclude", headers=any_revision).raise_for_status()
    httpx.post(f"{url}/v1/experiments", json=experiment).raise_for_status()
    httpx.post(f"{url}/v1/experiments/{experiment['name']}/start", headers=any_revision).raise_for_status()


def _measure(server: Server, experiment: str, found: Measured, seconds: int) -> None:
    with running(server), _outcomes(server):
        load(server, example(), connections=PACES[0].connections, seconds=_WARM_UP_S)
        began_s, before = time.monotonic(), _epoch(server, experiment)
        for pace in PACES:
            measured = load(server, example(), connections=pace.connections, seconds=seconds, pause_ms=pace.pause_ms)
            found.loads[pace.name].append(measured)
        found.epochs.append(_epoch(server, experiment) - before)
        found.seconds.append(time.monotonic() - began_s)
        found.shadow_calls.update(_shadow_calls(server))


def _epoch(server: Server, experiment: str) -> int:
    """Return the number of the newest epoch."""
    shown = httpx.get(f"{_root(server)}/v1/experiments/{experiment}", timeout=30).raise_for_status()
    return int(shown.json()["epoch"])


def _shadow_calls(server: Server) -> Counter[str]:
    calls: Counter[str] = Counter()
    for family in text_string_to_metric_families(httpx.get(f"{_root(server)}/metrics", timeout=30).text):
        for sample in family.samples:
            if sample.name == "turnout_shadow_calls_total":
                calls[sample.labels["result"]] += int(sample.value)
    return calls


@contextmanager
def _outcomes(server: Server) -> Iterator[None]:
    """Let a thread decide and post what came of it, for as long as the block lasts; raises what it could not do."""
    stop, problems = threading.Event(), list[Exception]()

    def send() -> None:
        coins = random.Random(1)  # noqa: S311
        try:
            with httpx.Client(timeout=30) as http:
                while not stop.wait(_ROUND_S):
                    _send(http, server, coins)
        except httpx.HTTPError as error:
            problems.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if problems:
        raise problems[0]


def _send(http: httpx.Client, server: Server, coins: random.Random) -> None:
    rows = []
    for _ in range(_PER_ROUND):
        request = {"unit": f"observed-{coins.getrandbits(64)}", "inputs": example()}
        decided = http.post(server.url, json=request).raise_for_status().json()
        rows.append({"decision_id": decided["decision_id"], "metric": "click", "value": coins.random() < _RATE})
    receipts = http.post(f"{_root(server)}/v1/outcomes", json=rows).raise_for_status().json()
    if receipts["accepted"] != len(rows):
        raise RuntimeError(f"outcomes were not accepted: {receipts}")


def _print(found: dict[str, Measured]) -> None:
    """Print one row per variant and pace, with ratios to the split."""
    columns = ("allocation", "callers ask", "requests/s", "lowest-highest", "ratio", "p99 ms", "ratio")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for pace in PACES:
        base = median(found[SPLIT].loads[pace.name])
        for name, measured in found.items():
            loads = measured.loads[pace.name]
            middle, rates = median(loads), [each.requests_per_second for each in loads]
            table.add_row(
                name,
                pace.name,
                f"{middle.requests_per_second:,.0f}",
                f"{min(rates):,.0f}-{max(rates):,.0f}",
                f"{middle.requests_per_second / base.requests_per_second:.2f}",
                f"{middle.p99_ms:.2f}",
                f"{middle.p99_ms / base.p99_ms:.2f}",
            )
    Console(width=120).print(table)
    bandit, shadow = found[BANDIT], found[SHADOW]
    Console().print(f"the bandit published {sum(bandit.epochs):,} epochs in {sum(bandit.seconds):,.0f} s under load")
    Console().print(f"shadow calls: {dict(shadow.shadow_calls)}")


if __name__ == "__main__":
    main()
