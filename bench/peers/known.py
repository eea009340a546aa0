"""The peers: what each needs, how it is started, and what a request to it looks like.

Each is one process that serves, on one core, in the best setting that its own documentation names for that:

- `fastapi`: uvicorn with uvloop and httptools, no access log, the pipeline called in the event loop;
- `mlserver`: `parallel_workers` 0, so that inference happens in the server's process; debugging off;
- `bentoml`: one worker, an asynchronous method, neither access log nor metrics;
- `ray`: one replica, `RAY_SERVE_THROUGHPUT_OPTIMIZED`, no access log. Its proxy and its controller are processes of
  their own, and share the core;
- `mlflow`: `mlflow models serve` with `--env-manager local` and one worker, arrays instead of data frames, no access
  log;
- `kserve`: one worker, a custom model with an asynchronous method, no gRPC, neither latency log nor access log.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.harness import COUNT, Server
from bench.model import FEATURES, features

_ROW: list[float] = features()[0].tolist()
_ROWS = json.dumps([_ROW])


class Place(NamedTuple):
    """Where a peer lives: the programs of its environment, its model's folder and its port."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


class Peer(NamedTuple):
    """A model server: its name is that of its list of requirements, too."""

    name: str
    server: Callable[[Place], Server]
    training: Sequence[str] = ()
    """Further arguments of the training."""


def _fastapi(place: Place) -> Server:
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    app = "bench.servers.fastapi_sklearn:app"
    command = [f"{place.programs}/python", "-m", "uvicorn", app, "--port", str(place.port), *options]
    body = f'{{"unit":"unit-{COUNT}","inputs":{json.dumps(dict(zip(FEATURES, _ROW, strict=True)))}}}'
    return Server("fastapi", command, f"{place.url}/predict", f"{place.url}/ready", body=body)


def _mlserver(place: Place) -> Server:
    settings = {
        "debug": False,
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "http_port": place.port,
        "grpc_port": place.port + 1,
        "metrics_port": place.port + 2,
    }
    model = {
        "name": "tumour",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib"},
    }
    (place.folder / "settings.json").write_text(json.dumps(settings))
    (place.folder / "model-settings.json").write_text(json.dumps(model))
    tensor = f'{{"name":"predict","shape":[1,{len(_ROW)}],"datatype":"FP64","data":{json.dumps(_ROW)}}}'
    body = f'{{"id":"request-{COUNT}","inputs":[{tensor}],"outputs":[{{"name":"predict_proba"}}]}}'
    command = [f"{place.programs}/mlserver", "start", str(place.folder)]
    url = f"{place.url}/v2/models/tumour/infer"
    return Server("mlserver", command, url, f"{place.url}/v2/health/ready", body=body)


def _bentoml(place: Place) -> Server:
    service = "bench.peers.bentoml_service:Tumour"
    command = [f"{place.programs}/bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(place.port)]
    environment = {
        "BENCH_FOLDER": str(place.folder),
        "BENTOML_HOME": str(place.folder / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        # BentoML starts its worker with the first Python on the path.
        "PATH": f"{place.programs}:/usr/bin:/bin",
    }
    body = f'{{"rows":{_ROWS}}}'
    return Server("bentoml", command, f"{place.url}/predict", f"{place.url}/readyz", environment, body)


def _ray(place: Place) -> Server:
    environment = {
        "BENCH_FOLDER": str(place.folder),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # It would leave a token in the home folder.
        "RAY_AUTH_MODE": "disabled",
    }
    command = [f"{place.programs}/python", "-m", "bench.peers.ray_server", str(place.port)]
    return Server("ray", command, f"{place.url}/", f"{place.url}/-/healthz", environment, f'{{"rows":{_ROWS}}}')


def _mlflow(place: Place) -> Server:
    command = [f"{place.programs}/mlflow", "models", "serve", "--model-uri", f"{place.folder}/model"]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(place.port), "--workers", "1"]
    environment = {
        "PATH": f"{place.programs}:/usr/bin:/bin",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "UVICORN_ACCESS_LOG": "false",
    }
    body = f'{{"inputs":{_ROWS}}}'
    return Server(
        "mlflow", [*command, *options], f"{place.url}/invocations", f"{place.url}/ping", environment, body=body
    )


def _kserve(place: Place) -> Server:
    quiet = {"version": 1, "disable_existing_loggers": False, "loggers": {"uvicorn.access": {"level": "WARNING"}}}
    (place.folder / "log.json").write_text(json.dumps(quiet))
    command = [f"{place.programs}/python", "-m", "bench.peers.kserve_server", "--http_port", str(place.port)]
    command += ["--log_config_file", f"{place.folder}/log.json"]
    environment = {"BENCH_FOLDER": str(place.folder)}
    url, ready = f"{place.url}/v1/models/tumour:predict", f"{place.url}/v2/health/ready"
    return Server("kserve", command, url, ready, environment, f'{{"instances":{_ROWS}}}')


PEERS = (
    Peer("fastapi", _fastapi),
    Peer("mlserver", _mlserver),
    Peer("bentoml", _bentoml),
    Peer("ray", _ray),
    Peer("mlflow", _mlflow, ("mlflow",)),
    Peer("kserve", _kserve),
)
