"""Exactness and speed of the probability that an arm is best, against brute force and against 1,000 draws.

Brute force is quadrature with 30 nodes between every two of many quantiles of all arms, with scipy's distributions. Run
it with `python -m bench.best_arm`.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import special, stats

from analysis.statistics.best_arm import best_arm_probabilities, normal_best_probabilities
from analysis.statistics.posteriors import AnyPosterior, Beta, Normal, Student, beta_posteriors
from bench.harness import write_json

ARMS = (2, 3, 5, 10, 30, 100)
DRAWS = 1_000
MILLION = 1_000_000

Floats = NDArray[np.float64]


class Measured(NamedTuple):
    """One case: its errors, and microseconds of one evaluation."""

    case: str
    arms: int
    error: float
    """The largest of all arms, against brute force."""
    sum_error: float
    """Distance of the sum from 1; nothing is normalised."""
    exact_us: float
    draws_us: float
    draws_error: float
    """The largest of all arms, of 1,000 draws."""


def cases(generator: np.random.Generator) -> dict[str, list[AnyPosterior]]:
    """Return the posteriors of every case: ordinary ones of each size, and extreme ones."""
    found: dict[str, list[AnyPosterior]] = {}
    for arms in ARMS:
        trials = generator.integers(100, 5000, arms)
        won = generator.binomial(trials, 0.1)
        found[f"beta, {arms}"] = list(beta_posteriors(trials, won))
        location, scale = generator.normal(0, 1, arms), generator.gamma(2.0, 0.5, arms)
        freedom = 2 + generator.gamma(1.0, 100.0, arms)
        found[f"student, {arms}"] = list(map(Student, location.tolist(), scale.tolist(), freedom.tolist()))
        found[f"normal, {arms}"] = list(map(Normal, location.tolist(), scale.tolist()))
    return found | {
        "0 successes of a million": [Beta(1, MILLION + 1), Beta(1, 1), Beta(2, MILLION), Beta(1, 3e5), Beta(1.5, 2e6)],
        "only successes of a million": [Beta(MILLION + 1, 1), Beta(1, 1), Beta(MILLION, 2), Beta(3e5, 1)],
        "normal, scales 1e4 apart": [Normal(0, 1e-4), Normal(0, 1), Normal(1e-4, 1e-4), Normal(-0.5, 1e-2)],
        "student, scales 1e4 apart": [Student(0, 1, 2), Student(0.1, 1e-4, 1e6), Student(0.1, 2e-4, 30)],
        "beta, scales 1e4 apart": [Beta(5e7, 5e7), Beta(5e7 + 5000, 5e7 - 5000), Beta(1, 1)],
        "one dominates 99": [Beta(900, 100), *[Beta(100, 900)] * 99],
        "100 identical": [Beta(50, 450)] * 100,
        "100 without data": [Student(0, 1, 2)] * 100,
    }


def brute_force(posteriors: Sequence[AnyPosterior]) -> Floats:
    """Return the probabilities to be the largest [K]."""
    arms = [frozen(posterior) for posterior in posteriors]
    levels = special.expit(np.linspace(-34, 34, 35))
    cuts = np.unique(np.concatenate([arm.ppf(levels) for arm in arms]))
    cuts = cuts[cuts >= max(arm.ppf(levels[0]) for arm in arms)]
    nodes, weights = np.polynomial.legendre.leggauss(30)
    half = np.diff(cuts)[:, np.newaxis] / 2
    best = np.zeros(len(arms))
    # In pieces, since a hundred arms have thousands of quantiles.
    for piece in range(0, len(half), 200):
        width = half[piece : piece + 200]
        x = (cuts[piece : piece + len(width), np.newaxis] + width + width * nodes).reshape(-1)
        below = np.array([arm.cdf(x) for arm in arms])
        for number, arm in enumerate(arms):
            others = np.delete(below, number, axis=0).prod(axis=0)
            best[number] += float(arm.pdf(x) * others @ (width * weights).reshape(-1))
    return best


def draw(posteriors: Sequence[AnyPosterior], generator: np.random.Generator) -> Floats:
    """Return how often each arm was the best of 1,000 draws [K]."""
    columns = np.array(posteriors).T
    if isinstance(posteriors[0], Beta):
        drawn = generator.beta(columns[0], columns[1], (DRAWS, len(posteriors)))
    elif isinstance(posteriors[0], Student):
        drawn = columns[0] + columns[1] * generator.standard_t(columns[2], (DRAWS, len(posteriors)))
    else:
        drawn = generator.normal(columns[0], columns[1], (DRAWS, len(posteriors)))
    return np.bincount(drawn.argmax(axis=1), minlength=len(posteriors)) / DRAWS


def measure(name: str, posteriors: Sequence[AnyPosterior], generator: np.random.Generator, repeats: int) -> Measured:
    """Evaluate one case in all three ways."""
    expected, found = brute_force(posteriors), best_arm_probabilities(posteriors)
    return Measured(
        case=name,
        arms=len(posteriors),
        error=float(np.abs(found - expected).max()),
        sum_error=abs(math.fsum(found) - 1),
        exact_us=_microseconds(_exactly(posteriors), repeats),
        draws_us=_microseconds(lambda: draw(posteriors, generator), repeats),
        draws_error=float(np.abs(draw(posteriors, generator) - expected).max()),
    )


def _exactly(posteriors: Sequence[AnyPosterior]) -> Callable[[], Floats]:
    if isinstance(posteriors[0], Normal):
        means, sds = np.array(posteriors).T
        return lambda: normal_best_probabilities(means, sds)
    return lambda: best_arm_probabilities(posteriors)


def frozen(posterior: AnyPosterior) -> Any:
    """Return scipy's distribution of the posterior."""
    if isinstance(posterior, Beta):
        return stats.beta(*posterior)
    if isinstance(posterior, Student):
        return stats.t(posterior.freedom, posterior.location, posterior.scale)
    return stats.norm(*posterior)


def _microseconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median of single runs, after one to warm up."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken)) * 1e6


def main() -> None:
    """Measure, print the table and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("var/bench/best_arm.json"))
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    plan = list(cases(generator).items())
    console = Console(stderr=True)
    measured = [
        measure(name, posteriors, generator, arguments.repeats)
        for name, posteriors in track(plan, description="measuring", console=console)
    ]
    write_json(arguments.json, [each._asdict() for each in measured])
    columns = ("case", "arms", "error", "|sum - 1|", "µs", "µs of draws", "draws take", "error of draws")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for each in measured:
        table.add_row(
            each.case,
            str(each.arms),
            f"{each.error:.1e}",
            f"{each.sum_error:.1e}",
            f"{each.exact_us:,.0f}",
            f"{each.draws_us:,.0f}",
            f"{each.draws_us / each.exact_us:.1f} x",
            f"{each.draws_error:.1e}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
