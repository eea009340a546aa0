"""What a request costs as a router grows: with experiments, with models loaded, and with rows in its ledger.

The goal is that nothing grows but memory by what is loaded. Every figure is compared in the same run with the smallest
router of its kind; experiments are measured with all requests for one of them, and spread over all of them. One server
process on one core, wrk on another. Run it with `python -m bench.growth`; with `--rows 10000 1000000 10000000` one of
the SQLite files has 4 GB for a while.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import insert, select

from bench import history
from bench.harness import Server, running, write_json
from bench.model import example
from bench.processes import memory, spent, tree
from bench.routers import published, router
from bench.scripts import run_script
from models.manifest import Draft
from models.reference import ModelReference
from models.registry import Registry
from router.ledger import schema
from router.ledger.database import open_database
from tests.databases import database

_FIRST_PORT = 8501
_IDLE_S, _WARM_UP_S = 2.0, 2

# Every request has its own unit, and goes to the next one of the endpoints.
_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local count = 0
request = function()
  count = count + 1
  local path = "/v1/endpoints/tumour-" .. (count %% %d) .. "/predict"
  return wrk.format(nil, path, nil, '{"unit":"unit-' .. count .. '","inputs":%s}')
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class Size(NamedTuple):
    """A router to measure; `kind` is what grows, and the first of a kind is what the others are compared with."""

    kind: str
    name: str
    backend: str
    experiments: int
    models: int
    asked: int
    """Over how many of the experiments requests are spread."""
    rows: int


class Cost(NamedTuple):
    """What one turn took: throughput, processor time of the server, and its memory after that."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    server_us_per_request: float
    rss_mib: float
    pss_mib: float
    anonymous_mib: float
    start_s: float
    idle_share: float
    """Of the core, while nobody asks."""


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--experiments", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--models", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 1_000_000], help="in SQLite; 10000000: 4 GB")
    parser.add_argument("--postgresql-rows", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--json", type=Path, default=Path("var/bench/growth.json"))
    arguments = parser.parse_args()
    sizes = [
        *_experiments(arguments.experiments),
        *(Size("models", f"{n:,} loaded", "sqlite", 100, n, 1, 0) for n in arguments.models),
        *_rows("sqlite", arguments.rows),
        *_rows("postgresql", arguments.postgresql_rows),
    ]
    found: dict[Size, list[Cost]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = dict(zip(sizes, _servers(sizes, Path(folder), stack), strict=True))
        plan = [size for _ in range(arguments.turns) for size in sizes]
        for size in track(plan, description="measuring", console=Console(stderr=True)):
            found[size].append(_measure(servers[size], size, arguments.connections, arguments.seconds))
    _print(found)
    write_json(
        arguments.json,
        [{**size._asdict(), "turns": [each._asdict() for each in costs]} for size, costs in found.items()],
    )


def _experiments(numbers: Sequence[int]) -> Iterator[Size]:
    for asked in ("one", "all"):
        for number in numbers:
            name = f"{number:,}, {asked} asked"
            yield Size(f"experiments, {asked} asked", name, "sqlite", number, 3, 1 if asked == "one" else number, 0)


def _rows(backend: str, numbers: Sequence[int]) -> Iterator[Size]:
    return (Size(f"rows, {backend}", f"{number:,} rows, {backend}", backend, 1, 3, 1, number) for number in numbers)


def _servers(sizes: Sequence[Size], folder: Path, stack: ExitStack) -> Iterator[Server]:
    references = published(folder)
    models = _copied(Registry(folder / "registry"), references[0], max(size.models for size in sizes))
    for number, size in enumerate(sizes):
        (folder / str(number)).mkdir()
        url = stack.enter_context(database(size.backend, folder / str(number)))
        server = router(size.name, folder, _FIRST_PORT + number, references, database_url=url)
        _multiply(url, size.experiments, models[: size.models])
        if size.rows:
            history.fill(url, size.rows)
        yield server


def _copied(registry: Registry, reference: ModelReference, count: int) -> list[ModelReference]:
    """Publish a model under so many names, without exporting it again."""
    manifest = registry.manifest(reference)
    files = {name: registry.read(reference, name) for name in manifest.files}
    draft = Draft(**{name: getattr(manifest, name) for name in Draft.__struct_fields__})
    return [registry.publish(msgspec.structs.replace(draft, name=f"copy-{n}"), files) for n in range(count)]


def _multiply(url: str, count: int, models: Sequence[ModelReference]) -> None:
    """Write so many running experiments into a ledger, each on an endpoint of its own, like the one that is there."""
    engine = open_database(url)
    with engine.begin() as connection:
        for table in (schema.endpoints, schema.experiments, schema.arms, schema.epochs):
            rows = [dict(row) for row in connection.execute(select(table)).mappings()]
            copies = [
                _copy(row, number, [str(models[(3 * number + arm) % len(models)]) for arm in range(3)])
                for number in range(count)
                for row in rows
            ]
            connection.execute(insert(table), copies)
    engine.dispose()


def _copy(row: dict[str, Any], number: int, models: Sequence[str]) -> dict[str, Any]:
    """Return a row of the control tables as it is for the copy of that number, whose arms have these models."""
    endpoint, copied = f"tumour-{number}", dict(row)
    if "champion" in row.get("document", ""):
        return {**row, "name": endpoint, "document": _changed(row, name=endpoint, champion=models[0])}
    if "id" in row:
        arms = [{"name": name, "model": model} for name, model in zip("abc", models, strict=True)]
        names = {"name": f"bench-{number}", "endpoint": endpoint}
        return {**row, **names, "id": row["id"] + 1 + number, "document": _changed(row, **names, arms=arms)}
    if "model" in row:
        copied["model"] = models[row["arm"]]
    return {**copied, "experiment_id": row["experiment_id"] + 1 + number}


def _changed(row: dict[str, Any], **fields: object) -> str:
    return _text({**json.loads(row["document"]), **fields})


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _measure(server: Server, size: Size, connections: int, seconds: int) -> Cost:
    script = _SCRIPT % (size.asked, _text(example()))
    began_s = time.monotonic()
    with running(server) as pid:
        start_s = time.monotonic() - began_s
        run_script(script, server.url, connections=connections, seconds=_WARM_UP_S)
        before = spent(tree(pid))
        time.sleep(_IDLE_S)
        idle = spent(tree(pid))
        requests, duration_us, p50_us, p99_us, errors = run_script(
            script, server.url, connections=connections, seconds=seconds
        )
        used, taken = spent(tree(pid)).since(idle), memory(tree(pid))
    if errors:
        raise RuntimeError(f"{size.name}: {errors} of {requests} requests failed")
    return Cost(
        requests / duration_us * 1e6,
        p50_us / 1000,
        p99_us / 1000,
        used.seconds / requests * 1e6,
        *taken,
        start_s,
        idle.since(before).seconds / _IDLE_S,
    )


def _print(found: dict[Size, list[Cost]]) -> None:
    """Print one row per size, with ratios to the first of its kind."""
    columns = (
        "experiments, models or rows",
        "requests/s",
        "ratio",
        "us/request",
        "ratio",
        "p99 ms",
        "PSS MiB",
        "more",
        "start s",
        "idle",
    )
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    first: dict[str, Cost] = {}
    for size, costs in found.items():
        middle = Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))
        base = first.setdefault(size.kind, middle)
        table.add_row(
            size.name,
            f"{middle.requests_per_second:,.0f}",
            f"{middle.requests_per_second / base.requests_per_second:.2f}",
            f"{middle.server_us_per_request:,.0f}",
            f"{middle.server_us_per_request / base.server_us_per_request:.2f}",
            f"{middle.p99_ms:.1f}",
            f"{middle.pss_mib:.0f}",
            f"{middle.pss_mib - base.pss_mib:+.1f}",
            f"{middle.start_s:.1f}",
            f"{middle.idle_share:.1%}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
