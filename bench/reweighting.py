"""Units that change their arm at reweightings, against the theoretical minimum; frequencies against the tables.

Run it with `python -m bench.reweighting`.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import chi2, kstest

from analysis.statistics.buckets import quantise
from bench.harness import write_json
from router.assignment.epochs import fresh, reweight, with_holdout
from router.assignment.hashing import BUCKETS
from router.assignment.vectorised import buckets

ARMS = 10
_LARGEST_HOLDOUT = 0.3
_STRIDES = (0.01, 0.1, 0.5, 1.0)
"""How far a reweighting goes from the old shares to random new ones."""

Weights = npt.NDArray[np.float64]
Buckets = npt.NDArray[np.uint32]

_EVERY_BUCKET = np.arange(BUCKETS, dtype=np.uint32)


class Step(NamedTuple):
    """One reweighting; shares of the units, but for the p-values."""

    minimum: float
    """The total-variation distance between the two tables, which no assignment can undercut."""
    moved_buckets: float
    """Buckets that changed their arm."""
    moved: float
    """Units that changed their arm; units fall into buckets at random, so this varies around the minimum."""
    laid_out: float
    """Units that would have, were the arms laid out anew in order of their number."""
    reseeded: float
    """Units that would have, were they hashed with a new seed."""
    p_value: float
    """Of the frequencies of the same units, hashed for this table alone, so that the p-values are independent."""
    p_value_within: float
    """Of the frequencies in the experiment that was reweighted all along."""


def run(units: Sequence[str], reweightings: int, seed: int) -> list[Step]:
    """Reweight an experiment of up to ten arms and a holdout again and again."""
    rng = np.random.default_rng(seed)
    shares = _random_shares(rng)
    table = fresh(with_holdout(quantise(shares.tolist())))
    here = buckets("reweighting", units)
    steps = []
    for number in track(range(reweightings), description="reweighting", console=Console(stderr=True)):
        stride = rng.choice(_STRIDES)
        following = (1 - stride) * shares + stride * _random_shares(rng)
        counts = with_holdout(quantise(following.tolist()))
        reweighted = reweight(table, counts)
        elsewhere = buckets(f"reweighting-{number}", units)
        steps.append(
            Step(
                minimum=_total_variation(table, reweighted),
                moved_buckets=_moved(table, reweighted, _EVERY_BUCKET, _EVERY_BUCKET),
                moved=_moved(table, reweighted, here, here),
                laid_out=_moved(fresh(with_holdout(quantise(shares.tolist()))), fresh(counts), here, here),
                reseeded=_moved(table, reweighted, here, elsewhere),
                p_value=_p_value(reweighted, elsewhere),
                p_value_within=_p_value(reweighted, here),
            )
        )
        shares, table = following, reweighted
    return steps


def uniformity(steps: Sequence[Step]) -> float:
    """Return the p-value of the Kolmogorov-Smirnov test that the independent p-values are uniform."""
    return float(kstest([step.p_value for step in steps], "uniform").pvalue)


def worst_deviation(steps: Sequence[Step], units: int) -> float:
    """Return how far the units' churn is from the minimum at most, in standard deviations of a binomial share."""
    variances = [step.minimum * (1 - step.minimum) / units for step in steps]
    return float(max(abs(step.moved - step.minimum) / v**0.5 for step, v in zip(steps, variances, strict=True)))


def _random_shares(rng: np.random.Generator) -> Weights:
    """Return the shares of two to ten arms, the others' being 0, and of the holdout."""
    weights = np.zeros(ARMS)
    present = rng.choice(ARMS, rng.integers(2, ARMS + 1), replace=False)
    weights[present] = rng.dirichlet(np.ones(len(present)))
    holdout = rng.uniform(0, _LARGEST_HOLDOUT)
    return np.append((1 - holdout) * weights, holdout)


def _total_variation(before: bytes, after: bytes) -> float:
    counts = (np.bincount(np.frombuffer(table, np.uint8), minlength=256) for table in (before, after))
    return float(np.abs(np.subtract(*counts)).sum() / 2 / BUCKETS)


def _moved(before: bytes, after: bytes, here: Buckets, there: Buckets) -> float:
    old, new = np.frombuffer(before, np.uint8), np.frombuffer(after, np.uint8)
    return float((old[here] != new[there]).mean())


def _p_value(table: bytes, drawn: Buckets) -> float:
    """Return the p-value of the chi-square test of the units' arms against the table."""
    arms = np.frombuffer(table, np.uint8)
    expected = np.bincount(arms, minlength=256) / BUCKETS * len(drawn)
    observed = np.bincount(arms[drawn], minlength=256)
    there = expected > 0
    statistic = ((observed[there] - expected[there]) ** 2 / expected[there]).sum()
    return float(chi2.sf(statistic, there.sum() - 1))


def main() -> None:
    """Measure, print the tables and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--reweightings", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("var/bench/reweighting.json"))
    arguments = parser.parse_args()
    units = [f"user-{number}" for number in range(arguments.units)]
    start = time.perf_counter()
    buckets("warm", units)
    seconds = time.perf_counter() - start
    steps = run(units, arguments.reweightings, arguments.seed)
    _print(steps, len(units), seconds)
    write_json(arguments.json, {"units": len(units), "steps": steps, "hashing_seconds": seconds})


def _print(steps: Sequence[Step], units: int, seconds: float) -> None:
    console = Console()
    churn = Table("units that change their arm", "per reweighting", "ratio", "worst ratio", box=box.SIMPLE_HEAD)
    minimum = sum(step.minimum for step in steps)
    methods = {
        "theoretical minimum": [step.minimum for step in steps],
        "turnout, buckets": [step.moved_buckets for step in steps],
        "turnout, units": [step.moved for step in steps],
        "arms laid out anew": [step.laid_out for step in steps],
        "new seed": [step.reseeded for step in steps],
    }
    for name, moved in methods.items():
        worst = max(share / step.minimum for share, step in zip(moved, steps, strict=True))
        churn.add_row(name, f"{sum(moved) / len(steps):.2%}", f"{sum(moved) / minimum:.4f}", f"{worst:.4f}")
    console.print(churn)
    low, within = min(step.p_value for step in steps), min(step.p_value_within for step in steps)
    console.print(f"{units:,} units, {len(steps)} reweightings of up to {ARMS} arms and a holdout")
    console.print(f"churn differs from the minimum by at most {worst_deviation(steps, units):.1f} standard deviations")
    console.print(f"frequencies against tables, chi-square: smallest p {low:.3f} of {len(steps)}")
    console.print(f"  which are uniform, as they must be: Kolmogorov-Smirnov p {uniformity(steps):.3f}")
    console.print(f"  in the experiment itself, whose tables share one hash: smallest p {within:.3f}")
    console.print(f"hashing {units:,} units takes {seconds:.2f} s")


if __name__ == "__main__":
    main()
