"""Broken splits: false alarms under continuous looking and power to find a loss, of three tests of the same counts.

Three arms; the shares are constant, swing at random as a bandit's may, or ramp up. Decisions of one arm get lost. The
sequential test is read after every period and stops at the first alarm. The chi-square tests are read there too, which
they do not allow, and once at the end: pooled over periods with K - 1 degrees of freedom, and added up over periods.
Run it with `python -m bench.sample_ratio`.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import special

from analysis.statistics.sample_ratio import THRESHOLD
from analysis.statistics.sequential_ratio import sequential_ratio
from bench.harness import write_json

Floats = NDArray[np.float64]

LOSSES = (0.0, 0.01, 0.03, 0.1)
_ARMS = 3


class Alarms(NamedTuple):
    """Shares of runs with an alarm at the level, at any look and at the last one."""

    loss: float
    sequential: float
    """At any look, which it allows."""
    decisions: float
    """Median number of decisions until then; infinite where less than half of the runs had one."""
    pooled: float
    """At any look."""
    pooled_end: float
    added: float
    """At any look."""
    added_end: float


def constant(periods: int, _: np.random.Generator) -> Floats:
    """Return equal shares [periods, arms]."""
    return np.full((periods, _ARMS), 1 / _ARMS)


def swinging(periods: int, generator: np.random.Generator) -> Floats:
    """Return shares [periods, arms] that give 98 % to one arm at a time, at random, and 1 % to each other one."""
    leading = generator.integers(_ARMS, size=periods)
    return np.where(np.arange(_ARMS) == leading[:, np.newaxis], 0.98, 0.01)


def ramping(periods: int, _: np.random.Generator) -> Floats:
    """Return shares [periods, arms] that move from the first arm to equal ones."""
    ramp = np.linspace(0.01, 1 / _ARMS, periods)[:, np.newaxis]
    return np.concatenate([1 - 2 * ramp, ramp, ramp], axis=1)


SERVING: Mapping[str, Callable[[int, np.random.Generator], Floats]] = {
    "constant": constant,
    "swinging": swinging,
    "ramp": ramping,
}


def draw(shares: Floats, size: int, loss: float, generator: np.random.Generator) -> Floats:
    """Return draws [periods, arms] of `size` decisions per period, of which the last arm loses some."""
    draws = generator.multinomial(size, shares).astype(np.float64)
    draws[:, -1] -= generator.binomial(draws[:, -1].astype(np.int64), loss)
    return draws


def chi_square(draws: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """Return p-values after each period [periods], pooled over periods and added up over them."""
    expected = draws.sum(axis=1, keepdims=True) * shares
    counts, promised = draws.cumsum(axis=0), expected.cumsum(axis=0)
    pooled = special.chdtrc(_ARMS - 1, ((counts - promised) ** 2 / promised).sum(axis=1))
    degrees = (_ARMS - 1) * np.arange(1, len(draws) + 1)
    added = special.chdtrc(degrees, ((draws - expected) ** 2 / expected).sum(axis=1).cumsum())
    return np.asarray(pooled), np.asarray(added)


def measure(serving: str, loss: float, periods: int, size: int, runs: int, level: float, seed: int) -> Alarms:
    """Return how often each test alarms."""
    generator = np.random.default_rng(seed)
    first = np.full(runs, math.inf)
    chi = np.zeros((runs, 4), dtype=np.bool_)
    for run in track(range(runs), description=f"{serving}, {loss:.0%}", console=Console(stderr=True)):
        shares = SERVING[serving](periods, generator)
        draws = draw(shares, size, loss, generator)
        alarmed = sequential_ratio(draws, shares).p_values < level
        if alarmed.any():
            first[run] = draws.sum(axis=1).cumsum()[alarmed.argmax()]
        pooled, added = chi_square(draws, shares)
        chi[run] = ((pooled < level).any(), pooled[-1] < level, (added < level).any(), added[-1] < level)
    return Alarms(loss, float(np.isfinite(first).mean()), float(np.median(first)), *chi.mean(axis=0).tolist())


def main() -> None:
    """Measure, print the tables and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--periods", type=int, default=500)
    parser.add_argument("--size", type=int, default=1000, help="decisions per period")
    parser.add_argument("--runs", type=int, default=2000, help="of the alarms without a loss; power takes a tenth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("var/bench/sample_ratio.json"))
    arguments = parser.parse_args()
    results: dict[str, list[Alarms]] = {}
    for serving in SERVING:
        for level, losses, runs in ((0.05, LOSSES[:1], arguments.runs), (THRESHOLD, LOSSES, arguments.runs // 10)):
            results[f"{serving} shares, level {level:g}"] = [
                measure(serving, loss, arguments.periods, arguments.size, runs, level, arguments.seed)
                for loss in losses
            ]
    _print(results, arguments.periods, arguments.size, arguments.runs)
    write_json(arguments.json, {name: [each._asdict() for each in found] for name, found in results.items()})


def _print(results: Mapping[str, list[Alarms]], periods: int, size: int, runs: int) -> None:
    console = Console(width=120)
    for name, found in results.items():
        columns = ("lost of one arm", "sequential", "median decisions", "pooled, at any look", "at the end")
        table = Table(*columns, "added up, at any look", "at the end", title=name, box=box.SIMPLE_HEAD, pad_edge=False)
        for each in found:
            shares = (each.pooled, each.pooled_end, each.added, each.added_end)
            decisions = f"{each.decisions:,.0f}" if math.isfinite(each.decisions) else "-"
            table.add_row(
                f"{each.loss:.0%}", f"{each.sequential:.1%}", decisions, *(f"{share:.1%}" for share in shares)
            )
        console.print(table)
    console.print(
        f"Runs with an alarm, of {periods:,} periods with {size:,} decisions and a look after each. {runs:,} runs at "
        f"level 0.05 (Monte Carlo error {math.sqrt(0.05 * 0.95 / runs):.1%} at 5 %), {runs // 10:,} at {THRESHOLD:g}."
    )


if __name__ == "__main__":
    main()
