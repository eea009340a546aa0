"""Regret of the router's own bandit on Bernoulli arms, against uniform allocation and Lai and Robbins' bound (1985).

Every epoch is made by the code that serves: the shares from the evidence, their quantisation to a table of 10 000
buckets, and draws from that table; only the ledger is left out. The arms are those of Chapelle and Li (2011): the best
succeeds with 0.5, all others with less by a gap. An arm counts from its first matured decision on (min_matured 0), or
else burn-in would hide what the rule does. Whatever the floor, every arm keeps one bucket, which costs a little in
every round and lets no arm be lost for good.

Run it with `python -m bench.regret`.
"""

import argparse
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from analysis.statistics.thompson import Evidence, probabilities
from bench.harness import write_json
from router.allocation.tables import live_counts
from router.assignment.epochs import fresh
from router.assignment.hashing import BUCKETS
from router.documents import Thompson

BEST = 0.5
EPOCH = 100
"""Rounds between two updates."""
GAPS = (0.1, 0.02)
DELAYS = (0, 10, 100)

_CONSOLE = Console(width=120)

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class Setting(NamedTuple):
    """One bandit problem and how it is played; delays and half-life are in rounds."""

    arms: int
    gap: float
    rounds: int
    repetitions: int
    delay: int = 0
    floor: float = 0.0
    half_life: int | None = None
    swapped: bool = False
    """Whether the best arm and the second one change places half-way."""


class Played(NamedTuple):
    """Regret of every repetition [repetitions, checkpoints], and the rounds at the checkpoints."""

    setting: Setting
    checkpoints: list[int]
    regret: list[list[float]]
    seconds: float


def play(setting: Setting, seed: np.random.SeedSequence) -> list[float]:
    """Return the cumulative regret of one repetition at each checkpoint: what the best arm would have won on top."""
    generator = np.random.default_rng(seed)
    allocation = Thompson(metric="reward", floor=setting.floor, min_matured=0)
    truth = _truth(setting)
    trials, wins = np.zeros(setting.arms), np.zeros(setting.arms)
    fades = 1.0 if setting.half_life is None else 0.5 ** (EPOCH / setting.half_life)
    pending: deque[tuple[int, Counts, Counts]] = deque()
    regret, at = 0.0, []
    for epoch in range(setting.rounds // EPOCH):
        trials *= fades
        wins *= fades
        while pending and pending[0][0] <= epoch:
            _, more, won = pending.popleft()
            trials += more
            wins += won
        if setting.swapped and epoch == setting.rounds // EPOCH // 2:
            truth = truth[[1, 0, *range(2, setting.arms)]]
        for known_at, drawn in _draw(setting, _table(allocation, trials, wins), epoch, generator):
            pending.append((known_at, drawn, generator.binomial(drawn, truth)))
            regret += float(drawn @ (BEST - truth))
        if (epoch + 1) * EPOCH in _checkpoints(setting):
            at.append(regret)
    return at


def _truth(setting: Setting) -> Floats:
    return np.array([BEST, *[BEST - setting.gap] * (setting.arms - 1)])


def _checkpoints(setting: Setting) -> list[int]:
    if setting.swapped:
        return [setting.rounds // 2, setting.rounds]
    return [setting.rounds // 100, setting.rounds // 10, setting.rounds]


def _table(allocation: Thompson, trials: Floats, wins: Floats) -> NDArray[np.uint8]:
    """Return the epoch's table, as the router makes it from what is known."""
    evidence = [Evidence(n, won, won, math.ceil(n)) for n, won in zip(trials.tolist(), wins.tolist(), strict=True)]
    shares = dict(enumerate(probabilities(allocation, "binary", "increase", evidence)))
    return np.frombuffer(fresh(live_counts(0.0, shares, len(shares))), np.uint8)


def _draw(
    setting: Setting, table: NDArray[np.uint8], epoch: int, generator: np.random.Generator
) -> list[tuple[int, Counts]]:
    """Return how often each arm was drawn in the epoch's rounds, and from which epoch on that is known.

    Outcomes of the last `delay % EPOCH` rounds come one update later than the others'.
    """
    drawn = table[generator.integers(BUCKETS, size=EPOCH)]
    later, late = divmod(setting.delay, EPOCH)
    parts = [(epoch + later + 1, drawn[: EPOCH - late]), (epoch + later + 2, drawn[EPOCH - late :])]
    return [(known_at, np.bincount(part, minlength=setting.arms)) for known_at, part in parts if len(part)]


def bound(setting: Setting) -> float:
    """Return by how much regret must grow with the natural logarithm of the rounds, at least."""
    p, q = BEST - setting.gap, BEST
    divergence = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return (setting.arms - 1) * setting.gap / divergence


def uniform(setting: Setting) -> float:
    """Return the expected regret of giving every arm an equal share."""
    return setting.rounds * setting.gap * (setting.arms - 1) / setting.arms


def settings(repetitions: int | None) -> list[Setting]:
    """Return the problems: no floor with every delay, and then a floor, which alone costs regret in every round."""
    many, few = repetitions or 100, repetitions or 20
    found = [
        Setting(arms, gap, rounds, times, delay)
        for arms, rounds, times in ((10, 1_000_000, many), (100, 200_000, few))
        for gap in GAPS
        for delay in DELAYS
    ]
    found += [Setting(10, gap, 1_000_000, few, floor=0.05) for gap in GAPS]
    # A floor of 0.05 for each of 100 arms is refused, since it leaves nothing to allocate.
    found += [Setting(100, gap, 200_000, few, floor=0.005) for gap in GAPS]
    found += [
        Setting(10, 0.1, 200_000, few, floor=floor, half_life=half_life, swapped=True)
        for floor in (0.0, 0.05)
        for half_life in (None, 20_000, 5_000)
    ]
    return found


def run(chosen: Sequence[Setting], processes: int, seed: int) -> list[Played]:
    """Play every setting in its repetitions, each with random numbers of its own whatever the number of processes."""
    results = []
    with (
        ProcessPoolExecutor(processes) as pool,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("playing", total=sum(each.rounds * each.repetitions for each in chosen))
        for setting, source in zip(chosen, np.random.SeedSequence(seed).spawn(len(chosen)), strict=True):
            start = time.perf_counter()
            regret = []
            for one in pool.map(play, [setting] * setting.repetitions, source.spawn(setting.repetitions)):
                regret.append(one)
                progress.advance(task, setting.rounds)
            results.append(Played(setting, _checkpoints(setting), regret, time.perf_counter() - start))
    return results


def main() -> None:
    """Play, print the tables and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, help="of every setting; 100 and 20 unless said")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("var/bench/regret.json"))
    arguments = parser.parse_args()
    results = run(settings(arguments.repetitions), arguments.processes, arguments.seed)
    write_json(arguments.json, [{**played._asdict(), "setting": played.setting._asdict()} for played in results])
    stationary = [played for played in results if not played.setting.swapped]
    _print_regret([played for played in stationary if not played.setting.floor])
    _print_floors([played for played in stationary if played.setting.floor])
    _print_swaps([played for played in results if played.setting.swapped])


def _print_regret(results: Sequence[Played]) -> None:
    columns = (
        "arms",
        "gap",
        "delay",
        "rounds",
        "regret",
        "median",
        "worst",
        "uniform is",
        "slope",
        "bound",
        "slope is",
    )
    table = _table_of("without a floor; slope: growth over the last decade, by the natural logarithm", columns)
    for played in results:
        setting, regret = played.setting, np.array(played.regret)
        slopes = (regret[:, -1] - regret[:, -2]) / math.log(10)
        table.add_row(
            *(f"{value:g}" for value in (setting.arms, setting.gap, setting.delay)),
            f"{setting.rounds:,}",
            _mean(regret[:, -1]),
            f"{np.median(regret[:, -1]):,.0f}",
            f"{regret[:, -1].max():,.0f}",
            f"{uniform(setting) / regret[:, -1].mean():.1f} x",
            _mean(slopes),
            f"{bound(setting):,.1f}",
            f"{slopes.mean() / bound(setting):.2f} x",
        )
    _CONSOLE.print(table)


def _print_floors(results: Sequence[Played]) -> None:
    columns = ("arms", "gap", "floor", "rounds", "regret", "the floor's own", "beyond it", "uniform is")
    table = _table_of("with a floor, which costs the same in every round: regret is linear in the end", columns)
    for played in results:
        setting, regret = played.setting, np.array(played.regret)[:, -1]
        own = setting.floor * setting.arms * uniform(setting)
        table.add_row(
            *(f"{value:g}" for value in (setting.arms, setting.gap, setting.floor)),
            f"{setting.rounds:,}",
            _mean(regret),
            f"{own:,.0f}",
            _mean(regret - own),
            f"{uniform(setting) / regret.mean():.1f} x",
        )
    _CONSOLE.print(table)


def _print_swaps(results: Sequence[Played]) -> None:
    columns = ("floor", "half-life", "reward before", "after", "best possible", "uniform")
    table = _table_of("best arm and another change places half-way; reward per round", columns)
    for played in results:
        setting, regret = played.setting, np.array(played.regret)
        half = setting.rounds // 2
        after = BEST - (regret[:, 1] - regret[:, 0]) / half
        table.add_row(
            f"{setting.floor:g}",
            "none" if setting.half_life is None else f"{setting.half_life:,}",
            f"{BEST - regret[:, 0].mean() / half:.4f}",
            f"{after.mean():.4f} ± {_error(after):.4f}",
            f"{BEST:.4f}",
            f"{BEST - uniform(setting) / setting.rounds:.4f}",
        )
    _CONSOLE.print(table)


def _table_of(title: str, columns: Sequence[str]) -> Table:
    return Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _mean(values: Floats) -> str:
    return f"{values.mean():,.1f} ± {_error(values):,.1f}"


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


if __name__ == "__main__":
    main()
