"""How long a bandit's look at its evidence takes as replicas are added, each of which counts in rows of its own.

Every replica looks as often as the bandit's document says (`update_every_s`), so this is what each of them spends a
second for each bandit, however little traffic there is. The ratio is to one replica. Run it with
`python -m bench.shards`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, insert

from bench.harness import write_json
from router.ledger import schema
from router.ledger.contributions import ITEMS
from router.ledger.control import ControlTables
from router.ledger.database import upgraded
from router.ledger.rollup import STEPS
from tests.databases import BACKENDS, database

_METRIC, _ARMS = "click", 3


class Look(NamedTuple):
    """How long a look took, and how much processor time of it was the replica's own."""

    seconds: float
    own_s: float


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--json", type=Path, default=Path("var/bench/shards.json"))
    arguments = parser.parse_args()
    found = {
        f"{backend} {replicas}": looks
        for backend in BACKENDS
        for replicas, looks in _measure(backend, arguments.replicas, arguments.turns)
    }
    _print(found)
    write_json(arguments.json, found)


def _measure(backend: str, replicas: Sequence[int], turns: int) -> Iterator[tuple[int, list[Look]]]:
    with tempfile.TemporaryDirectory() as folder, database(backend, Path(folder)) as url, upgraded(url) as engine:
        tables = ControlTables(engine)
        for number in replicas:
            _write(engine, number)
            _look(tables)
            yield number, [_look(tables) for _ in range(turns)]


def _write(engine: Engine, replicas: int) -> None:
    """Write the rows of the time before anything is added up."""
    minutes = STEPS[0].after
    decided = [
        _row(ITEMS, arm, at, shard) for arm in range(_ARMS) for at in range(minutes) for shard in range(replicas)
    ]
    observed = [_row(_METRIC, arm, at, 0) for arm in range(_ARMS) for at in range(minutes)]
    with engine.begin() as connection:
        connection.execute(schema.statistics.delete())
        connection.execute(insert(schema.statistics), decided + observed)


def _row(metric: str, arm: int, minute: int, shard: int) -> dict[str, Any]:
    key = {"experiment_id": 1, "arm": arm, "metric": metric, "minute": minute, "span": 1, "shard": shard}
    return {**key, "count": 10, "sum": 5.0, "sum_squares": 5.0}


def _look(tables: ControlTables) -> Look:
    began_s, own_s = time.perf_counter(), time.process_time()
    tables.minutes(1, [_METRIC, ITEMS])
    return Look(time.perf_counter() - began_s, time.process_time() - own_s)


def _print(found: dict[str, list[Look]]) -> None:
    table = Table("ledger", "replicas", "a look, ms", "its own, ms", "ratio", box=box.SIMPLE_HEAD, pad_edge=False)
    first: dict[str, Look] = {}
    for name, looks in found.items():
        backend, replicas = name.split()
        middle = Look(*map(statistics.median, zip(*looks, strict=True)))
        base = first.setdefault(backend, middle)
        table.add_row(
            backend,
            replicas,
            f"{middle.seconds * 1000:.1f}",
            f"{middle.own_s * 1000:.1f}",
            f"{middle.seconds / base.seconds:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
