"""How throughput grows with the processes of `--workers`, on SQLite and PostgreSQL, and what is used up where it stops.

The processes, the load generator and the database share all cores of the machine, as on a server of one's own, so an
echo with as many processes is measured beside: it shows what the cores allow. Run it with `python -m bench.workers`;
PostgreSQL is found as the tests find it.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.commits import commits_of
from bench.harness import Server, load, running, write_json
from bench.model import example
from bench.processes import named, spent, tree
from bench.routers import published, router
from tests.databases import BACKENDS, database

ECHO = "echo"
_FIRST_PORT = 8511
_WARM_UP_S = 2


class Measured(NamedTuple):
    """One turn: throughput, latencies, rows per commit, and the cores that were busy: server's, database's, all."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    rows_per_commit: float
    server_cores: float
    database_cores: float
    busy_cores: float


class Setup(NamedTuple):
    """What is served, by how many processes."""

    name: str
    workers: int


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--json", type=Path, default=Path("var/bench/workers.json"))
    arguments = parser.parse_args()
    setups = [Setup(name, workers) for name in (ECHO, *arguments.backends) for workers in arguments.workers]
    found: dict[Setup, list[Measured]] = {setup: [] for setup in setups}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = _servers(setups, Path(folder), stack)
        plan = [setup for _ in range(arguments.turns) for setup in setups]
        for setup in track(plan, description="measuring", console=Console(stderr=True)):
            found[setup].append(_measure(servers[setup], setup, arguments.connections, arguments.seconds))
    _print(found)
    write_json(
        arguments.json,
        [{**setup._asdict(), "turns": [each._asdict() for each in turns]} for setup, turns in found.items()],
    )


def _servers(setups: Sequence[Setup], folder: Path, stack: ExitStack) -> dict[Setup, Server]:
    """Return the servers, each router with a ledger of its own."""
    references = published(folder)
    servers = {}
    for number, setup in enumerate(setups):
        port, own = _FIRST_PORT + number, folder / str(number)
        own.mkdir()
        if setup.name == ECHO:
            servers[setup] = _echo(port, setup.workers)
        else:
            url = stack.enter_context(database(setup.name, own))
            name = f"{setup.name} {setup.workers}"
            servers[setup] = router(name, folder, port, references, database_url=url, workers=setup.workers)
    return servers


def _echo(port: int, workers: int) -> Server:
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "bench.servers.litestar_echo:app", "--port", str(port)]
    options = ["--workers", str(workers), "--no-access-log", "--log-level", "warning"]
    return Server(ECHO, [*command, *options], f"{url}/predict", f"{url}/ready")


def _measure(server: Server, setup: Setup, connections: int, seconds: int) -> Measured:
    with running(server, core=None) as pid:
        load(server, example(), connections=connections, seconds=_WARM_UP_S, core=None)
        serving, storing = tree(pid), named("postgres") if setup.name == "postgresql" else []
        before, began_s = (spent(serving), spent(storing), _busy_s()), time.monotonic()
        seen = load(server, example(), connections=connections, seconds=seconds, core=None)
        took_s = time.monotonic() - began_s
        cores = [
            spent(serving).since(before[0]).seconds / took_s,
            spent(storing).since(before[1]).seconds / took_s,
            (_busy_s() - before[2]) / took_s,
        ]
        rows = 0.0 if setup.name == ECHO else commits_of(server).rows_per_commit
    return Measured(*seen, rows, *cores)


def _busy_s() -> float:
    """Return how many seconds all cores of the machine together have been busy, whoever used them."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, interrupt, soft = fields[:7]
    return (user + nice + system + interrupt + soft) / os.sysconf("SC_CLK_TCK")


def _print(found: dict[Setup, list[Measured]]) -> None:
    """Print one row per setup, with the ratio to the same with the fewest processes, and to the echo with as many."""
    columns = ("served", "processes", "requests/s", "lowest-highest", "ratio", "of echo", "p99 ms", "rows/commit")
    busy = ("cores: server", "database", "all")
    table = Table(*columns, *busy, box=box.SIMPLE_HEAD, pad_edge=False)
    middle = {setup: Measured(*map(statistics.median, zip(*turns, strict=True))) for setup, turns in found.items()}
    fewest = min(setup.workers for setup in found)
    for setup, each in middle.items():
        rates = [turn.requests_per_second for turn in found[setup]]
        table.add_row(
            setup.name,
            str(setup.workers),
            f"{each.requests_per_second:,.0f}",
            f"{min(rates):,.0f}-{max(rates):,.0f}",
            f"{each.requests_per_second / middle[setup._replace(workers=fewest)].requests_per_second:.2f}",
            f"{each.requests_per_second / middle[setup._replace(name=ECHO)].requests_per_second:.2f}",
            f"{each.p99_ms:.1f}",
            "" if setup.name == ECHO else f"{each.rows_per_commit:.1f}",
            f"{each.server_cores:.2f}",
            f"{each.database_cores:.2f}",
            f"{each.busy_cores:.2f}",
        )
    Console(width=132).print(table)
    Console().print(f"{os.cpu_count()} cores, which wrk and whatever else runs here use too")


if __name__ == "__main__":
    main()
