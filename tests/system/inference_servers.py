"""Servers of other makers for the tests of this folder, each from its own package in its own environment."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.databases import require
from tests.system.processes import free_port

MLSERVER = "mlserver==1.7.1"

_MODEL = '''
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Delay(MLModel):
    """A probability from distance, hour and carrier; NaN counts as 0."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensors = {each.name: each for each in payload.inputs}
        numbers = (np.asarray(tensors[name].data.root, dtype=np.float64) for name in ("distance", "hour"))
        distance, hour = (np.nan_to_num(each.ravel()) for each in numbers)
        carriers = StringCodec.decode_input(tensors["carrier"])
        if "BROKEN" in carriers:
            raise ValueError("out of order")
        bonus = np.array([len(each) for each in carriers], dtype=np.float64)
        late = 1 / (1 + np.exp(-(distance / 1000 + hour / 24 - bonus)))
        return InferenceResponse(
            model_name=self.name, model_version=self.version, outputs=[NumpyCodec.encode_output("late", late)]
        )
'''


@contextmanager
def mlserver(folder: Path) -> Iterator[str]:
    """Run an MLServer with the model `delay`, version `v1`, and yield its address."""
    executable = _environment(MLSERVER) / "bin" / "mlserver"
    port, *others = (free_port() for _ in range(3))
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "delays.py").write_text(_MODEL)
    model = {"name": "delay", "implementation": "delays.Delay", "parameters": {"version": "v1"}}
    (folder / "model" / "model-settings.json").write_text(json.dumps(model))
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": others[0],
        "metrics_port": others[1],
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    log = folder / "mlserver.log"
    with log.open("wb") as output:
        process = subprocess.Popen([executable, "start", folder], stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, f"{url}/v2/models/delay/ready", log)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    with httpx.Client(verify=False) as http:  # noqa: S501
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if http.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise AssertionError(f"the server is not ready:\n{log.read_text()}")


def _environment(package: str) -> Path:
    """Return a virtual environment that holds a package, made once for all test runs; skip where it cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turnout-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / package.replace("==", "-")
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        problem = None if (folder / "complete").exists() else _install(package, folder)
    require("mlserver", problem)
    return folder


def _install(package: str, folder: Path) -> str | None:
    """Install a package and return None, or return why that failed."""
    uv = Path(sys.executable).with_name("uv")
    commands: list[list[str | Path]] = [
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder],
        [uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", package],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"{package} cannot be installed: {done.stderr.strip()[-500:]}"
    (folder / "complete").touch()
    return None
