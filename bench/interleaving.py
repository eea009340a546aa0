"""Impressions until the better ranker is found: each way to interleave against an A/B test on clicks, same queries.

Run it with `python -m bench.interleaving`.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import norm

from analysis.statistics.interleaving import preferences
from bench.harness import write_json
from router.interleaving import optimised
from router.interleaving.coins import Coins
from router.interleaving.credit import slot_credits
from router.interleaving.draw import Method, interleave

METHODS: tuple[Method, ...] = ("team_draft", "probabilistic", "optimised")
LENGTH = 10
CANDIDATES = 50
CONFIDENCE, POWER = 0.95, 0.8
_GROUPS = 50
_EXPERIMENTS = 1000
_GRADES = (0.52, 0.32, 0.13, 0.02, 0.01)
"""Shares of candidates by relevance from 0 to 4: most of what is found for a query is irrelevant."""

NOISES = MappingProxyType({"a little worse": 0.5, "worse": 1.0})
"""What the worse ranker adds to each relevance, normal with this standard deviation; the ideal one adds nothing."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int_]
Booleans = NDArray[np.bool_]


class Clicker(NamedTuple):
    """A user who reads from the top: the probabilities to click, and to stop after a click, by relevance."""

    click: tuple[float, ...]
    stop: tuple[float, ...]


CLICKERS = MappingProxyType(
    {
        "perfect": Clicker((0.0, 0.2, 0.4, 0.8, 1.0), (0.0, 0.0, 0.0, 0.0, 0.0)),
        "navigational": Clicker((0.05, 0.3, 0.5, 0.7, 0.95), (0.2, 0.3, 0.5, 0.7, 0.9)),
        "informational": Clicker((0.4, 0.6, 0.7, 0.8, 0.9), (0.1, 0.2, 0.3, 0.4, 0.5)),
    }
)
"""The click models with which Schuth et al. (2014) compare methods."""


def _clicks(clicks: Booleans) -> Floats:
    return np.asarray(clicks.sum(axis=1), dtype=np.float64)


def _any_click(clicks: Booleans) -> Floats:
    return np.asarray(clicks.any(axis=1), dtype=np.float64)


def _first_click(clicks: Booleans) -> Floats:
    return np.where(clicks.any(axis=1), 1.0 / (1.0 + clicks.argmax(axis=1)), 0.0)


AB_METRICS: Mapping[str, Callable[[Booleans], Floats]] = MappingProxyType(
    {"clicks per list": _clicks, "lists with a click": _any_click, "1 / rank of first click": _first_click}
)


class Shown(NamedTuple):
    """Lists that were shown, one per impression: relevance [impressions, slots], credit [impressions, slots, 2]."""

    relevance: Integers
    gains: Floats


class Found(NamedTuple):
    """Impressions that one way of comparing needs, and how good that figure is."""

    needed: float
    power: float
    """The share of simulated experiments of that many impressions that found it; nan if more than were simulated."""
    ratio: float
    """How many impressions the best A/B test needs for each of these."""
    error: float
    """The ratio's Monte Carlo error (jackknife over groups of queries, with all their impressions)."""


class Queries(NamedTuple):
    """Relevance of each query's candidates [queries, candidates], and both rankers' rankings of them."""

    relevance: Integers
    ideal: Integers
    worse: Integers


def make_queries(count: int, noise: float, seed: int) -> Queries:
    """Return queries whose candidates the ideal ranker sorts by relevance, the worse one by relevance and noise."""
    generator = np.random.default_rng(seed)
    relevance = generator.choice(len(_GRADES), size=(count, CANDIDATES), p=_GRADES)
    ties = generator.uniform(0, 1e-6, relevance.shape)
    noisy = relevance + noise * generator.standard_normal(relevance.shape)
    return Queries(relevance, np.argsort(-(relevance + ties), axis=1), np.argsort(-noisy, axis=1))


def interleaved(method: Method, queries: Queries, asked: Integers) -> Shown:
    """Return the lists of the queries asked, as the router would draw them for as many users."""
    items = np.empty((len(asked), LENGTH), dtype=np.int_)
    gains = np.empty((len(asked), LENGTH, 2))
    pairs = [(queries.ideal[query].tolist(), queries.worse[query].tolist()) for query in range(len(queries.ideal))]
    for user, query in enumerate(track(asked.tolist(), description=method, console=Console(stderr=True))):
        slots = interleave(method, pairs[query], LENGTH, Coins("bench", f"user-{user}"))
        items[user] = [slot.item for slot in slots]
        gains[user] = slot_credits(method, pairs[query], slots)
    return Shown(np.take_along_axis(queries.relevance[asked], items, axis=1), gains)


def clicks_on(relevance: Integers, clicker: Clicker, chance: Floats) -> Booleans:
    """Return which slots are clicked [impressions, slots]; `chance` is uniform [2, impressions, slots]."""
    reading = np.ones(len(relevance), dtype=np.bool_)
    clicked = np.zeros(relevance.shape, dtype=np.bool_)
    for slot in range(relevance.shape[1]):
        grade = relevance[:, slot]
        clicked[:, slot] = reading & (chance[0, :, slot] < np.take(clicker.click, grade))
        reading &= ~(clicked[:, slot] & (chance[1, :, slot] < np.take(clicker.stop, grade)))
    return clicked


def needed(mean: Floats, variance: Floats) -> Floats:
    """Return how many values of that mean and variance tell, two-sided, that the mean is above 0; if it is."""
    quantiles = norm.ppf((1 + CONFIDENCE) / 2) + norm.ppf(POWER)
    right = mean > 0
    return np.where(right, quantiles**2 * variance / np.where(right, mean, 1.0) ** 2, np.inf)


def impressions_needed(values: Floats, kept: Booleans) -> Floats:
    """Return the impressions needed by an estimate from these values [impressions], for each group left out [groups].

    Values of an A/B test are [impressions, 2], what the impression would bring in either arm; half of them see each.
    """
    mean, variance = _moments(values, kept)
    if values.ndim == 1:
        return needed(mean, variance)
    return needed(mean[:, 0] - mean[:, 1], 2 * variance.sum(axis=1))


def _moments(values: Floats, kept: Booleans) -> tuple[Floats, Floats]:
    counts = kept.sum(axis=1, dtype=np.float64)
    shape = (-1, *(1,) * (values.ndim - 1))
    weights = kept.astype(np.float64)
    mean = (weights @ values) / counts.reshape(shape)
    return mean, (weights @ values**2) / counts.reshape(shape) - mean**2


def power_at(values: Floats, size: int, seed: int) -> float:
    """Return the share of experiments with that many impressions whose interval is on the better ranker's side."""
    generator = np.random.default_rng(seed)
    quantile = norm.ppf((1 + CONFIDENCE) / 2)
    found = 0
    for _ in range(_EXPERIMENTS):
        if values.ndim == 1:
            sample = values[generator.integers(len(values), size=size)]
            mean, error = sample.mean(), sample.std(ddof=1) / size**0.5
        else:
            arms = [values[generator.integers(len(values), size=size // 2), arm] for arm in range(2)]
            mean = arms[0].mean() - arms[1].mean()
            error = float(np.sqrt(sum(arm.var(ddof=1) / arm.size for arm in arms)))
        found += mean > quantile * error
    return found / _EXPERIMENTS


def compare_methods(
    shown: Mapping[Method, Shown], arms: Sequence[Integers], asked: Integers, clicker: Clicker, seed: int
) -> dict[str, Found]:
    """Return what each method and each A/B metric needs for the queries asked; the ideal ranker is the first arm."""
    impressions = len(arms[0])
    chance = np.random.default_rng(seed).random((2, impressions, LENGTH))
    by_arm = [clicks_on(relevance, clicker, chance) for relevance in arms]
    values = {name: np.stack([metric(clicks) for clicks in by_arm], axis=1) for name, metric in AB_METRICS.items()}
    for method, lists in shown.items():
        impression, slot = np.nonzero(clicks_on(lists.relevance, clicker, chance))
        values[method] = preferences(method, impression, lists.gains[impression, slot], impressions)
    kept = np.vstack([np.ones(impressions, dtype=np.bool_), asked % _GROUPS != np.arange(_GROUPS)[:, np.newaxis]])
    counts = {name: impressions_needed(each, kept) for name, each in values.items()}
    best = min((counts[name] for name in AB_METRICS), key=lambda count: float(count[0]))
    return {name: _found(count, best, values[name], seed) for name, count in counts.items()}


def _found(count: Floats, best: Floats, values: Floats, seed: int) -> Found:
    ratios = best / count
    left_out = ratios[1:]
    error = ((len(left_out) - 1) * left_out.var()) ** 0.5
    power = power_at(values, int(np.ceil(count[0])), seed) if count[0] <= len(values) else np.nan
    return Found(float(count[0]), power, float(ratios[0]), float(error))


class Cost(NamedTuple):
    """Processor time of one list of ten out of fifty candidates, in microseconds."""

    median: float
    p99: float


def costs(seed: int, lists: int = 1000) -> dict[str, Cost]:
    """Return what each method costs; the optimised one for new pairs of rankings, and for such as it remembers."""
    queries = make_queries(lists, NOISES["a little worse"], seed)
    optimised.warm()
    turns: dict[str, Method] = {method: method for method in METHODS}
    found = {name: _cost(method, queries) for name, method in turns.items() if name != "optimised"}
    found["optimised, new rankings"] = _cost("optimised", queries)
    found["optimised, seen before"] = _cost("optimised", queries)
    return found


def _cost(method: Method, queries: Queries) -> Cost:
    seconds = []
    for number, rankings in enumerate(zip(queries.ideal.tolist(), queries.worse.tolist(), strict=True)):
        start = time.process_time_ns()
        interleave(method, rankings, LENGTH, Coins("cost", str(number)))
        seconds.append((time.process_time_ns() - start) / 1000)
    return Cost(*np.percentile(seconds, [50, 99]).tolist())


def ndcg(queries: Queries, rankings: Integers) -> float:
    """Return the mean discounted cumulative gain of the first ten, as a share of the ideal ranker's."""
    discount = 1 / np.log2(np.arange(2, LENGTH + 2))

    def gain(order: Integers) -> Floats:
        shown = np.take_along_axis(queries.relevance, order[:, :LENGTH], axis=1)
        total: Floats = (2.0**shown - 1) @ discount
        return total

    return float((gain(rankings) / np.maximum(gain(queries.ideal), 1e-9)).mean())


def main() -> None:
    """Measure, print the tables and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("var/bench/interleaving.json"))
    arguments = parser.parse_args()
    asked = np.random.default_rng(arguments.seed).integers(arguments.queries, size=arguments.impressions)
    results: dict[str, dict[str, dict[str, Found]]] = {}
    for name, noise in NOISES.items():
        queries = make_queries(arguments.queries, noise, arguments.seed)
        shown = {method: interleaved(method, queries, asked) for method in METHODS}
        arms = [
            np.take_along_axis(queries.relevance, order[:, :LENGTH], axis=1)[asked]
            for order in (queries.ideal, queries.worse)
        ]
        results[f"{name} (NDCG@10 {ndcg(queries, queries.worse):.2f})"] = {
            clicker: compare_methods(shown, arms, asked, model, arguments.seed) for clicker, model in CLICKERS.items()
        }
    spent = costs(arguments.seed)
    _print(results, spent, arguments.impressions)
    write_json(arguments.json, {"impressions": arguments.impressions, "found": results, "microseconds": spent})


def _print(
    results: Mapping[str, Mapping[str, Mapping[str, Found]]], spent: Mapping[str, Cost], impressions: int
) -> None:
    console = Console()
    for ranker, by_clicker in results.items():
        table = Table("clicker", "compared by", "impressions", "power", "ratio", title=ranker, box=box.SIMPLE_HEAD)
        for clicker, found in by_clicker.items():
            for name, each in found.items():
                compared = f"A/B, {name}" if name in AB_METRICS else name
                table.add_row(clicker, compared, *_cells(each))
            table.add_section()
        console.print(table)
    console.print(
        f"Impressions to find the ideal ranker better, at {CONFIDENCE:.0%} confidence and {POWER:.0%} power; never: "
        "the metric prefers the worse one, or neither. Ratio: how many the best A/B test needs for each. "
        f"From {impressions:,} simulated impressions; ± is one standard error, over queries."
    )
    cost = Table("method", "microseconds per list of 10, median", "99 % below", box=box.SIMPLE_HEAD)
    for name, (median, p99) in spent.items():
        cost.add_row(name, f"{median:,.0f}", f"{p99:,.0f}")
    console.print(cost)


def _cells(found: Found) -> tuple[str, str, str]:
    if np.isinf(found.needed):
        return "never", "", ""
    power = "" if np.isnan(found.power) else f"{found.power:.0%}"
    return f"{found.needed:,.0f}", power, f"{found.ratio:.2f} ± {found.error:.2f}"


if __name__ == "__main__":
    main()
