"""Runs servers one process each on one core, loads them with wrk from another, and compares medians of turns."""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

SERVER_CORE, CLIENT_CORE = 0, 1
# A server has one core, on which threads of a numeric library would only fight each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# Every request has its own unit, so that no server can answer from a cache; latencies are in microseconds.
_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local count = 0
request = function()
  count = count + 1
  return wrk.format(nil, nil, nil, '{"unit":"unit-' .. count .. '","inputs":%s}')
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


@contextmanager
def running(server: Server, core: int | None = SERVER_CORE) -> Iterator[int]:
    """Run the server on a core (on all, when None), wait until it answers, and yield its process id."""
    process = subprocess.Popen([*_on(core), *server.command], env={**os.environ, **ONE_THREAD, **server.environment})
    try:
        _wait(server, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=20)


def _on(core: int | None) -> list[str]:
    return [] if core is None else ["taskset", "-c", str(core)]


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
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
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % (json.dumps(inputs, separators=(",", ":")), pause_ms))
        script.flush()
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script.name, server.url]
        done = subprocess.run([*_on(core), *command], check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    requests, duration, p50, p99, errors = map(int, line.split()[1:])
    if errors:
        raise RuntimeError(f"{server.name}: {errors} of {requests} requests failed")
    return Load(requests / duration * 1e6, p50 / 1000, p99 / 1000)


def compare(
    servers: Sequence[Server], inputs: Mapping[str, float], *, connections: Sequence[int], turns: int, seconds: int
) -> dict[str, dict[int, list[Load]]]:
    """Measure every server in turn, `turns` times over, after a warm-up; return loads by server and connections."""
    found: dict[str, dict[int, list[Load]]] = {server.name: {n: [] for n in connections} for server in servers}
    plan = [(server, turn) for turn in range(turns) for server in servers]
    for server, _ in track(plan, description="measuring", console=Console(stderr=True)):
        with running(server):
            load(server, inputs, connections=max(connections), seconds=2)
            for number in connections:
                found[server.name][number].append(load(server, inputs, connections=number, seconds=seconds))
    return found


def median(loads: Sequence[Load]) -> Load:
    """Return the median of each figure."""
    return Load(*(statistics.median(values) for values in zip(*loads, strict=True)))


def print_comparison(found: Mapping[str, Mapping[int, Sequence[Load]]], subject: str) -> None:
    """Print one row per server and number of connections, with the subject's throughput as a ratio to it."""
    columns = ("server", "conns", "requests/s", "lowest-highest", "p50 ms", "p99 ms", f"{subject} is")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for name, by_connections in found.items():
        for connections, loads in by_connections.items():
            middle, rates = median(loads), [each.requests_per_second for each in loads]
            ratio = median(found[subject][connections]).requests_per_second / middle.requests_per_second
            table.add_row(
                name,
                str(connections),
                f"{middle.requests_per_second:,.0f}",
                f"{min(rates):,.0f}-{max(rates):,.0f}",
                f"{middle.p50_ms:.2f}",
                f"{middle.p99_ms:.2f}",
                "" if name == subject else f"{ratio:.2f} x",
            )
    Console().print(table)


def write_json(path: Path, content: object) -> None:
    """Keep the figures of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))
