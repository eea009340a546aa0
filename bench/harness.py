"""Runs servers one process each on one core, loads them with wrk from another, and measures them turn by turn."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
from rich.console import Console
from rich.progress import track

SERVER_CORE, CLIENT_CORE = 0, 1
# A server has one core, on which threads of a numeric library would only fight each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
COUNT = "$COUNT"
"""Where a body has the number of its request, so that no server can answer from a cache."""

_WARM_UP_S = 2
_START_S = 120
_STOP_S = 20
_ANSWER_S = 60

# Latencies are in microseconds.
_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local before, after, numbered = [==[%s]==], [==[%s]==], %s
local count = 0
request = function()
  count = count + 1
  return wrk.format(nil, nil, nil, before .. (numbered and count or "") .. after)
end
delay = function() return %d end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class Load(NamedTuple):
    """One measurement of one server."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float


class Server(NamedTuple):
    """A server to measure: its command, where it answers POST, and how it shows that it is ready."""

    name: str
    command: Sequence[str]
    url: str
    ready: str
    environment: Mapping[str, str] = {}
    body: str | None = None
    """JSON of a request, in which COUNT is its number; None for a predict request of Turnout."""
    log: Path | None = None
    """Where what it prints goes; None for where ours does."""


@contextmanager
def running(server: Server, core: int | None = SERVER_CORE) -> Iterator[int]:
    """Run the server on a core (on all, when None), wait until it answers, and yield its process id."""
    environment = {**os.environ, **ONE_THREAD, **server.environment}
    if threading.current_thread() is threading.main_thread():
        # A run that is told to end takes its servers along.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    with nullcontext() if server.log is None else server.log.open("ab") as log:
        process = subprocess.Popen(
            [*on_core(core), *server.command], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait(server, process)
            yield process.pid
        finally:
            _end(process)


def on_core(core: int | None) -> list[str]:
    """Return what goes before a command to keep it, and what it starts, on a core; nothing for None."""
    return [] if core is None else ["taskset", "-c", str(core)]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_STOP_S)
    finally:
        # What a server started must not outlive it, and take the next one's core.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with status {process.returncode}")
        try:
            httpx.get(server.ready)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{server.name} did not answer on {server.ready}")


def body_of(server: Server, inputs: Mapping[str, float]) -> str:
    """Return the JSON of a request, in which COUNT is its number."""
    if server.body is not None:
        return server.body
    return f'{{"unit":"unit-{COUNT}","inputs":{json.dumps(inputs, separators=(",", ":"))}}}'


def load(
    server: Server,
    inputs: Mapping[str, float],
    *,
    connections: int,
    seconds: float,
    core: int | None = CLIENT_CORE,
    pause_ms: int = 0,
) -> Load:
    """Send POSTs from `connections` connections, each `pause_ms` after the one before is answered."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("this benchmark needs wrk; on Debian: apt-get install wrk")
    before, numbered, after = body_of(server, inputs).partition(COUNT)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % (before, after, "true" if numbered else "false", pause_ms))
        script.flush()
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script.name, server.url]
        done = subprocess.run([*on_core(core), *command], check=True, capture_output=True, text=True)
    return read_result(server.name, done.stdout)


def read_result(name: str, output: str) -> Load:
    """Return what our script made wrk print; raises RuntimeError where a request failed or none was answered."""
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"{name}: wrk printed no result but {output!r}")
    requests, duration, p50, p99, errors = map(int, line.split()[1:])
    if errors or not requests:
        raise RuntimeError(f"{name}: {errors} of {requests} requests failed")
    return Load(requests / duration * 1e6, p50 / 1000, p99 / 1000)


def first_answer(server: Server, inputs: Mapping[str, float]) -> str:
    """Ask until a request is answered with success, and return that answer; raises RuntimeError after a minute."""
    body, headers = body_of(server, inputs).replace(COUNT, "0"), {"content-type": "application/json"}
    deadline = time.monotonic() + _ANSWER_S
    while True:
        answer = httpx.post(server.url, content=body, headers=headers, timeout=_ANSWER_S)
        if answer.is_success:
            return answer.text
        if time.monotonic() > deadline:
            raise RuntimeError(f"{server.name} answers {answer.status_code}: {answer.text[:200]}")
        time.sleep(0.2)


def warm_up(server: Server, inputs: Mapping[str, float], *, connections: int) -> None:
    """Load a server, once it answers, for two seconds that do not count."""
    first_answer(server, inputs)
    load(server, inputs, connections=connections, seconds=_WARM_UP_S)


def compare(
    servers: Sequence[Server], inputs: Mapping[str, float], *, connections: Sequence[int], turns: int, seconds: int
) -> dict[str, dict[int, list[Load]]]:
    """Measure every server in turn, `turns` times over, after a warm-up; return loads by server and connections."""
    found: dict[str, dict[int, list[Load]]] = {server.name: {n: [] for n in connections} for server in servers}
    for server in track(plan(servers, turns), description="measuring", console=Console(stderr=True)):
        with running(server):
            warm_up(server, inputs, connections=max(connections))
            for number in connections:
                found[server.name][number].append(load(server, inputs, connections=number, seconds=seconds))
    return found


def plan(servers: Sequence[Server], turns: int) -> list[Server]:
    """Return the servers in the order of measuring: there and back, so that a machine that drifts favours none."""
    return [server for turn in range(turns) for server in (servers if turn % 2 == 0 else servers[::-1])]


def median(loads: Sequence[Load]) -> Load:
    """Return the median of each figure."""
    return Load(*(statistics.median(values) for values in zip(*loads, strict=True)))


def write_json(path: Path, content: object) -> None:
    """Keep the figures of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
