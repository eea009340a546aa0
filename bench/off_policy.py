"""Bias, error and coverage of off-policy estimators on logs whose truth is known, and what is refused.

Units make several decisions, each with a context that decides which arm is best for it. Several contextual policies
make the log one after the other; another one is evaluated. Run it with `python -m bench.off_policy`.
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

from analysis.statistics.off_policy import Evaluation, Log, balanced_propensities, evaluate, make_log
from bench.harness import write_json

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

CONTEXTS, ARMS, EPOCHS = 12, 4, 3
ESTIMATORS = ("ips", "snips", "dm", "dr", "switch_dr")
REFUSED = "two decisions of an arm"


class World(NamedTuple):
    """Probabilities of outcomes and of choices; contexts are equally probable."""

    outcome: Floats
    """Of each arm [contexts, arms]."""
    logging: Floats
    """Of the policies that made the log [epochs, contexts, arms]."""
    policy: Floats
    """Of the one that is evaluated [contexts, arms]."""

    @property
    def truth(self) -> float:
        """The mean outcome under the policy."""
        return float((self.policy * self.outcome).sum(axis=1).mean())


class Row(NamedTuple):
    """One estimator on many logs, in units of the outcome; `coverage` is that of nominal 95 % intervals."""

    estimator: str
    bias: float
    bias_error: float
    """Monte Carlo error of the bias."""
    rmse: float
    coverage: float


class Scenario(NamedTuple):
    """A world at one overlap, and what was found there."""

    name: str
    effective_sample_size: float
    largest_weight: float
    refused: float
    """Share of logs."""
    rows: list[Row]


def make_world(sharpness: float, floor: float, seed: int) -> World:
    """Return a world in which logging policies prefer arms by contexts, and the policy others, the more the sharper.

    Every logging policy gives every arm at least the floor.
    """
    generator = np.random.default_rng(seed)
    outcome = 0.05 + 0.3 * generator.beta(1, 2, (CONTEXTS, ARMS))
    tastes = generator.normal(0, sharpness, (EPOCHS, CONTEXTS, ARMS))
    return World(outcome, floor + (1 - floor * ARMS) * _softmax(tastes), _softmax(12 * sharpness * outcome))


def rare_world() -> World:
    """Return a world in which the policy wants an arm that the log chose once in ten thousand."""
    rare = np.array([0.4, 0.3, 0.2999, 0.0001])
    outcome = np.broadcast_to([0.1, 0.12, 0.14, 0.2], (CONTEXTS, ARMS))
    wanted = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (CONTEXTS, ARMS))
    return World(outcome, np.broadcast_to(rare, (EPOCHS, CONTEXTS, ARMS)), wanted)


def make_decisions(world: World, units: int, generator: np.random.Generator) -> tuple[Integers, Integers, Log]:
    """Return contexts [decisions], epochs [decisions] and the log with each decision's own propensities.

    A unit has a geometric number of decisions, one epoch, and a luck of its own that all its outcomes share.
    """
    epoch_of_unit = np.sort(generator.integers(EPOCHS, size=units))
    unit = np.repeat(np.arange(units), generator.geometric(0.5, units))
    epoch, context = epoch_of_unit[unit], generator.integers(CONTEXTS, size=unit.size)
    propensities = world.logging[epoch, context]
    arm = (generator.random((unit.size, 1)) > propensities.cumsum(axis=1)[:, :-1]).sum(axis=1)
    luck = np.clip(1 + 0.3 * generator.standard_normal(units), 0, 2)[unit]
    reward = generator.random(unit.size) < world.outcome[context, arm] * luck
    return context, epoch, make_log(unit, arm, reward, propensities)


def context_means(log: Log, context: Integers, folds: int = 5) -> Floats:
    """Return the mean outcome per context and arm among units of other folds [rows, arms]: the right model."""
    fold = log.units % folds
    cell = (fold * CONTEXTS + context) * ARMS + log.arms
    shape = (folds, CONTEXTS, ARMS)
    sums, number = (
        np.bincount(cell, weights=each, minlength=math.prod(shape)).reshape(shape) for each in (log.rewards, log.counts)
    )
    sums, number = sums.sum(axis=0) - sums, number.sum(axis=0) - number
    means = (sums + log.rewards.mean()) / (number + 1)
    return np.asarray(means[fold, context])


def evaluations(world: World, units: int, generator: np.random.Generator) -> dict[str, Evaluation]:
    """Return what each way to weigh and to model finds in one log."""
    context, epoch, log = make_decisions(world, units, generator)
    policy = world.policy[context]
    balanced = balanced_propensities(np.bincount(epoch, minlength=EPOCHS), world.logging)[context]
    mixed = log._replace(propensities=balanced)
    return {
        "own propensities, model without context": evaluate(log, policy),
        "balanced, model without context": evaluate(mixed, policy),
        "balanced, model of contexts": evaluate(mixed, policy, context_means(mixed, context)),
    }


def measure(world: World, name: str, units: int, logs: int, seed: int) -> list[Scenario]:
    """Evaluate the policy on many logs of the world."""
    generator = np.random.default_rng(seed)
    progress = track(range(logs), description=name, console=Console(stderr=True))
    found = [evaluations(world, units, generator) for _ in progress]
    return [_scenario(f"{name}; {way}", [each[way] for each in found], world.truth) for way in found[0]]


def _scenario(name: str, found: list[Evaluation], truth: float) -> Scenario:
    overlaps = [each.overlap for each in found]
    given = [each.estimates for each in found if each.estimates is not None]
    rows = []
    for estimator in ESTIMATORS if given else ():
        values = np.array([getattr(estimates, estimator) for estimates in given])
        errors = values[:, 0] - truth
        rows.append(
            Row(
                estimator,
                bias=float(errors.mean()),
                bias_error=float(errors.std() / math.sqrt(errors.size)),
                rmse=float(np.sqrt((errors**2).mean())),
                coverage=float(((values[:, 2] <= truth) & (truth <= values[:, 3])).mean()),
            )
        )
    return Scenario(
        name,
        float(np.median([overlap.effective_sample_size for overlap in overlaps])),
        float(np.median([overlap.largest_weight for overlap in overlaps])),
        1 - len(given) / len(found),
        rows,
    )


WORLDS: Mapping[str, Callable[[], World]] = {
    "near, floor 5 %": lambda: make_world(0.5, 0.05, 1),
    "far, floor 5 %": lambda: make_world(1.5, 0.05, 1),
    "far, floor 0.1 %": lambda: make_world(4.0, 0.001, 1),
    REFUSED: rare_world,
}


def main() -> None:
    """Measure, print the tables and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=5000)
    parser.add_argument("--logs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("var/bench/off_policy.json"))
    arguments = parser.parse_args()
    console, scenarios = Console(width=110), []
    for name, world in WORLDS.items():
        # Two decisions in ten thousand are two with half as many units as decisions.
        units = 10_000 if name == REFUSED else arguments.units
        scenarios += measure(world(), name, units, arguments.logs, arguments.seed)
    for scenario in scenarios:
        _print(console, scenario)
    console.print(f"{arguments.logs:,} logs; ± is one Monte Carlo standard error; outcomes are 0 or 1.")
    write_json(arguments.json, [{**each._asdict(), "rows": [row._asdict() for row in each.rows]} for each in scenarios])


def _print(console: Console, scenario: Scenario) -> None:
    console.print(
        f"{scenario.name}: effective sample size {scenario.effective_sample_size:,.1f}, largest weight "
        f"{scenario.largest_weight:,.1f} (medians); refused {scenario.refused:.1%}"
    )
    if not scenario.rows:
        return
    table = Table("estimator", "bias", "RMSE", "95 % intervals cover", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in scenario.rows:
        bias = f"{row.bias:+.5f} ± {row.bias_error:.5f}"
        table.add_row(row.estimator, bias, f"{row.rmse:.5f}", f"{row.coverage:.1%}")
    console.print(table)


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


if __name__ == "__main__":
    main()
