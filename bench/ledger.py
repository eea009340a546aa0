"""What durability costs: decisions per second and commit latency of the ledger, and of the whole router over it.

Every decision waits until it is on disk. The baselines, in the same run: the same writer without waiting for the disk
(`no sync`), and a commit of its own for every decision (`one each`). Then whole routers of one and of two processes,
loaded over HTTP. Run it with `python -m bench.ledger`; PostgreSQL is found as the tests find it.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Engine, event

from bench.harness import write_json
from bench.routers import Served, serve_and_load
from router.decision_id import DecisionId, Signer
from router.ledger.batch import BatchWriter, Job
from router.ledger.database import is_postgresql, open_database, upgrade
from router.ledger.failover import Failover, Session
from router.ledger.partitions import ensure_partitions
from router.ledger.records import DecisionRow
from router.ledger.writer import LedgerWriter
from router.service import system_clock
from tests.databases import BACKENDS, database

DURABLE, NO_SYNC, ONE_EACH = "durable", "no sync", "one each"
VARIANTS = (DURABLE, NO_SYNC, ONE_EACH)

_SIGNER = Signer(["a secret of enough length"])
_INPUTS = "[{" + ",".join(f'"f{number}":{number}.5' for number in range(30)) + "}]"


class Measured(NamedTuple):
    """One writer under load: what its clients got, and what its commits were like."""

    decisions_per_second: float
    commit_p50_ms: float
    commit_p99_ms: float
    rows_per_commit: float


class OneEach(Failover):
    """Commits every decision by itself, as a router without group commit would."""

    def commit(self, session: Session, jobs: Sequence[Job]) -> list[Any]:
        """Commit job by job."""
        return [answer for job in jobs for answer in super(OneEach, self).commit(session, [job])]


def main() -> None:
    """Measure, print the tables and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--json", type=Path, default=Path("var/bench/ledger.json"))
    arguments = parser.parse_args()
    found = _compare_writers(arguments.clients, arguments.turns, arguments.seconds)
    _print_writers(found)
    served = {
        f"{backend}, {workers} process{'es' if workers > 1 else ''}": serve_and_load(
            backend, workers, connections=64, turns=arguments.turns, seconds=round(arguments.seconds)
        )
        for backend in BACKENDS
        for workers in (1, 2)
    }
    _print_routers(served)
    write_json(
        arguments.json, {"writers": {" ".join(map(str, key)): each for key, each in found.items()}, "routers": served}
    )


def _compare_writers(clients: Sequence[int], turns: int, seconds: float) -> dict[tuple[str, int, str], list[Measured]]:
    plan = [
        (backend, number, variant)
        for _ in range(turns)
        for backend in BACKENDS
        for number in clients
        for variant in VARIANTS
    ]
    found: dict[tuple[str, int, str], list[Measured]] = {}
    for backend, number, variant in track(plan, description="measuring", console=Console(stderr=True)):
        with _ledger(backend, variant) as (engine, folder):
            found.setdefault((backend, number, variant), []).append(_measure(engine, folder, variant, number, seconds))
    return found


@contextmanager
def _ledger(backend: str, variant: str) -> Iterator[tuple[Engine, Path]]:
    with tempfile.TemporaryDirectory() as folder, database(backend, Path(folder)) as url:
        engine = open_database(url)
        upgrade(engine)
        ensure_partitions(engine, system_clock())
        if variant == NO_SYNC:
            setting = "set synchronous_commit = off" if is_postgresql(engine) else "pragma synchronous = off"
            event.listen(engine, "connect", lambda connection, _: _run(connection, setting))
            engine.dispose()
        try:
            yield engine, Path(folder)
        finally:
            engine.dispose()


def _run(connection: Any, setting: str) -> None:
    connection.cursor().execute(setting)
    connection.commit()


def _measure(engine: Engine, folder: Path, variant: str, clients: int, seconds: float) -> Measured:
    commits: list[tuple[float, int]] = []
    kind = OneEach if variant == ONE_EACH else Failover
    store = kind(engine, BatchWriter(system_clock), folder / "spool", max_spool_bytes=1_000_000_000)
    writer = LedgerWriter(
        store, queue_size=100_000, timeout_s=60.0, committed=lambda took_s, rows: commits.append((took_s, rows))
    )
    writer.start()
    try:
        decided = asyncio.run(_load(writer, clients, seconds))
    finally:
        writer.stop()
    if store.state().problem is not None:
        raise RuntimeError(f"the ledger was away: {store.state().problem}")
    per_commit = [took_s / (rows if variant == ONE_EACH else 1) * 1000 for took_s, rows in commits]
    rows = 1.0 if variant == ONE_EACH else statistics.fmean(rows for _, rows in commits)
    centiles = statistics.quantiles(per_commit, n=100)
    return Measured(decided / seconds, centiles[49], centiles[98], rows)


async def _load(writer: LedgerWriter, clients: int, seconds: float) -> int:
    """Decide from so many clients at once, each as soon as its last decision is durable."""
    ends = time.monotonic() + seconds

    async def client() -> int:
        decided = 0
        while time.monotonic() < ends:
            await writer.decide(_decision(), None)
            decided += 1
        return decided

    return sum(await asyncio.gather(*(client() for _ in range(clients))))


def _decision() -> DecisionRow:
    now_ms = system_clock()
    id_ = _SIGNER.sign(DecisionId(now_ms, 1, 1, 0, 5000, os.urandom(8)))
    model = "tumour@1"
    return DecisionRow(id_, now_ms, "tumour", 1, 1, 0, 0.5, "unit-1", model, model, None, None, _INPUTS, "[0.25]")


def _print_writers(found: dict[tuple[str, int, str], list[Measured]]) -> None:
    columns = ("ledger", "clients", "commits", "per s", "p50 ms", "p99 ms", "rows", f"{DURABLE} is")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for (backend, clients, variant), turns in sorted(found.items(), key=lambda each: each[0][:2]):
        middle, durable = _median(turns), _median(found[backend, clients, DURABLE])
        ratio = durable.decisions_per_second / middle.decisions_per_second
        table.add_row(
            backend,
            str(clients),
            variant,
            f"{middle.decisions_per_second:,.0f}",
            f"{middle.commit_p50_ms:.2f}",
            f"{middle.commit_p99_ms:.2f}",
            f"{middle.rows_per_commit:.1f}",
            "" if variant == DURABLE else f"{ratio:.2f} x",
        )
    Console().print(table)


def _print_routers(served: dict[str, Served]) -> None:
    table = Table("router over", "requests/s", "p50 ms", "p99 ms", "rows/commit", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, each in served.items():
        table.add_row(
            name,
            f"{each.load.requests_per_second:,.0f}",
            f"{each.load.p50_ms:.2f}",
            f"{each.load.p99_ms:.2f}",
            f"{each.rows_per_commit:.1f}",
        )
    Console().print(table)


def _median(turns: Sequence[Measured]) -> Measured:
    return Measured(*(statistics.median(values) for values in zip(*turns, strict=True)))


if __name__ == "__main__":
    main()
