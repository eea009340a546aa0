"""Millions of decisions by one process: whether its memory or its latency grows with them.

A closed loop of one row per request, in windows; after each, the memory of the process and the latencies of the window
are noted. Slopes are least squares over the windows after the warm-up, with standard errors that allow for windows
resembling their neighbours (Newey and West 1987). The verdict is `flat` where the 95 % limit of the slope lies below
what is allowed, `grows` where all of the interval lies above, else `insufficient`. One server process on one core, wrk
on another. Run it with `python -m bench.soak`; the ledger of 5,000,000 decisions takes about 3 GB for a while.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import func, select

from analysis.charts.style import BETTER, CONTROL, WIDTH, WORSE
from bench.harness import Server, load, running, write_json
from bench.model import example
from bench.processes import memory, tree
from bench.routers import published, router
from router.ledger import schema
from router.ledger.database import for_reading, open_database
from tests.databases import BACKENDS, database

MEMORY_ALLOWED = 1.0
"""MiB per million decisions."""

LATENCY_ALLOWED = 1.0
"""Per cent of the mean per million decisions."""

_PORT = 8491
_BYTES_PER_DECISION = 800
_LIMIT = 1.96


class Window(NamedTuple):
    """What was seen at the end of a window."""

    decisions: int
    """Made by then."""
    seconds: float
    rss_mib: float
    pss_mib: float
    anonymous_mib: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float


class Trend(NamedTuple):
    """A slope per million decisions, with its standard error, and what it says."""

    name: str
    unit: str
    mean: float
    slope: float
    error: float
    allowed: float

    @property
    def verdict(self) -> str:
        """Return `flat`, `grows` or `insufficient`."""
        if self.slope + _LIMIT * self.error <= self.allowed:
            return "flat"
        return "grows" if self.slope - _LIMIT * self.error > self.allowed else "insufficient"


def main() -> None:
    """Measure, print the table, draw the chart and keep the figures; ends with status 1 when something grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=5_000_000)
    parser.add_argument("--window", type=int, default=5, help="seconds")
    parser.add_argument("--warm-up", type=float, default=0.1, help="share of the decisions that no slope is taken of")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--backend", choices=BACKENDS, default="sqlite")
    parser.add_argument("--json", type=Path, default=Path("var/bench/soak.json"))
    arguments = parser.parse_args()
    _require_room(arguments.decisions)
    with tempfile.TemporaryDirectory() as name, database(arguments.backend, Path(name)) as url:
        server = router("router", Path(name), _PORT, published(Path(name)), database_url=url)
        windows = _soak(server, arguments.decisions, arguments.window, arguments.connections)
        stored = _stored(url)
    if stored < windows[-1].decisions:
        raise RuntimeError(f"{windows[-1].decisions} decisions were answered, but the ledger has {stored}")
    found = trends(windows, arguments.warm_up)
    _print(found, windows, stored)
    content = {"windows": [each._asdict() for each in windows], "trends": [each._asdict() for each in found]}
    write_json(arguments.json, content)
    _draw(windows, found, arguments.warm_up, arguments.json.with_suffix(".png"))
    sys.exit(any(each.verdict == "grows" for each in found))


def _require_room(decisions: int) -> None:
    free, needed = shutil.disk_usage(tempfile.gettempdir()).free, decisions * _BYTES_PER_DECISION
    if free < needed:
        raise RuntimeError(
            f"{decisions:,} decisions need about {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free"
        )


def _soak(server: Server, decisions: int, window_s: int, connections: int) -> list[Window]:
    windows: list[Window] = []
    made, began_s = 0.0, time.monotonic()
    with running(server) as pid, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("deciding", total=decisions)
        while made < decisions:
            seen = load(server, example(), connections=connections, seconds=window_s)
            made += seen.requests_per_second * window_s
            windows.append(Window(int(made), time.monotonic() - began_s, *memory(tree(pid)), *seen))
            progress.update(task, completed=made)
    return windows


def _stored(url: str) -> int:
    engine = open_database(url)
    with for_reading(engine).connect() as connection:
        stored = connection.execute(select(func.count()).select_from(schema.decisions)).scalar_one()
    engine.dispose()
    return int(stored)


def trends(windows: Sequence[Window], warm_up: float) -> list[Trend]:
    """Return the slopes of memory and latencies over the windows after the warm-up."""
    after = [each for each in windows if each.decisions > warm_up * windows[-1].decisions]
    if len(after) < 5:
        raise RuntimeError(
            f"{len(after)} windows after the warm-up say nothing: more --decisions, or a smaller --window"
        )
    millions = np.array([each.decisions for each in after]) / 1e6
    found = []
    for name, values in (
        ("memory, RSS", [each.rss_mib for each in after]),
        ("memory, allocated", [each.anonymous_mib for each in after]),
        ("latency, p50", [each.p50_ms for each in after]),
        ("latency, p99", [each.p99_ms for each in after]),
    ):
        mean, is_memory = float(np.mean(values)), name.startswith("memory")
        slope, error = _slope(millions, np.array(values))
        scale = 1.0 if is_memory else 100 / mean
        allowed = MEMORY_ALLOWED if is_memory else LATENCY_ALLOWED
        found.append(Trend(name, "MiB" if is_memory else "%", mean, slope * scale, error * scale, allowed))
    return found


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return the least-squares slope and its standard error by Newey and West, with Bartlett weights."""
    from_mean = x - x.mean()
    spread = float(from_mean @ from_mean)
    slope = float(from_mean @ y) / spread
    scores = from_mean * (y - y.mean() - slope * from_mean)
    lags = math.floor(4 * (len(x) / 100) ** (2 / 9))
    variance = float(scores @ scores)
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(scores[lag:] @ scores[:-lag])
    return slope, math.sqrt(max(variance, 0.0) * len(x) / (len(x) - 2)) / spread


def _print(found: Sequence[Trend], windows: Sequence[Window], stored: int) -> None:
    columns = ("after the warm-up", "mean", "slope per million", "95 % interval", "allowed", "verdict")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for each in found:
        mean = f"{each.mean:.1f} MiB" if each.unit == "MiB" else f"{each.mean:.2f} ms"
        low, high = each.slope - _LIMIT * each.error, each.slope + _LIMIT * each.error
        table.add_row(
            each.name,
            mean,
            f"{each.slope:+.3f} ± {each.error:.3f} {each.unit}",
            f"{low:+.3f} to {high:+.3f}",
            f"{each.allowed:g}",
            each.verdict,
        )
    Console(width=120).print(table)
    last = windows[-1]
    Console().print(f"{stored:,} decisions are in the ledger, made in {last.seconds:,.0f} s and {len(windows)} windows")


def _draw(windows: Sequence[Window], found: Sequence[Trend], warm_up: float, file: Path) -> None:
    rows = pd.DataFrame({**each._asdict(), "millions": each.decisions / 1e6} for each in windows)
    begins = warm_up * windows[-1].decisions / 1e6
    mean = float(rows["millions"][rows["millions"] > begins].mean())
    resident = next(each for each in found if each.name == "memory, RSS")
    ends = pd.DataFrame(
        {"millions": at, "rss_mib": resident.mean + resident.slope * (at - mean)}
        for at in (begins, float(rows["millions"].max()))
    )
    x = alt.X("millions:Q", title="million decisions by one process")
    y = alt.Y("rss_mib:Q", title="RSS, MiB", scale=alt.Scale(zero=False))
    points = alt.Chart(rows).mark_point(size=18, filled=True, color=CONTROL).encode(x=x, y=y)
    line = alt.Chart(ends).mark_line(strokeWidth=2.5, color=BETTER).encode(x=x, y=y)
    said = f"memory, {resident.verdict}: {resident.slope:+.3f} ± {resident.error:.3f} MiB per million decisions"
    above = alt.layer(points, line).properties(width=WIDTH, height=200, title=said)
    folded = rows.melt("millions", ["p50_ms", "p99_ms"], "latency", "ms")
    colors = alt.Scale(domain=["p50_ms", "p99_ms"], range=[BETTER, WORSE])
    below = (
        alt.Chart(folded)
        .mark_line()
        .encode(x=x, y=alt.Y("ms:Q", title="ms, of each window"), color=alt.Color("latency:N", scale=colors))
    )
    chart: Any = alt.vconcat(above, below.properties(width=WIDTH, height=160))
    file.write_bytes(vl_convert.vegalite_to_png(json.dumps(chart.to_dict()), scale=1.5))
    Console().print(f"chart: {file}")


if __name__ == "__main__":
    main()
