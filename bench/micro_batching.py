"""Predictions per second of a forest that scikit-learn itself serves, with micro-batches and without.

Run it with `python -m bench.micro_batching`. One router on one core, wrk on another; a SQLite ledger.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.comparing import print_comparison
from bench.harness import Server, compare, running, write_json
from bench.model import example, features
from models import publish
from models.reference import ModelReference
from models.registry import Registry
from models.runtime import load
from models.signature import BatchEncoder, input_struct
from router.client import Turnout

_ROWS = (1, 16, 64)


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--json", type=Path, default=Path("var/bench/micro_batching.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reference = _published(Path(folder))
        seconds = _seconds_per_call(Registry(Path(folder) / "registry"), reference)
        servers = [
            _router("gathered", "router", 8475, Path(folder), reference),
            _router("one by one", "bench.servers.ungathered_router", 8476, Path(folder), reference),
        ]
        options = {"connections": arguments.connections, "turns": arguments.turns, "seconds": arguments.seconds}
        found = compare(servers, example(), **options)
    print_comparison(found, "gathered")
    for rows, taken_s in seconds.items():
        Console().print(f"one call with {rows} rows: {taken_s * 1000:.1f} ms")
    write_json(arguments.json, {"load": found, "seconds_per_call": seconds})


def _published(folder: Path) -> ModelReference:
    """Publish a forest that is tried at the edges of its splits, where ONNX's float32 does not follow it."""
    values = np.sort(features(), axis=0)
    edges = (values[1:] + values[:-1]) / 2
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(100, random_state=0))
    forest.fit(features(), load_breast_cancer().target)
    registry = Registry(folder / "registry")
    reference = publish(forest, features(), name="forest", registry=registry, validation=edges)
    if (runtime := registry.verify(reference).runtime) != "sklearn":
        raise RuntimeError(f"the forest is served by {runtime}, not by scikit-learn")
    return reference


def _router(name: str, module: str, port: int, folder: Path, reference: ModelReference) -> Server:
    """Return a router whose endpoint `tumour` has that champion, with time enough for every request."""
    url = f"http://127.0.0.1:{port}"
    environment = {
        "TURNOUT_DATABASE": f"sqlite:///{folder}/{port}.db",
        "TURNOUT_REGISTRY": f"{folder}/registry",
        "TURNOUT_SPOOL": f"{folder}/spool-{port}",
        "TURNOUT_SECRET": "the secret of a benchmark",
    }
    command = [sys.executable, "-m", module, "serve", "--port", str(port)]
    server = Server(name, command, f"{url}/v1/endpoints/tumour/predict", f"{url}/health/ready", environment)
    with running(server), Turnout(url, timeout_s=60) as http:
        http.create_endpoint(
            {"name": "tumour", "champion": str(reference), "timeout_ms": 30_000, "max_concurrency": 1000}
        )
    return server


def _seconds_per_call(registry: Registry, reference: ModelReference) -> dict[int, float]:
    """Return the median time of a call by its number of rows."""
    model = load(registry, reference)
    encoder, row = BatchEncoder(model.signature), msgspec.convert(example(), input_struct(model.signature))
    found = {}
    for rows in _ROWS:
        batch, times = encoder.encode([row] * rows), []
        for _ in range(30):
            start = time.perf_counter()
            model.predict(batch)
            times.append(time.perf_counter() - start)
        found[rows] = statistics.median(times)
    return found


if __name__ == "__main__":
    main()
