"""What a report costs: time and peak memory on DuckDB and on Spark, against pandas and one aggregate as the floor.

Decisions with outcomes are generated to the ledger's own schema in Delta. Each measurement has a fresh process; it
starts when everything is imported, and its memory is that of all of its processes at their peaks. pandas computes the
same summary from all rows. The floor is a single aggregate by arm over the outcomes, in DuckDB. The report's numbers
must be the same everywhere. Run it with `python -m bench.reports`; Spark needs Java.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import deltalake
import duckdb
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from analysis.commands import document
from analysis.report import load
from analysis.spark import java_problem
from bench.decisions import NAME, NOW_MS, write_lake
from bench.harness import write_json
from bench.in_pandas import summarise

FLOOR, DUCKDB, PANDAS, SPARK = "one aggregate", "report, DuckDB", "pandas", "report, Spark"
_COMPARED = (
    *("units", "decisions", "observed_units", "observations", "mean"),
    *("difference", "difference_low", "difference_high", "sample_ratio_p_value"),
)


class Measured(NamedTuple):
    """One measurement of one process."""

    seconds: float
    start_s: float
    """Of these, until the experiment was read; with Spark most of it is Spark's start."""
    cpu_s: float
    """Of all of its processes and threads; other work on the machine changes it less than `seconds`."""
    peak_mb: float
    rows: list[dict[str, Any]]
    """Of the summary."""


def _aggregate(lake: Path) -> tuple[float, float, list[dict[str, Any]]]:
    files = deltalake.DeltaTable(lake / "logs" / "outcomes").file_uris()
    query = "select arm, count(*), sum(value), sum(value * value) from read_parquet($files) group by arm"
    started = time.perf_counter()
    duckdb.execute(query, {"files": files}).fetchall()
    return time.perf_counter() - started, 0.0, []


def _report(source: str) -> tuple[float, float, list[dict[str, Any]]]:
    started = time.perf_counter()
    loaded = load(NAME, source, now_ms=NOW_MS)
    opened = time.perf_counter()
    rows = document(loaded)["results"]
    return time.perf_counter() - started, opened - started, rows


def _pandas(lake: Path) -> tuple[float, float, list[dict[str, Any]]]:
    started = time.perf_counter()
    rows = summarise(lake, NOW_MS)
    return time.perf_counter() - started, 0.0, rows


ENGINES: Mapping[str, Callable[[Path], tuple[float, float, list[dict[str, Any]]]]] = {
    FLOOR: _aggregate,
    DUCKDB: lambda lake: _report(str(lake)),
    PANDAS: _pandas,
    SPARK: lambda lake: _report(f"spark:{lake}"),
}


def _processes(process: str = "self") -> Iterator[Path]:
    """Yield what Linux says of a process and of those that it started."""
    folder = Path("/proc") / process
    yield folder
    for task in (folder / "task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _processes(child)


def _cpu_s(process: Path) -> float:
    user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _peak_mb(process: Path) -> float:
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    # One that has ended, and that nobody asked about yet, has no memory any more.
    return int(status.get("VmHWM", "0 kB").split()[0]) / 1024


def _measure_here(engine: str, lake: Path) -> None:
    """Measure in this process, and print the figures for `_measure`."""
    before = time.process_time()
    seconds, start_s, rows = ENGINES[engine](lake)
    processes = list(_processes())
    cpu_s, peak_mb = sum(map(_cpu_s, processes)) - before, sum(map(_peak_mb, processes))
    print(json.dumps([seconds, start_s, cpu_s, peak_mb, rows]))


def _measure(engine: str, lake: Path) -> Measured:
    command = [sys.executable, "-m", "bench.reports", "--measure", engine, "--folder", str(lake)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(*json.loads(done.stdout))


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--turns", type=int, default=1, help="of each measurement, of which the median counts")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--folder", type=Path, help="for the lakes; by default a temporary one")
    parser.add_argument("--json", type=Path, default=Path("var/bench/reports.json"))
    parser.add_argument("--measure", choices=list(ENGINES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        _measure_here(arguments.measure, arguments.folder)
        return
    engines = [engine for engine in arguments.engines if not (engine == SPARK and _spark_problem())]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = {
            size: _compare(Path(folder) / str(size), size, engines, arguments.turns) for size in arguments.decisions
        }
    for size, by_engine in found.items():
        print_size(size, by_engine)
    if len(found) > 1:
        print_growth(found)
    write_json(
        arguments.json,
        {size: {name: each._asdict() for name, each in by_engine.items()} for size, by_engine in found.items()},
    )


def _spark_problem() -> str | None:
    if problem := java_problem():
        print(f"without Spark: {problem}", file=sys.stderr)
    return problem


def _compare(lake: Path, size: int, engines: Sequence[str], turns: int) -> dict[str, Measured]:
    write_lake(lake, size)
    plan = [engine for _ in range(turns) for engine in engines]
    found: dict[str, list[Measured]] = {engine: [] for engine in engines}
    for engine in track(plan, description=f"measuring {size:,}", console=Console(stderr=True)):
        found[engine].append(_measure(engine, lake))
    shutil.rmtree(lake)
    middles = {engine: _median(measured) for engine, measured in found.items()}
    _check([each.rows for each in middles.values() if each.rows])
    return middles


def _median(measured: Sequence[Measured]) -> Measured:
    return Measured(
        seconds=statistics.median(each.seconds for each in measured),
        start_s=statistics.median(each.start_s for each in measured),
        cpu_s=statistics.median(each.cpu_s for each in measured),
        peak_mb=statistics.median(each.peak_mb for each in measured),
        rows=measured[0].rows,
    )


def _check(summaries: Sequence[list[dict[str, Any]]]) -> None:
    """Refuse to compare what is not the same."""
    first, *others = [
        {(row["metric"], row["arm"]): [row.get(name) or 0.0 for name in _COMPARED] for row in rows}
        for rows in summaries
    ]
    for other in others:
        for key, values in first.items():
            for name, one, two in zip(_COMPARED, values, other[key], strict=True):
                known = [0.0 if math.isnan(each) else each for each in (one, two)]
                if not math.isclose(*known, rel_tol=1e-9, abs_tol=1e-12):
                    raise RuntimeError(f"{name} of {key} is {one!r} on one engine and {two!r} on another")


def print_size(size: int, found: Mapping[str, Measured]) -> None:
    """Print one row per engine, with its time and memory as ratios to those of the report on DuckDB."""
    columns = ("", "seconds", "of which start", "CPU seconds", "peak MB", "time / DuckDB", "memory / DuckDB")
    table = Table(*columns, title=f"{size:,} decisions", box=box.SIMPLE_HEAD, pad_edge=False)
    base = found.get(DUCKDB)
    for name, each in found.items():
        ratios = (each.seconds / base.seconds, each.peak_mb / base.peak_mb) if base else ()
        figures = (f"{each.seconds:.2f}", f"{each.start_s:.2f}", f"{each.cpu_s:.2f}", f"{each.peak_mb:,.0f}")
        table.add_row(name, *figures, *(f"{ratio:.2f} x" for ratio in ratios))
    Console(width=120).print(table)


def print_growth(found: Mapping[int, Mapping[str, Measured]]) -> None:
    """Print by how much each engine's time and memory grow from the smallest to the largest size."""
    (small, before), (large, after) = min(found.items()), max(found.items())
    title = f"from {small:,} to {large:,} decisions, {large / small:,.0f} times as many"
    table = Table("", "time", "CPU time", "memory", title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for name, each in after.items():
        pairs = zip(each[:-1], before[name][:-1], strict=True)
        seconds, _, cpu_s, peak_mb = (f"{late / early:.1f} x" if early else "" for late, early in pairs)
        table.add_row(name, seconds, cpu_s, peak_mb)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
