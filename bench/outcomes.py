"""Outcome rows per second through `POST /v1/outcomes`, in lists, folded and durable, against an echo of the same lists.

Every row is the first outcome of a decision of its own, which the same router made before. At the end the ledger is
counted: it must hold every accepted row once, and the statistics must add up to them. One server process on one core,
wrk on another; several processes (`--workers 2`) have all cores. Run it with `python -m bench.outcomes`; PostgreSQL is
found as the tests find it.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import func, select

from bench.harness import SERVER_CORE, Server, running, write_json
from bench.model import example
from bench.processes import named, spent, tree
from bench.routers import published, router
from bench.scripts import run_script
from router.ledger import schema
from router.ledger.database import for_reading, open_database
from tests.databases import BACKENDS, database

ECHO = "echo"
METRIC = "click"
_PORTS = {ECHO: 8481, "sqlite": 8482, "postgresql": 8483}
_DECIDING_CONNECTIONS = 64

# The ids of decisions go to a file, one a line.
_DECIDE = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local file = io.open("%s", "a")
local count = 0
request = function()
  count = count + 1
  return wrk.format(nil, nil, nil, '{"unit":"unit-' .. count .. '","inputs":%s}')
end
response = function(status, headers, body)
  if status == 200 then file:write(string.match(body, '"decision_id":"([^"]+)"'), "\\n") end
end
"""

# Every line of a file is posted once (again and again, when it is for the echo), timed from first to last reply.
_POST = """
local ffi = require("ffi")
ffi.cdef[[typedef struct {long s; long us;} moment; int gettimeofday(moment*, void*);]]
local function now()
  local at = ffi.new("moment")
  ffi.C.gettimeofday(at, nil)
  return tonumber(at.s) * 1e6 + tonumber(at.us)
end
local posts, again, sent, owner = {}, %s, 0, nil
answered, accepted, failed, began, ended = 0, 0, 0, 0, 0
setup = function(thread) owner = thread end
init = function(args)
  for line in io.lines("%s") do
    posts[#posts + 1] = wrk.format("POST", nil, {["content-type"] = "application/json"}, line)
  end
end
request = function()
  if sent == 0 then began = now() end
  sent = sent + 1
  return posts[(sent - 1) %% #posts + 1]
end
response = function(status, headers, body)
  answered, ended = answered + 1, now()
  if status ~= 200 then failed = failed + 1 end
  accepted = accepted + (tonumber(string.match(body, '"accepted":(%%d+)')) or 0)
  if answered == #posts and not again then wrk.thread:stop() end
end
done = function(summary, latency)
  local errors = owner:get("failed") + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format("RESULT %%d %%d %%d %%d %%d %%d\\n", owner:get("answered"), owner:get("accepted"),
    owner:get("ended") - owner:get("began"), latency:percentile(50), latency:percentile(99), errors))
end
"""


class Posted(NamedTuple):
    """One measurement: lists and rows per second, how long a list took, and processor time per row."""

    posts_per_second: float
    rows_per_second: float
    p50_ms: float
    p99_ms: float
    server_us_per_row: float
    database_us_per_row: float


class Options(NamedTuple):
    """How much is posted, and how."""

    rows: int
    per_post: int
    connections: int
    seconds: int
    workers: int = 1

    @property
    def core(self) -> int | None:
        """Where the server runs; None: anywhere."""
        return SERVER_CORE if self.workers == 1 else None


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000, help="decisions of each turn, and as many outcomes")
    parser.add_argument("--per-post", type=int, default=100)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=30, help="the longest that a turn may post")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--json", type=Path, default=Path("var/bench/outcomes.json"))
    arguments = parser.parse_args()
    options = Options(arguments.rows, arguments.per_post, arguments.connections, arguments.seconds, arguments.workers)
    found = compare(arguments.backends, arguments.turns, options)
    _print(found)
    write_json(arguments.json, {name: [each._asdict() for each in turns] for name, turns in found.items()})


def compare(backends: Sequence[str], turns: int, options: Options) -> dict[str, list[Posted]]:
    """Measure routers over these ledgers and the echo in turn, and check what the ledgers hold at the end."""
    found: dict[str, list[Posted]] = {name: [] for name in (ECHO, *backends)}
    accepted = dict.fromkeys(backends, 0)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        references = published(folder)
        urls = {each: stack.enter_context(database(each, folder)) for each in backends}
        routers = {each: router(each, folder, _PORTS[each], references, database_url=urls[each]) for each in backends}
        plan = [each for _ in range(turns) for each in backends]
        for each in track(plan, description="measuring", console=Console(stderr=True)):
            lists = folder / "lists"
            with running(routers[each], core=options.core) as pid:
                lists.write_text("\n".join(_lists(_decided(routers[each], folder, options.rows), options)))
                measured, taken = _post(routers[each], pid, lists, options, again=False)
            found[each].append(measured)
            accepted[each] += taken
            with running(_echo(options.workers), core=options.core) as pid:
                found[ECHO].append(
                    _post(_echo(options.workers), pid, lists, options._replace(seconds=3), again=True)[0]
                )
        for each in backends:
            _check(urls[each], accepted[each], most=turns * options.rows)
    return found


def _echo(workers: int) -> Server:
    url = f"http://127.0.0.1:{_PORTS[ECHO]}"
    module = "bench.servers.litestar_echo_list:app"
    command = [sys.executable, "-m", "uvicorn", module, "--port", str(_PORTS[ECHO])]
    options = ["--workers", str(workers), "--no-access-log", "--log-level", "warning"]
    return Server(ECHO, [*command, *options], f"{url}/outcomes", f"{url}/ready")


def _decided(server: Server, folder: Path, count: int) -> list[str]:
    """Let the router make so many decisions, and return their ids."""
    file = folder / "ids"
    file.unlink(missing_ok=True)
    file.touch()
    script = _DECIDE % (file, json.dumps(example(), separators=(",", ":")))
    ids: list[str] = []
    while len(ids) < count:
        before = len(ids)
        run_script(script, server.url, connections=_DECIDING_CONNECTIONS, seconds=3)
        ids = file.read_text().splitlines()
        if len(ids) == before:
            raise RuntimeError(f"{server.name} makes no decisions")
    return ids[:count]


def _lists(ids: Sequence[str], options: Options) -> Iterator[str]:
    """Yield lists of first outcomes, in an order that is not that of the decisions."""
    coins = random.Random(1)  # noqa: S311
    mixed = coins.sample(ids, len(ids))
    for start in range(0, len(mixed), options.per_post):
        rows = [
            {"decision_id": each, "metric": METRIC, "value": coins.randrange(2)}
            for each in mixed[start : start + options.per_post]
        ]
        yield json.dumps(rows, separators=(",", ":"))


def _post(server: Server, pid: int, lists: Path, options: Options, *, again: bool) -> tuple[Posted, int]:
    """Post the lists; return what that was like, and how many rows were accepted."""
    script = _POST % (str(again).lower(), lists)
    url = server.url.replace("/v1/endpoints/tumour/predict", "/v1/outcomes")
    storing = named("postgres") if server.name == "postgresql" else []
    before, stored = spent(tree(pid)), spent(storing)
    result = run_script(script, url, connections=options.connections, seconds=options.seconds)
    used, storage = spent(tree(pid)).since(before), spent(storing).since(stored)
    answered, accepted, took_us, p50_us, p99_us, errors = result
    if errors or not answered:
        raise RuntimeError(f"{server.name}: {errors} of {answered} posts failed")
    rows = answered * options.per_post
    if not again and accepted > rows:
        raise RuntimeError(f"{server.name}: {accepted} of {rows} rows were accepted")
    per_second = answered / took_us * 1e6
    posted = Posted(
        per_second,
        per_second * options.per_post,
        p50_us / 1000,
        p99_us / 1000,
        used.seconds / rows * 1e6,
        storage.seconds / rows * 1e6,
    )
    return posted, accepted


def _check(url: str, accepted: int, *, most: int) -> None:
    """Compare what was accepted with what the ledger holds, and that with the statistics.

    Rows whose receipt came after wrk had stopped are in the ledger too, so it may hold more, but not more than `most`.
    """
    rows, totals = schema.outcomes, schema.statistics
    engine = open_database(url)
    with for_reading(engine).connect() as connection:
        stored = connection.execute(select(func.count()).where(rows.c.metric == METRIC)).scalar_one()
        folded, total = connection.execute(
            select(func.sum(totals.c.count), func.sum(totals.c.sum)).where(totals.c.metric == METRIC)
        ).one()
        ones = connection.execute(select(func.sum(rows.c.value)).where(rows.c.metric == METRIC)).scalar_one()
    engine.dispose()
    if not accepted <= stored <= most or (folded, total) != (stored, ones):
        raise RuntimeError(
            f"{accepted} rows were accepted, {stored} are stored ({ones} ones), {folded} are counted ({total} ones)"
        )
    Console().print(f"{engine.dialect.name}: {accepted:,} rows accepted, {stored:,} stored, {int(folded):,} counted")


def _print(found: dict[str, list[Posted]]) -> None:
    columns = ("server", "rows/s", "lowest-highest", "p50 ms", "p99 ms", "us/row", "database", f"{ECHO} is")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    base = median_of(found[ECHO])
    for name, turns in found.items():
        middle, rates = median_of(turns), [each.rows_per_second for each in turns]
        table.add_row(
            name,
            f"{middle.rows_per_second:,.0f}",
            f"{min(rates):,.0f}-{max(rates):,.0f}",
            f"{middle.p50_ms:.1f}",
            f"{middle.p99_ms:.1f}",
            f"{middle.server_us_per_row:.1f}",
            f"{middle.database_us_per_row:.1f}",
            "" if name == ECHO else f"{base.rows_per_second / middle.rows_per_second:.1f} x",
        )
    Console().print(table)
    Console().print("p50 and p99 are of a list; us/row is processor time")


def median_of(turns: Sequence[Posted]) -> Posted:
    """Return the median of each figure."""
    return Posted(*(statistics.median(values) for values in zip(*turns, strict=True)))


if __name__ == "__main__":
    main()
