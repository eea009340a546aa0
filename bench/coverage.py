"""How often do intervals hold that are read at every look? Beside them, the t-test that is read as often.

Every setting is played many times in two worlds. In one the arms are equal, and an interval of the difference that
excludes 0 at any look is an error of the first kind. In the other they differ, and an interval covers if it holds the
truth at every look. Intervals come from the sums per period that an analysis reads.

- sequence: scores, all decisions alike (STATISTICS: AIPW asymptotic), with the variance of all of an arm's values;
- plain: the same without that, as published, to see what it is good for;
- overlap: scores weighted by what the shares allow, where shares change;
- betting: without asymptotics, for outcomes between 0 and 1;
- t-test: Welch's interval and the arms' means, read at every look.

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

from analysis.statistics.adaptive import Scores, increments, linearised, overlap_weights, scores
from analysis.statistics.betting import Pair, arm_draws, contrast_draws, covers, sequence
from analysis.statistics.cells import Cells
from analysis.statistics.effects import contrast, lift, mean
from analysis.statistics.sequences import Interval
from bench.harness import write_json
from bench.worlds import Log, Setting, draw_values, play, settings

ALPHA = 0.05
POWER = 0.8
LEAST_COVERAGE = 0.94
CHUNK = 100
"""Runs that are played together."""
_FEW = 5
"""Runs of a chunk in which the ends of the betting sequence are searched for."""
_GRID = 500

_CONSOLE = Console(width=150)
_QUANTILE = float(special.ndtri(1 - ALPHA / 2))

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Read(NamedTuple):
    """What a method says of one world at every look: whether intervals hold the truth [runs, looks]."""

    difference: Bools
    nothing: Bools
    """Whether the interval of the difference holds 0."""
    arms: list[Bools]
    lift: Bools | None
    width: Floats
    """Of the last interval of the difference [runs]."""


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


def read(method: str, setting: Setting, log: Log, truth: Sequence[float]) -> Read:
    """Read a world at every look by a method."""
    last = len(truth) - 1
    difference = truth[last] - truth[0]
    match method:
        case "betting":
            pair = _contrast_pair(log, last)
            few = sequence(_contrast_pair(log.first(_FEW), last), setting.decisions, grid=_GRID)
            return Read(
                covers(pair, difference, setting.decisions),
                covers(pair, 0.0, setting.decisions),
                [covers(_arm_pair(log, arm), value, setting.decisions) for arm, value in enumerate(truth)],
                None,
                few.high[:, -1] - few.low[:, -1],
            )
        case "t-test":
            interval, arms = t_intervals(log, last)
            holds = [_holds(each, value) for each, value in zip(arms, truth, strict=True)]
            return _read(interval, difference, holds, None)
        case _:
            return _read_scores(method, setting, log, truth)


def _read_scores(method: str, setting: Setting, log: Log, truth: Sequence[float]) -> Read:
    last, planned = len(truth) - 1, setting.decisions
    weights = overlap_weights(log.propensities, last, 0) if method == "overlap" else None
    found = scores_of(log, weights, plain=method == "plain")
    arms = []
    for arm, value in enumerate(truth):
        own = scores_of(log, log.propensities[..., arm]) if method == "overlap" else found
        arms.append(_holds(mean(own, arm, planned).interval, value))
    ratio = _holds(lift(found, last, 0, planned).interval, truth[last] / truth[0] - 1)
    return _read(contrast(found, last, 0, planned).interval, truth[last] - truth[0], arms, ratio)


def _read(interval: Interval, difference: float, arms: list[Bools], ratio: Bools | None) -> Read:
    width = interval.high[:, -1] - interval.low[:, -1]
    return Read(_holds(interval, difference), _holds(interval, 0.0), arms, ratio, width)


def _holds(interval: Interval, truth: float) -> Bools:
    # An interval that does not exist yet excludes nothing.
    return ~((interval.low > truth) | (interval.high < truth))


def scores_of(log: Log, weights: Floats | None = None, *, plain: bool = False) -> Scores:
    """Return the scores of all runs: linearised for a ratio, with clusters where units return."""
    if log.units is None:
        found = scores(log.cells, weights=weights)
        if plain:
            found = found._replace(products=np.cumsum(increments(log.cells)[1], axis=-3))
    else:
        found = _together([_run_scores(log, run, weights) for run in range(len(log.units))])
    return linearised(found) if found.values == 2 else found


def _run_scores(log: Log, run: int, weights: Floats | None) -> Scores:
    cells = Cells(*(each[run] for each in log.cells))
    return scores(cells, log.visits(run), None if weights is None else weights[run])


def _together(runs: Sequence[Scores]) -> Scores:
    return Scores(
        totals=np.stack([each.totals for each in runs]),
        products=np.stack([each.products for each in runs]),
        scale=np.stack([each.scale for each in runs]),
        pilot=np.stack([each.pilot for each in runs]),
        started=np.stack([each.started for each in runs]),
        arms=runs[0].arms,
        values=runs[0].values,
    )


def t_intervals(log: Log, treatment: int) -> tuple[Interval, list[Interval]]:
    """Return intervals of the difference to the first arm and of each mean, from the sums up to each look.

    Of hundreds of values, so with the normal quantile; of a ratio by the delta method.
    """
    n, total, product = (np.cumsum(each, axis=1) for each in (log.counts, log.totals, log.products))
    with np.errstate(invalid="ignore", divide="ignore"):
        if total.shape[-1] == 1:
            value = total[..., 0] / n
            deviations = product[..., 0, 0] - n * value**2
        else:
            value = total[..., 0] / total[..., 1]
            deviations = product[..., 0, 0] - 2 * value * product[..., 0, 1] + value**2 * product[..., 1, 1]
            deviations /= (total[..., 1] / n) ** 2
        variance = deviations / (n - 1) / n
    variance = np.where(variance > 0, variance, np.inf)
    arms = [_t_interval(value[..., arm], variance[..., arm]) for arm in range(n.shape[-1])]
    both = variance[..., treatment] + variance[..., 0]
    return _t_interval(value[..., treatment] - value[..., 0], both), arms


def _t_interval(value: Floats, variance: Floats) -> Interval:
    margin = _QUANTILE * np.sqrt(variance)
    return Interval(value - margin, value + margin)


def _contrast_pair(log: Log, treatment: int) -> Pair:
    return contrast_draws(log.propensities, log.counts, log.totals[..., 0], treatment, 0)


def _arm_pair(log: Log, arm: int) -> Pair:
    return arm_draws(log.propensities, log.counts, log.totals[..., 0], arm)


def methods(setting: Setting) -> Iterator[str]:
    """Yield the methods that apply."""
    yield "sequence"
    if setting.floor is not None:
        yield "plain"
    if setting.moves:
        yield "overlap"
    if setting.bounded:
        yield "betting"
    yield "t-test"


def fixed_error(setting: Setting, log: Log) -> float:
    """Return the standard error of the difference at the end of a fixed-horizon test with equal shares."""
    last, size = len(setting.different) - 1, setting.decisions
    if setting.returning:
        # What units have in common is in the products of their sums.
        found = scores_of(log)
        form = np.zeros(found.totals.shape[-1])
        form[[1, 1 + last]] = -1.0, 1.0
        variance = form @ found.products[:, -1].mean(axis=0) @ form
        return float(np.sqrt(variance) / size)
    generator = np.random.default_rng(7)
    variance = 0.0
    for parameter in (setting.different[0], setting.different[last]):
        y = draw_values(setting.outcome, np.full(400_000, parameter), generator)
        linear = y[:, 0] if y.shape[1] == 1 else (y[:, 0] - parameter * y[:, 1]) / y[:, 1].mean()
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
    reward = float((log.totals[..., 0].sum(axis=(1, 2)) / log.counts.sum(axis=(1, 2))).mean())
    figures = {}
    for method in methods(setting):
        quiet = read(method, setting, null, setting.equal).nothing
        seen = read(method, setting, log, setting.different)
        at = (1 + np.argmax(~seen.nothing, axis=1)) * setting.batch
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
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("var/bench/coverage.json"))
    arguments = parser.parse_args()
    chosen = [each for each in settings() if arguments.only in f"{each.name} {each.outcome}"]
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
