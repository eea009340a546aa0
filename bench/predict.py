"""Predictions per second with every decision durable, against an echo and against FastAPI with scikit-learn.

Run it with `make bench`. One server process on one core, wrk on another.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console

from bench.harness import Server, compare, print_comparison, write_json
from bench.model import example, features, fitted
from bench.routers import published, router
from models.reference import ModelReference
from models.registry import Registry
from models.runtime import load
from models.signature import BatchEncoder, input_struct

TURNOUT = "turnout"
_PORTS = {"turnout": 8471, "echo": 8472, "fastapi": 8473}


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--json", type=Path, default=Path("var/bench/predict.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        references = published(Path(folder))
        ledger = f"sqlite:///{folder}/ledger.db"
        turnout = router(TURNOUT, Path(folder), _PORTS[TURNOUT], references, database_url=ledger)
        inference = _inference(Registry(Path(folder) / "registry"), references[0])
        found = compare(
            [turnout, _baseline("echo", "litestar_echo"), _baseline("fastapi", "fastapi_sklearn")],
            example(),
            connections=arguments.connections,
            turns=arguments.turns,
            seconds=arguments.seconds,
        )
    print_comparison(found, TURNOUT)
    for name, seconds in inference.items():
        Console().print(f"one row, {name}: {seconds * 1e6:.1f} microseconds")
    write_json(arguments.json, {"load": found, "inference_seconds": inference})


def _baseline(name: str, module: str) -> Server:
    url = f"http://127.0.0.1:{_PORTS[name]}"
    command = [sys.executable, "-m", "uvicorn", f"bench.servers.{module}:app", "--port", str(_PORTS[name])]
    return Server(name, [*command, "--no-access-log", "--log-level", "warning"], f"{url}/predict", f"{url}/ready")


def _inference(registry: Registry, reference: ModelReference) -> dict[str, float]:
    """Return the median time of one single-row prediction by each runtime, encoding included where there is any."""
    model = load(registry, reference)
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
