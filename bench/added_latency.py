"""What one server adds to the latency of another at the same constant rate, waiting counted."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.comparing import print_table
from bench.harness import Server, running, warm_up
from bench.open_loop import OpenLoad, offer

CONNECTIONS = 64


class Pair(NamedTuple):
    """Two servers to be asked at the same rate, in requests per second."""

    subject: Server
    base: Server
    rate: float


class Added(NamedTuple):
    """The loads of both, turn by turn."""

    subject: str
    base: str
    rate: float
    with_it: list[OpenLoad]
    without: list[OpenLoad]

    def differences(self, figure: str) -> list[float]:
        """Return, turn by turn, what was added to a figure, in its unit."""
        pairs = zip(self.with_it, self.without, strict=True)
        return [getattr(ours, figure) - getattr(base, figure) for ours, base in pairs]


def added(pairs: Sequence[Pair], inputs: Mapping[str, float], *, turns: int, seconds: float) -> list[Added]:
    """Measure both servers of each pair in turn."""
    found = [Added(pair.subject.name, pair.base.name, pair.rate, [], []) for pair in pairs]
    plan = [
        (server, pair.rate, loads)
        for turn in range(turns)
        for pair, each in zip(pairs, found, strict=True)
        for server, loads in _there_and_back(pair, each, turn)
    ]
    for server, rate, loads in track(plan, description="at a constant rate", console=Console(stderr=True)):
        with running(server):
            warm_up(server, inputs, connections=CONNECTIONS)
            loads.append(offer(server, inputs, rate=rate, seconds=seconds, connections=CONNECTIONS))
    return found


def _there_and_back(pair: Pair, found: Added, turn: int) -> list[tuple[Server, list[OpenLoad]]]:
    both = [(pair.subject, found.with_it), (pair.base, found.without)]
    return both if turn % 2 == 0 else both[::-1]


def print_added(found: Sequence[Added]) -> None:
    """Print the medians of both, and of the differences within the turns with their spread."""
    columns = ("server", "against", "requests/s", "", "with ms", "without ms", "added ms", "lowest-highest")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for each in found:
        for figure, label in (("p50_ms", "p50"), ("p99_ms", "p99"), ("late_p99_ms", "sender's own p99")):
            differences = each.differences(figure)
            table.add_row(
                each.subject,
                each.base,
                f"{each.rate:,.0f}",
                label,
                f"{statistics.median(getattr(load, figure) for load in each.with_it):.2f}",
                f"{statistics.median(getattr(load, figure) for load in each.without):.2f}",
                f"{statistics.median(differences):.2f}",
                f"{min(differences):.2f} to {max(differences):.2f}",
            )
    print_table(table)
