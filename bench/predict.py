"""Predictions per second with every decision durable, against echoes and against FastAPI with scikit-learn.

Run it with `make bench`. One server process on one core, wrk on another. Servers:

- `turnout`, `turnout postgresql`: an experiment of three arms, ONNX models, a ledger of either kind;
- `turnout scikit-learn`: the same over SQLite, with models that scikit-learn itself runs;
- `no ledger`: the same route over SQLite, whose decisions are answered at once and stored nowhere;
- `echo`: a Litestar handler that answers with the struct that it got; `bare`: an ASGI function that does so;
- `fastapi`: FastAPI calling scikit-learn, with nothing logged.

Then, at half of what the closed loop reached, requests at a constant rate: what the ledger adds to their latency.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from bench.added_latency import CONNECTIONS, Pair, added, print_added
from bench.comparing import Found, draw_comparison, print_comparison
from bench.harness import Server, compare, median, write_json
from bench.model import example, features, fitted
from bench.routers import published, router
from models.registry import Registry
from models.runtime import load
from models.signature import BatchEncoder, input_struct
from tests.databases import database

TURNOUT, POSTGRESQL, SKLEARN = "turnout", "turnout postgresql", "turnout scikit-learn"
NO_LEDGER, ECHO, BARE, FASTAPI = "no ledger", "echo", "bare", "fastapi"
_PORTS = {TURNOUT: 8471, POSTGRESQL: 8477, SKLEARN: 8478, NO_LEDGER: 8479, ECHO: 8472, FASTAPI: 8473, BARE: 8480}
_BASELINES = {ECHO: "litestar_echo", BARE: "bare_echo", FASTAPI: "fastapi_sklearn"}


def main() -> None:
    """Measure, print the tables and keep the figures and the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--servers", nargs="+", choices=list(_PORTS), default=list(_PORTS))
    parser.add_argument("--share", type=float, default=0.5, help="of saturation, for the constant rate")
    parser.add_argument("--json", type=Path, default=Path("var/bench/predict.json"))
    arguments = parser.parse_args()
    with _servers(arguments.servers) as servers:
        found = compare(
            list(servers.values()),
            example(),
            connections=arguments.connections,
            turns=arguments.turns,
            seconds=arguments.seconds,
        )
        pairs = _pairs(servers, found, arguments.share)
        latencies = added(pairs, example(), turns=arguments.turns, seconds=2 * arguments.seconds)
    inference = _inference()
    print_comparison(found, *(name for name in (TURNOUT, POSTGRESQL, SKLEARN) if name in servers))
    print_added(latencies)
    for name, seconds in inference.items():
        Console().print(f"one row, {name}: {seconds * 1e6:.1f} microseconds")
    write_json(
        arguments.json,
        {"load": found, "open_loop": [each._asdict() for each in latencies], "inference_seconds": inference},
    )
    draw_comparison(found, arguments.json.with_suffix(".png"), "One server process on one core")


@contextmanager
def _servers(wanted: Sequence[str]) -> Iterator[dict[str, Server]]:
    """Yield the wanted servers by name, in their order; PostgreSQL is left out where there is none."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made: dict[str, Server] = {}
        for name in wanted:
            try:
                made[name] = _server(name, folder / str(_PORTS[name]), stack)
            except pytest.skip.Exception as problem:
                Console().print(f"without {name}: {problem}")
        yield made


def _server(name: str, folder: Path, stack: ExitStack) -> Server:
    if name in _BASELINES:
        return baseline(name, _BASELINES[name], _PORTS[name])
    backend = "postgresql" if name == POSTGRESQL else "sqlite"
    folder.mkdir(parents=True)
    url = stack.enter_context(database(backend, folder))
    references = published(folder, runtime="sklearn" if name == SKLEARN else "onnx")
    module = "bench.servers.unlogged_router" if name == NO_LEDGER else "router"
    return router(name, folder, _PORTS[name], references, database_url=url, module=module)


def baseline(name: str, module: str, port: int) -> Server:
    """Return an ASGI application of `bench.servers` under uvicorn, with uvloop and httptools."""
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", f"bench.servers.{module}:app", "--port", str(port)]
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return Server(name, [*command, *options], f"{url}/predict", f"{url}/ready")


def _pairs(servers: Mapping[str, Server], found: Found, share: float) -> list[Pair]:
    """Return routers with a ledger beside that without, at a share of what they reach with as many connections."""
    if NO_LEDGER not in servers:
        return []
    return [
        Pair(servers[name], servers[NO_LEDGER], share * median(found[name][CONNECTIONS]).requests_per_second)
        for name in (TURNOUT, POSTGRESQL)
        if name in servers and CONNECTIONS in found[name]
    ]


def _inference() -> dict[str, float]:
    """Return the median time of one single-row prediction by each runtime, encoding included where there is any."""
    with tempfile.TemporaryDirectory() as folder:
        model = load(Registry(Path(folder) / "registry"), published(Path(folder))[0])
    encoder = BatchEncoder(model.signature)
    row = msgspec.convert(example(), input_struct(model.signature))
    pipeline, array = fitted(), features()[:1]
    return {
        f"{model.manifest.runtime} runtime": _median_time(lambda: model.predict(encoder.encode([row]))),
        "scikit-learn pipeline": _median_time(lambda: pipeline.predict_proba(array)),
    }


def _median_time(call: Callable[[], object], calls: int = 3000) -> float:
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
