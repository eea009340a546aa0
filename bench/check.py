"""Whether the router has become slower: its ratios to the bare handler, against those of `bench/baseline.json`.

Run it with `make bench-check`; `python -m bench.check --update` writes the baseline. A figure is the median over the
turns of router / bare handler, both measured in the same turn. It fails when it is worse than the baseline's by more
than the noise band: three standard errors of the difference of the two medians, as the spread of their turns gives
them on the scale of logarithms (1.2533 sd / sqrt(turns) for each), and never less than 5 %.
"""

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench.comparing import Found, print_comparison, print_table
from bench.harness import Load, compare, write_json
from bench.model import example
from bench.predict import baseline
from bench.routers import published, router

BASELINE = Path(__file__).with_name("baseline.json")
LEAST_BAND = 0.05
_STANDARD_ERRORS = 3.0
_OF_A_MEDIAN = math.sqrt(math.pi / 2)
"""The standard error of a median over that of a mean, for normal values."""
_TURNOUT, _BARE = "turnout", "bare"


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ratio to the bare handler, one value per turn, and which way is worse."""

    better: Literal["higher", "lower"]
    turns: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median of the turns."""
        return statistics.median(self.turns)


class Verdict(NamedTuple):
    """What became of a figure: `worse` is the relative change for the worse (below 0 for the better)."""

    worse: float
    band: float

    @property
    def failed(self) -> bool:
        """Whether it is worse by more than noise."""
        return self.worse > self.band

    @property
    def improved(self) -> bool:
        """Whether it is better by more than noise."""
        return self.worse < -self.band


def main() -> None:
    """Measure, print each figure beside the baseline's, and end with 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--update", action="store_true", help="write the baseline instead of comparing with it")
    arguments = parser.parse_args()
    if not (arguments.update or BASELINE.exists()):
        sys.exit("there is no bench/baseline.json to compare with; write one with --update")
    before = None if arguments.update else msgspec.json.decode(BASELINE.read_bytes(), type=dict[str, Figure])
    found = _measure(arguments.connections, arguments.turns, arguments.seconds)
    print_comparison(found, _TURNOUT)
    figures = figures_of(found[_TURNOUT], found[_BARE])
    if before is None:
        write_json(BASELINE, msgspec.to_builtins(figures))
        Console().print("wrote bench/baseline.json")
        return
    verdicts = judged(before, figures)
    _print(before, figures, verdicts)
    if failed := [name for name, verdict in verdicts.items() if verdict.failed]:
        sys.exit(f"slower than the baseline by more than noise: {', '.join(failed)}")


def _measure(connections: Sequence[int], turns: int, seconds: int) -> Found:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/ledger.db"
        ours = router(_TURNOUT, folder, 8471, published(folder), database_url=url)
        servers = [ours, baseline(_BARE, "bare_echo", 8480)]
        return compare(servers, example(), connections=connections, turns=turns, seconds=seconds)


def figures_of(ours: Mapping[int, Sequence[Load]], bare: Mapping[int, Sequence[Load]]) -> dict[str, Figure]:
    """Return throughput and median latency as ratios within each turn, by name."""
    figures = {}
    for number, loads in ours.items():
        pairs = list(zip(loads, bare[number], strict=True))
        rates = tuple(a.requests_per_second / b.requests_per_second for a, b in pairs)
        p50s = tuple(a.p50_ms / b.p50_ms for a, b in pairs)
        figures[f"requests per second at {number} connections"] = Figure("higher", rates)
        figures[f"p50 at {number} connections"] = Figure("lower", p50s)
    return figures


def judged(before: Mapping[str, Figure], now: Mapping[str, Figure]) -> dict[str, Verdict]:
    """Return a verdict on each figure of the baseline that was measured; raises ValueError where none was."""
    common = [name for name in before if name in now]
    if not common:
        raise ValueError("no figure of the baseline was measured; measure with its numbers of connections")
    return {name: verdict(before[name], now[name]) for name in common}


def verdict(before: Figure, now: Figure) -> Verdict:
    """Return how much worse a figure is than it was, and how much of that may be noise."""
    change = math.log(now.middle / before.middle)
    error = math.hypot(_standard_error(before), _standard_error(now))
    worse = -change if before.better == "higher" else change
    return Verdict(math.expm1(worse), max(LEAST_BAND, math.expm1(_STANDARD_ERRORS * error)))


def _standard_error(figure: Figure) -> float:
    """Return that of the median of the logarithms; one turn says nothing of it."""
    if len(figure.turns) == 1:
        return math.inf
    spread = statistics.stdev(math.log(value) for value in figure.turns)
    return _OF_A_MEDIAN * spread / math.sqrt(len(figure.turns))


def _print(before: Mapping[str, Figure], now: Mapping[str, Figure], verdicts: Mapping[str, Verdict]) -> None:
    columns = ("router / bare handler", "baseline", "now", "worse by", "band", "")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for name, each in verdicts.items():
        said = "FAILED" if each.failed else "better: consider --update" if each.improved else "as before"
        middles = f"{before[name].middle:.3f}", f"{now[name].middle:.3f}"
        table.add_row(name, *middles, f"{each.worse:+.1%}", f"{each.band:.1%}", said)
    print_table(table)


if __name__ == "__main__":
    main()
