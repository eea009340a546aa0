"""What a decision costs: processor time, bytes logged and commits, by how many rows a commit has; and what follows.

One router process on one core, wrk on another, the database where it likes. With more connections more rows share a
commit, and a row costs less. From what was measured it computes what a fleet would need; docs/scaling.md explains the
formulas, and holds the tables that `python -m bench.cost --document docs/scaling.md` writes into it.
"""

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track
from sqlalchemy import Engine, text

from bench.commits import commits_of
from bench.harness import Server, load, running, write_json
from bench.model import example
from bench.processes import Spent, named, spent, tree
from bench.routers import published, router
from router.ledger.database import for_reading, is_postgresql, open_database
from tests.databases import BACKENDS, database

ECHO = "echo"
SECONDS_PER_DAY = 86_400
_PORTS = {ECHO: 8521, "sqlite": 8522, "postgresql": 8523}
_WARM_UP_S = 2
_MARKS = "<!-- measured by bench.cost: begin -->", "<!-- measured by bench.cost: end -->"


class Cost(NamedTuple):
    """Of one decision (of one request, for the echo): microseconds, bytes, and its share of a commit."""

    requests_per_second: float
    rows_per_commit: float
    user_us: float
    system_us: float
    database_us: float
    log_bytes: float
    """Write-ahead log: of PostgreSQL by its own count; of SQLite what the process had written to disk."""
    table_bytes: float
    """Tables and their indexes."""
    syncs: float
    """Of the write-ahead log, by PostgreSQL's count; with SQLite one a commit."""

    @property
    def router_us(self) -> float:
        """All processor time of the router."""
        return self.user_us + self.system_us


class Setup(NamedTuple):
    """What is asked from how many connections."""

    name: str
    connections: int


class Fleet(NamedTuple):
    """What shall be served: decisions a day, by how many replicas, and the peak as a multiple of the mean rate."""

    per_day: float
    replicas: int
    peak: float


class Needs(NamedTuple):
    """What a fleet needs at its peak, and what it stores a day."""

    router_cores: float
    database_cores: float
    commits_per_s: float
    log_mb_per_s: float
    stored_gb_per_day: float


def main() -> None:
    """Measure, print the tables, write them into a document if asked, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--per-day", type=float, default=1e9)
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--peak", type=float, default=3.0)
    parser.add_argument("--document", type=Path, help="the document whose tables are replaced")
    parser.add_argument("--json", type=Path, default=Path("var/bench/cost.json"))
    arguments = parser.parse_args()
    found = _compare((ECHO, *arguments.backends), arguments.connections, arguments.turns, arguments.seconds)
    middle = {setup: Cost(*map(statistics.median, zip(*turns, strict=True))) for setup, turns in found.items()}
    fleet = Fleet(arguments.per_day, arguments.replicas, arguments.peak)
    report = "\n".join([*_inputs(middle, arguments.turns), "", *_extrapolation(middle, fleet)])
    sys.stdout.write(f"{report}\n")
    if arguments.document is not None:
        _replace(arguments.document, report)
    write_json(
        arguments.json,
        [{**setup._asdict(), "turns": [each._asdict() for each in turns]} for setup, turns in found.items()],
    )


def needs(cost: Cost, fleet: Fleet) -> Needs:
    """Return what a fleet needs if a decision costs it that much."""
    mean_rate = fleet.per_day / SECONDS_PER_DAY
    rate = mean_rate * fleet.peak
    return Needs(
        rate * cost.router_us / 1e6,
        rate * cost.database_us / 1e6,
        rate / cost.rows_per_commit,
        rate * cost.log_bytes / 1e6,
        fleet.per_day * cost.table_bytes / 1e9,
    )


def _compare(names: Sequence[str], connections: Sequence[int], turns: int, seconds: int) -> dict[Setup, list[Cost]]:
    setups = [Setup(name, number) for name in names for number in connections]
    found: dict[Setup, list[Cost]] = {setup: [] for setup in setups}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        references = published(folder)
        urls = {each: stack.enter_context(database(each, folder)) for each in names if each != ECHO}
        servers = {each: router(each, folder, _PORTS[each], references, database_url=url) for each, url in urls.items()}
        plan = [setup for _ in range(turns) for setup in setups]
        for setup in track(plan, description="measuring", console=Console(stderr=True)):
            if setup.name == ECHO:
                found[setup].append(_measure_echo(setup.connections, seconds))
            else:
                found[setup].append(_measure(servers[setup.name], urls[setup.name], setup.connections, seconds))
    return found


def _measure_echo(connections: int, seconds: int) -> Cost:
    url = f"http://127.0.0.1:{_PORTS[ECHO]}"
    command = [sys.executable, "-m", "uvicorn", "bench.servers.litestar_echo:app", "--port", str(_PORTS[ECHO])]
    server = Server(ECHO, [*command, "--no-access-log", "--log-level", "warning"], f"{url}/predict", f"{url}/ready")
    with running(server) as pid:
        load(server, example(), connections=connections, seconds=_WARM_UP_S)
        before = spent(tree(pid))
        seen = load(server, example(), connections=connections, seconds=seconds)
        used = spent(tree(pid)).since(before)
    requests = seen.requests_per_second * seconds
    return Cost(seen.requests_per_second, 0, used.user_s / requests * 1e6, used.system_s / requests * 1e6, 0, 0, 0, 0)


class _Stored(NamedTuple):
    """What a database holds and has logged so far."""

    decisions: int
    bytes: int
    log_bytes: int
    syncs: int


def _measure(server: Server, url: str, connections: int, seconds: int) -> Cost:
    with _opened(url) as engine:
        first = _stored(engine)
        with running(server) as pid:
            load(server, example(), connections=connections, seconds=_WARM_UP_S)
            before, commits = _stored(engine), commits_of(server)
            began = _spent(engine, pid)
            seen = load(server, example(), connections=connections, seconds=seconds)
            # Before the rows are counted, which takes the database a while.
            used, database_used = (now.since(then) for now, then in zip(_spent(engine, pid), began, strict=True))
            after, made = _stored(engine), commits_of(server).since(commits)
        last = _stored(engine)
    rows = after.decisions - before.decisions
    if not rows:
        raise RuntimeError(f"{server.name} stored no decision")
    is_sqlite = url.startswith("sqlite")
    return Cost(
        seen.requests_per_second,
        made.rows_per_commit,
        used.user_s / rows * 1e6,
        used.system_s / rows * 1e6,
        database_used.seconds / rows * 1e6,
        (used.written_bytes if is_sqlite else after.log_bytes - before.log_bytes) / rows,
        (last.bytes - first.bytes) / (last.decisions - first.decisions),
        (made.commits if is_sqlite else after.syncs - before.syncs) / rows,
    )


def _spent(engine: Engine, pid: int) -> tuple[Spent, Spent]:
    """Return what the router and its database server, where it has one, have spent."""
    return spent(tree(pid)), spent(named("postgres") if is_postgresql(engine) else [])


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _stored(engine: Engine) -> _Stored:
    with for_reading(engine).connect() as connection:
        decisions = connection.execute(text("select count(*) from decisions")).scalar_one()
        if not is_postgresql(engine):
            pages, free = (connection.execute(text(f"pragma {name}")).scalar_one() for name in _PAGES)
            size = connection.execute(text("pragma page_size")).scalar_one()
            return _Stored(decisions, (pages - free) * size, 0, 0)
        connection.execute(text("select pg_stat_clear_snapshot()"))
        logged, syncs = connection.execute(text(_LOGGED)).one()
        return _Stored(decisions, int(connection.execute(text(_SIZE)).scalar_one()), int(logged), int(syncs))


_PAGES = ("page_count", "freelist_count")
_LOGGED = "select pg_current_wal_lsn() - '0/0', wal_sync from pg_stat_wal"
_SIZE = (
    "select sum(pg_total_relation_size(oid)) from pg_class "
    "where relkind = 'r' and relnamespace = 'public'::regnamespace"
)


def _inputs(middle: dict[Setup, Cost], turns: int) -> Iterator[str]:
    """Yield the lines of the table of what was measured."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    yield f"Measured on {machine}, {time.strftime('%Y-%m-%d')}; medians of {turns} turns:"
    yield ""
    yield (
        "| ledger | connections | decisions/s | rows per commit | router: user | system | of echo | database | "
        "log written | tables grew | log syncs |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for setup, cost in middle.items():
        echo = middle[setup._replace(name=ECHO)]
        shown = [
            setup.name,
            f"{setup.connections}",
            f"{cost.requests_per_second:,.0f}",
            f"{cost.rows_per_commit:.1f}",
            f"{cost.user_us:.0f} us",
            f"{cost.system_us:.0f} us",
            f"{cost.router_us / echo.router_us:.1f}",
            f"{cost.database_us:.0f} us",
            f"{cost.log_bytes:,.0f} B",
            f"{cost.table_bytes:,.0f} B",
            f"{cost.syncs:.3f}",
        ]
        if setup.name == ECHO:
            shown[3], shown[7:] = "", ["", "", "", ""]
        yield f"| {' | '.join(shown)} |"


def _extrapolation(middle: dict[Setup, Cost], fleet: Fleet) -> Iterator[str]:
    """Yield the lines of the table of what a fleet needs on PostgreSQL, at each number of rows per commit."""
    mean_rate = fleet.per_day / SECONDS_PER_DAY
    yield (
        f"{fleet.per_day:,.0f} decisions a day over {fleet.replicas} replicas: {mean_rate:,.0f} a second on average, "
        f"{mean_rate * fleet.peak:,.0f} at a peak of {fleet.peak:g} times that, "
        f"{mean_rate * fleet.peak / fleet.replicas:,.0f} of them by each replica. At the peak:"
    )
    yield ""
    yield "| rows per commit | router cores | database cores | commits/s | log | tables grow |"
    yield "|---|---|---|---|---|---|"
    for setup, cost in middle.items():
        if setup.name == "postgresql":
            each = needs(cost, fleet)
            yield (
                f"| {cost.rows_per_commit:.1f} | {each.router_cores:,.1f} | {each.database_cores:,.1f} | "
                f"{each.commits_per_s:,.0f} | {each.log_mb_per_s:,.0f} MB/s | {each.stored_gb_per_day:,.0f} GB a day |"
            )


def _replace(document: Path, report: str) -> None:
    """Put the tables between the marks of a document."""
    begin, end = _MARKS
    before = document.read_text(encoding="utf-8")
    after, count = re.subn(f"{begin}.*?{end}", lambda _: f"{begin}\n{report}\n{end}", before, flags=re.DOTALL)
    if count != 1:
        raise RuntimeError(f"{document} has {count} places for the tables, not one")
    document.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
