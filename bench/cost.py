"""What a decision costs: processor time, bytes logged and commits, by how many rows a commit has; and what follows.

One router process on one core, wrk on another, the database where it likes: for PostgreSQL a server of the benchmark's
own, so that nobody else's work is counted. With more connections more rows share a commit, and a row costs less. From
what was measured it computes what a fleet would need; docs/scaling.md explains the formulas, and holds the tables that
`python -m bench.cost --document docs/scaling.md` writes into it.
"""

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track
from sqlalchemy import Engine, text

from bench import cost_report, outcomes
from bench.commits import commits_of
from bench.fleet import ECHO, Cost, Fleet, Setup, model_of
from bench.harness import Server, load, running, write_json
from bench.model import example
from bench.processes import Spent, spent, tree
from bench.routers import published, router
from router.ledger.database import for_reading, is_postgresql, open_database
from tests import clusters
from tests.databases import BACKENDS

_PORTS = {ECHO: 8521, "sqlite": 8522, "postgresql": 8523}
_WARM_UP_S = 2
_MARKS = "<!-- written by bench.cost: begin -->", "<!-- written by bench.cost: end -->"


def main() -> None:
    """Measure, print the tables, write them into a document if asked, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--outcomes", type=int, default=50_000, help="rows to post in lists of 100, each turn")
    parser.add_argument("--per-day", type=float, default=1e9)
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--peak", type=float, default=3.0)
    parser.add_argument("--document", type=Path, help="the document whose tables are replaced")
    parser.add_argument("--json", type=Path, default=Path("var/bench/cost.json"))
    arguments = parser.parse_args()
    found = _compare(arguments.connections, arguments.turns, arguments.seconds)
    middle = {setup: Cost(*map(statistics.median, zip(*turns, strict=True))) for setup, turns in found.items()}
    models = {name: model_of([cost for setup, cost in middle.items() if setup.name == name]) for name in BACKENDS}
    posted = outcomes.compare(BACKENDS, arguments.turns, outcomes.Options(arguments.outcomes, 100, 16, 30))
    fleet = Fleet(arguments.per_day, arguments.replicas, arguments.peak)
    report = cost_report.report(
        middle, models, {name: outcomes.median_of(turns) for name, turns in posted.items()}, fleet, arguments.turns
    )
    sys.stdout.write(f"{report}\n")
    if arguments.document is not None:
        _replace(arguments.document, report)
    decisions = [{**setup._asdict(), "turns": [each._asdict() for each in turns]} for setup, turns in found.items()]
    write_json(arguments.json, {"decisions": decisions, "outcomes": posted, "models": models, "fleet": fleet})


def _compare(connections: Sequence[int], turns: int, seconds: int) -> dict[Setup, list[Cost]]:
    setups = [Setup(name, number) for name in (ECHO, *BACKENDS) for number in connections]
    found: dict[Setup, list[Cost]] = {setup: [] for setup in setups}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        references = published(folder)
        ledgers = {"sqlite": _Ledger(f"sqlite:///{folder}/ledger.db", None), "postgresql": _cluster(stack)}
        servers = {
            each: router(each, folder, _PORTS[each], references, database_url=ledger.url)
            for each, ledger in ledgers.items()
        }
        plan = [setup for _ in range(turns) for setup in setups]
        for setup in track(plan, description="measuring", console=Console(stderr=True)):
            if setup.name == ECHO:
                found[setup].append(_measure_echo(setup.connections, seconds))
            else:
                found[setup].append(_measure(servers[setup.name], ledgers[setup.name], setup.connections, seconds))
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
    return Cost(seen.requests_per_second, 0, 0, used.user_s / requests * 1e6, used.system_s / requests * 1e6, 0, 0, 0)


class _Ledger(NamedTuple):
    """Where a ledger is, and the process of its server, if it has one."""

    url: str
    server: int | None

    def spent(self) -> Spent:
        """Return what its server has spent, and all that it started."""
        return spent([] if self.server is None else tree(self.server))


def _cluster(stack: ExitStack) -> _Ledger:
    if (problem := clusters.problem()) is not None:
        raise RuntimeError(f"this benchmark starts a PostgreSQL of its own: {problem}")
    server = stack.enter_context(clusters.cluster())
    return _Ledger(server.create_database(), int(server.pid_file.read_text().split()[0]))


class _Stored(NamedTuple):
    """What a database holds and, if it says so, has logged so far."""

    decisions: int
    bytes: int
    log_bytes: int


def _measure(server: Server, ledger: _Ledger, connections: int, seconds: int) -> Cost:
    with _opened(ledger.url) as engine:
        first = _stored(engine)
        with running(server) as pid:
            load(server, example(), connections=connections, seconds=_WARM_UP_S)
            before, commits = _stored(engine), commits_of(server)
            router_began, database_began = spent(tree(pid)), ledger.spent()
            seen = load(server, example(), connections=connections, seconds=seconds)
            # Before the rows are counted, which takes the database a while.
            used, database_used = spent(tree(pid)).since(router_began), ledger.spent().since(database_began)
            after, made = _stored(engine), commits_of(server).since(commits)
        last = _stored(engine)
    rows = after.decisions - before.decisions
    if not rows:
        raise RuntimeError(f"{server.name} stored no decision")
    logged = after.log_bytes - before.log_bytes if is_postgresql(engine) else used.written_bytes
    return Cost(
        seen.requests_per_second,
        made.rows_per_commit,
        made.seconds / made.commits,
        used.user_s / rows * 1e6,
        used.system_s / rows * 1e6,
        database_used.seconds / rows * 1e6,
        logged / rows,
        (last.bytes - first.bytes) / (last.decisions - first.decisions),
    )


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
        if is_postgresql(engine):
            size, logged = (connection.execute(text(query)).scalar_one() for query in (_SIZE, _LOGGED))
            return _Stored(decisions, int(size), int(logged))
        pages, free, size = (connection.execute(text(f"pragma {name}")).scalar_one() for name in _PAGES)
        return _Stored(decisions, (pages - free) * size, 0)


_PAGES = ("page_count", "freelist_count", "page_size")
_LOGGED = "select pg_current_wal_lsn() - '0/0'"
_SIZE = (
    "select sum(pg_total_relation_size(oid)) from pg_class "
    "where relkind = 'r' and relnamespace = 'public'::regnamespace"
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
