"""How often do intervals hold that are read at every look? Beside them, the t-test that is read as often.

Every setting is played many times in two worlds. In one the arms are equal, and an interval of the difference that
excludes 0 at any look is an error of the first kind. In the other they differ, and an interval covers if it holds the
truth at every look. Looks are those of a report (`bench.readings`).

- sequence: scores, all decisions alike (STATISTICS: AIPW asymptotic), with the variance of all of an arm's values;
- plain: the same without that, as published, to see what it is good for;
- overlap: scores weighted by what the shares allow, where shares change;
- betting: without asymptotics, for outcomes between 0 and 1;
- t-test: Welch's interval and the arms' means, read at every look from 30 decisions of each arm on.

Run it with `python -m bench.coverage`.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import special

from bench.harness import write_json
from bench.readings import ALPHA, look_at, methods, read, scores_of
from bench.worlds import Log, Setting, draw_values, play, settings

POWER = 0.8
LEAST_COVERAGE = 0.94
CHUNK = 100
"""Runs that are played together."""

_CONSOLE = Console(width=150)
_QUANTILE = float(special.ndtri(1 - ALPHA / 2))

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Figures(NamedTuple):
    """One method in one setting."""

    false_alarm: Bools
    """[runs]."""
    difference: Bools
    """[runs]."""
    arms: Bools
    """[arms, runs]."""
    lift: Bools | None
    """[runs]."""
    width: Floats
    """As a multiple of the fixed-horizon test's with equal shares [some of the runs]."""
    decided: Floats
    """Decisions until 0 is excluded, as a multiple of what that test needs; infinite if never [runs]."""
    reward: float


def fixed_error(setting: Setting, log: Log) -> float:
    """Return the standard error of the difference at the end of a fixed-horizon test with equal shares."""
    last, size = len(setting.different) - 1, setting.decisions
    if setting.returning:
        # What units have in common is in the products of their sums.
        found = scores_of(log, log.cells)
        form = np.zeros(found.totals.shape[-1])
        form[[1, 1 + last]] = -1.0, 1.0
        variance = form @ found.products[:, -1].mean(axis=0) @ form
        return float(np.sqrt(variance) / size)
    generator = np.random.default_rng(7)
    variance = 0.0
    for parameter in (setting.different[0], setting.different[last]):
        y = draw_values(setting.outcome, np.full(400_000, parameter), generator)
        linear = (y[:, 0] - parameter * y[:, 1]) / y[:, 1].mean()
        variance += float(linear.var())
    return math.sqrt(len(setting.different) * variance / size)


def run_chunk(setting: Setting, runs: int, seed: np.random.SeedSequence) -> dict[str, Figures]:
    """Play both worlds and read them by every method."""
    generator = np.random.default_rng(seed)
    null = play(setting, setting.equal, runs, generator)
    log = play(setting, setting.different, runs, generator)
    error = fixed_error(setting, log)
    difference = setting.different[-1] - setting.different[0]
    needed = (_QUANTILE + float(special.ndtri(POWER))) ** 2 * error**2 * setting.decisions / difference**2
    reward = float(log.values[..., 0].mean())
    figures = {}
    of_null, of_log = look_at(null), look_at(log)
    for method in methods(setting):
        quiet = read(method, null, of_null, setting.equal).nothing
        seen = read(method, log, of_log, setting.different)
        at = seen.decisions[np.argmax(~seen.nothing, axis=1)]
        figures[method] = Figures(
            false_alarm=~_always(quiet),
            difference=_always(seen.difference),
            arms=np.stack([_always(each) for each in seen.arms]),
            lift=None if seen.lift is None else _always(seen.lift),
            width=seen.width / (2 * _QUANTILE * error),
            decided=np.where(_always(seen.nothing), np.inf, at / needed),
            reward=reward,
        )
    return figures


def _always(holds: Bools) -> Bools:
    return np.asarray(holds.all(axis=1))


class Row(NamedTuple):
    """One method in one setting: shares of runs, and medians."""

    setting: str
    outcome: str
    method: str
    runs: int
    type_one: float
    difference: float
    arms: list[float]
    lift: float | None
    width: float
    decided: float
    time: float
    """Median time to decision, runs without one counting as infinite."""
    reward: float

    @property
    def error(self) -> float:
        """Monte Carlo error of a coverage of 0.94, at its standard deviation."""
        return math.sqrt(LEAST_COVERAGE * (1 - LEAST_COVERAGE) / self.runs)

    @property
    def least(self) -> float:
        """The lowest coverage that the method has here."""
        known = [1 - self.type_one, self.difference, *self.arms, *([] if self.lift is None else [self.lift])]
        return min(known)

    @property
    def is_defect(self) -> bool:
        """Whether intervals that are offered for this cover less than 94 % minus twice the Monte Carlo error."""
        return self.method not in {"plain", "t-test"} and self.least < LEAST_COVERAGE - 2 * self.error


def summarise(setting: Setting, chunks: Sequence[dict[str, Figures]]) -> Iterator[Row]:
    """Yield a row per method."""
    for method in methods(setting):
        parts = [chunk[method] for chunk in chunks]
        decided = np.concatenate([part.decided for part in parts])
        lifts = [part.lift for part in parts if part.lift is not None]
        yield Row(
            setting.name,
            setting.outcome,
            method,
            runs=len(decided),
            type_one=float(np.mean([part.false_alarm for part in parts])),
            difference=float(np.mean([part.difference for part in parts])),
            arms=np.mean([part.arms for part in parts], axis=(0, 2)).tolist(),
            lift=float(np.mean(lifts)) if lifts else None,
            width=float(np.median(np.concatenate([part.width for part in parts]))),
            decided=float(np.isfinite(decided).mean()),
            time=float(np.median(decided)),
            reward=float(np.mean([part.reward for part in parts])),
        )


def run(chosen: Sequence[Setting], runs: int, processes: int, seed: int) -> list[Row]:
    """Play every setting; random numbers do not depend on the number of processes."""
    chunks: list[list[dict[str, Figures] | None]] = [[None] * math.ceil(runs / CHUNK) for _ in chosen]
    with ProcessPoolExecutor(processes) as pool, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("playing", total=sum(map(len, chunks)))
        waiting = {
            pool.submit(run_chunk, setting, CHUNK, source): (number, part)
            for number, (setting, parent) in enumerate(
                zip(chosen, np.random.SeedSequence(seed).spawn(len(chosen)), strict=True)
            )
            for part, source in enumerate(parent.spawn(len(chunks[number])))
        }
        for done in as_completed(waiting):
            number, part = waiting[done]
            chunks[number][part] = done.result()
            progress.advance(task)
    return [
        row
        for setting, parts in zip(chosen, chunks, strict=True)
        for row in summarise(setting, [part for part in parts if part is not None])
    ]


def main() -> int:
    """Play, print the table and keep the figures; 1 if an interval covers too little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000, help=f"of every setting, a multiple of {CHUNK}")
    parser.add_argument("--only", default="", help="settings whose name or outcome contains this")
    parser.add_argument("--by-epoch", action="store_true", help="read after every epoch, as bandits are updated")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("var/bench/coverage.json"))
    arguments = parser.parse_args()
    every = [each._replace(by_epoch=arguments.by_epoch) for each in settings()]
    chosen = [each for each in every if arguments.only in f"{each.name} {each.outcome}"]
    start = time.perf_counter()
    rows = run(chosen, arguments.runs, arguments.processes, arguments.seed)
    write_json(arguments.json, [row._asdict() for row in rows])
    _print(rows)
    defects = [row for row in rows if row.is_defect]
    _CONSOLE.print(
        f"{rows[0].runs:,} runs of {len(chosen)} settings in {time.perf_counter() - start:,.0f} s; Monte Carlo error "
        f"{100 * rows[0].error:.1f} points; {len(defects)} methods cover less than 94 % minus twice that"
    )
    return 1 if defects else 0


def _print(rows: Sequence[Row]) -> None:
    table = Table(
        *("setting", "outcome", "method", "type I", "difference", "lift", "arms", "width", "decided", "time", "reward"),
        title="percent of runs, over all looks; width and median time to decision as multiples of the fixed horizon's",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for row in rows:
        first = row.method == "sequence"
        table.add_row(
            row.setting if first else "",
            row.outcome if first else "",
            f"{row.method} !" if row.is_defect else row.method,
            _percent(row.type_one),
            _percent(row.difference),
            "" if row.lift is None else _percent(row.lift),
            " ".join(map(_percent, row.arms)),
            f"{row.width:.2f} x",
            _percent(row.decided),
            "never" if math.isinf(row.time) else f"{row.time:.2f} x",
            f"{row.reward:.4f}" if first else "",
        )
    _CONSOLE.print(table)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    sys.exit(main())
