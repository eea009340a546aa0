"""Routers to measure: an endpoint and a running experiment of three arms over a ledger of either kind."""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.harness import Load, Server, load, median, running
from bench.model import example, features, fitted
from models import publish
from models.manifest import Draft
from models.reference import ModelReference
from models.registry import Registry
from models.runtime import SKOPS_FILE
from tests.databases import database


class Served(NamedTuple):
    """A router under load, and how many rows its commits had on average (one process's, where there are several)."""

    load: Load
    rows_per_commit: float


def published(folder: Path, *, runtime: Literal["onnx", "sklearn"] = "onnx") -> list[ModelReference]:
    """Publish three models into a new registry, to be served by that runtime."""
    registry = Registry(folder / "registry")
    references = [publish(fitted(), features(), name=name, registry=registry) for name in ("a", "b", "c")]
    return references if runtime == "onnx" else [_in_scikit_learn(registry, each) for each in references]


def _in_scikit_learn(registry: Registry, reference: ModelReference) -> ModelReference:
    """Publish a model again, as if it could not be converted; its sample stays, which both runtimes agree on."""
    manifest = registry.manifest(reference)
    fields = {name: getattr(manifest, name) for name in Draft.__struct_fields__}
    draft = Draft(**fields | {"runtime": "sklearn", "float_width": None, "parity": None})
    return registry.publish(draft, {SKOPS_FILE: registry.read(reference, SKOPS_FILE)})


def router(
    name: str,
    folder: Path,
    port: int,
    references: list[ModelReference],
    *,
    database_url: str,
    workers: int = 1,
    module: str = "router",
) -> Server:
    """Return a router whose endpoint `tumour` has a running experiment, which is left in its database.

    The module is what is run: the router itself, or one that differs in what is measured.
    """
    url = f"http://127.0.0.1:{port}"
    environment = {
        "TURNOUT_DATABASE": database_url,
        "TURNOUT_REGISTRY": f"{folder}/registry",
        "TURNOUT_SPOOL": f"{folder}/spool-{port}",
        "TURNOUT_SECRET": "the secret of a benchmark",
    }
    command = [sys.executable, "-m", module, "serve", "--port", str(port), "--workers", str(workers)]
    server = Server(name, command, f"{url}/v1/endpoints/tumour/predict", f"{url}/health/ready", environment)
    with running(server._replace(command=[*command[:-1], "1"])):
        _create_experiment(url, references)
    return server


def serve_and_load(backend: str, workers: int, *, connections: int, turns: int, seconds: int) -> Served:
    """Measure a router; its processes and the load generator share all cores."""
    with tempfile.TemporaryDirectory() as name, database(backend, Path(name)) as database_url:
        folder = Path(name)
        server = router(backend, folder, 8474, published(folder), database_url=database_url, workers=workers)
        with running(server, core=None):
            load(server, example(), connections=connections, seconds=2, core=None)
            loads = [load(server, example(), connections=connections, seconds=seconds, core=None) for _ in range(turns)]
            batches = _samples(f"{server.ready.removesuffix('/health/ready')}/metrics")
    rows = batches["turnout_ledger_batch_rows_sum"] / max(1.0, batches["turnout_ledger_batch_rows_count"])
    return Served(median(loads), rows)


def _samples(url: str) -> Mapping[str, float]:
    families = text_string_to_metric_families(httpx.get(url).text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def _create_experiment(url: str, references: list[ModelReference]) -> None:
    arms = [{"name": reference.name, "model": str(reference)} for reference in references]
    experiment = {
        "name": "bench",
        "endpoint": "tumour",
        "arms": arms,
        "allocation": {"kind": "split", "weights": {"a": 0.5, "b": 0.3, "c": 0.2}},
        "metrics": [{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}],
    }
    httpx.post(f"{url}/v1/endpoints", json={"name": "tumour", "champion": str(references[0])}).raise_for_status()
    httpx.post(f"{url}/v1/experiments", json=experiment).raise_for_status()
    httpx.post(f"{url}/v1/experiments/bench/start", headers={"If-Match": "*"}).raise_for_status()
