"""What callers notice of shadows: p99 and throughput beside shadows of every kind, against none, in one run.

Run it with `python -m bench.shadows`. The router and the process of its shadows share one core, wrk has another. First
the callers leave the router time, then they ask as fast as it answers. A request that fails ends the run.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.harness import Load, Server, load, median, running, write_json
from bench.model import example, features, fitted
from models import publish
from models.registry import Registry
from tests.router.small_models import add_model

NONE = "no shadow"
SHADOWS = {
    NONE: [],
    "one of the same kind": ["b"],
    "sleeps 5 s": ["sleeping"],
    "raises": ["raising"],
    "takes 1 GiB": ["greedy"],
    "kills its process": ["dying"],
    "all of them": ["b", "sleeping", "raising", "greedy", "dying"],
}
_PORT = 8476
_WARM_UP_S = 3


class Pace(NamedTuple):
    """How callers ask."""

    name: str
    connections: int
    pause_ms: int


PACES = (Pace("with time", 8, 20), Pace("as fast as it answers", 16, 0))


class Measured(NamedTuple):
    """What callers saw, and what became of the shadow calls: by result, and `restarts` of the worker."""

    loads: dict[str, list[Load]]
    calls: Counter[str]


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--json", type=Path, default=Path("var/bench/shadows.json"))
    arguments = parser.parse_args()
    found = {name: Measured({pace.name: [] for pace in PACES}, Counter()) for name in SHADOWS}
    with tempfile.TemporaryDirectory() as folder:
        servers = {name: _router(name, Path(folder)) for name in SHADOWS}
        plan = [name for _ in range(arguments.turns) for name in SHADOWS]
        for name in track(plan, description="measuring", console=Console(stderr=True)):
            _measure(servers[name], found[name], arguments.seconds)
    _print(found, arguments.seconds)
    write_json(arguments.json, {name: each._asdict() for name, each in found.items()})


def _router(name: str, folder: Path) -> Server:
    """Return a router whose endpoint `tumour` has these shadows."""
    folder = folder / name.replace(" ", "-")
    registry = Registry(folder / "registry")
    champion, _ = (publish(fitted(), features(), name=each, registry=registry) for each in ("a", "b"))
    signature = registry.manifest(champion).signature
    for shadow in SHADOWS[name]:
        if shadow != "b":
            add_model(registry, shadow, signature)
    url = f"http://127.0.0.1:{_PORT}"
    environment = {
        "TURNOUT_DATABASE": f"sqlite:///{folder}/ledger.db",
        "TURNOUT_REGISTRY": f"{folder}/registry",
        "TURNOUT_SPOOL": f"{folder}/spool",
        "TURNOUT_SECRET": "the secret of a benchmark",
    }
    command = [sys.executable, "-m", "bench.servers.shadow_router", "serve", "--port", str(_PORT)]
    server = Server(name, command, f"{url}/v1/endpoints/tumour/predict", f"{url}/health/ready", environment)
    with running(server):
        shadows = [f"{shadow}@1" for shadow in SHADOWS[name]]
        document = {"name": "tumour", "champion": str(champion), "shadows": shadows}
        httpx.post(f"{url}/v1/endpoints", json=document).raise_for_status()
    return server


def _measure(server: Server, found: Measured, seconds: int) -> None:
    with running(server):
        load(server, example(), connections=8, seconds=_WARM_UP_S, pause_ms=20)
        for pace in PACES:
            measured = load(server, example(), connections=pace.connections, seconds=seconds, pause_ms=pace.pause_ms)
            found.loads[pace.name].append(measured)
        text = httpx.get(server.ready.replace("/health/ready", "/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "turnout_shadow_calls_total":
                found.calls[sample.labels["result"]] += int(sample.value)
            elif sample.name == "turnout_shadow_worker_restarts_total":
                found.calls["restarts"] += int(sample.value)


def _print(found: dict[str, Measured], seconds: int) -> None:
    """Print one row per kind of shadow and pace, with ratios to the router without one."""
    columns = ("shadow", "callers ask", "requests/s", "ratio", "p99 ms", "lowest-highest", "ratio")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for pace in PACES:
        base = median(found[NONE].loads[pace.name])
        for name, measured in found.items():
            loads = measured.loads[pace.name]
            middle, slowest = median(loads), [each.p99_ms for each in loads]
            table.add_row(
                name,
                pace.name,
                f"{middle.requests_per_second:,.0f}",
                f"{middle.requests_per_second / base.requests_per_second:.2f}",
                f"{middle.p99_ms:.2f}",
                f"{min(slowest):.2f}-{max(slowest):.2f}",
                f"{middle.p99_ms / base.p99_ms:.2f}",
            )
    Console().print(table)
    for name, measured in found.items():
        if measured.calls:
            Console().print(f"{name}: {dict(measured.calls)}")
    rates = [
        each.requests_per_second for measured in found.values() for loads in measured.loads.values() for each in loads
    ]
    Console().print(f"{sum(rates) * seconds:,.0f} requests, every one answered with 200")


if __name__ == "__main__":
    main()
