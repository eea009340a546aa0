"""What a run of a comparison says: one table, with throughput as ratios within each turn, and one chart.

A ratio is taken between loads of the same turn, in which the machine was the same; its middle is the median of the
turns, and its spread the lowest and highest of them.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from bench.harness import Load, median

Found = Mapping[str, Mapping[int, Sequence[Load]]]
"""Loads of the turns by server and number of connections."""


class Ratio(NamedTuple):
    """One quotient per turn, summed up."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} x ({self.low:.2f}-{self.high:.2f})"


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """Return the quotients turn by turn."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


def throughput_ratio(over: Sequence[Load], under: Sequence[Load]) -> Ratio:
    """Return the quotients of requests per second turn by turn."""
    return ratio([load.requests_per_second for load in over], [load.requests_per_second for load in under])


def ratios_to(found: Found, subject: str) -> dict[str, dict[int, Ratio]]:
    """Return how many times faster than each server the subject is, by server and connections."""
    return {
        name: {number: throughput_ratio(found[subject][number], loads) for number, loads in by_connections.items()}
        for name, by_connections in found.items()
        if name != subject
    }


def print_comparison(found: Found, *subjects: str) -> None:
    """Print one row per server and number of connections, with each subject's throughput as a ratio to it."""
    columns = ("server", "conns", "requests/s", "lowest-highest", "p50 ms", "p99 ms")
    table = Table(*columns, *(f"{name} is" for name in subjects), box=box.SIMPLE_HEAD, pad_edge=False)
    ratios = [ratios_to(found, subject) for subject in subjects]
    for name, by_connections in found.items():
        for connections, loads in by_connections.items():
            middle, rates = median(loads), [each.requests_per_second for each in loads]
            table.add_row(
                name,
                str(connections),
                f"{middle.requests_per_second:,.0f}",
                f"{min(rates):,.0f}-{max(rates):,.0f}",
                f"{middle.p50_ms:.2f}",
                f"{middle.p99_ms:.2f}",
                *(str(each[name][connections]) if name in each else "" for each in ratios),
            )
    print_table(table)


def print_table(table: Table) -> None:
    """Print a table, in its whole width where that is not a terminal's: a log must not lose columns."""
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


def draw_comparison(found: Found, path: Path, title: str) -> None:
    """Write a PNG of requests per second: a bar to the median of the turns, and a dot for each of them."""
    import altair as alt
    import pandas as pd
    import vl_convert

    rows = [
        {"server": name, "connections": number, "requests/s": load.requests_per_second}
        for name, by_connections in found.items()
        for number, loads in by_connections.items()
        for load in loads
    ]
    x, y = alt.X("requests/s:Q", title="requests per second"), alt.Y("server:N", title=None, sort=list(found))
    base = alt.Chart().encode(y=y)
    bars = base.mark_bar(color="#9ecae1").encode(x=alt.X("median(requests/s):Q", title="requests per second"))
    dots = base.mark_circle(color="#08519c", size=24, opacity=1).encode(x=x)
    chart: Any = alt.layer(bars, dots, data=pd.DataFrame(rows)).properties(width=420)
    chart = chart.facet(row=alt.Row("connections:Q", title="connections")).properties(title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(vl_convert.vegalite_to_png(chart.to_dict(), scale=1.5))
