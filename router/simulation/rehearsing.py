"""Many runs of several allocations in one world, and what they say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import numpy as np

from router.documents import Bandit, BinaryMetric, Thompson
from router.simulation.playing import Run, play
from router.simulation.results import Found, summarise
from router.simulation.settings import Rule, Setting, all_equal, with_rule
from router.simulation.steps import GROWTH
from router.simulation.traffic import MINUTES_PER_DAY

Progress = Callable[[], object]

_COMPARED: Mapping[Rule, str] = MappingProxyType(
    {"split": "even split", "thompson": "thompson (defaults)", "top-two": "top-two (defaults)"}
)


class Effort(NamedTuple):
    """How much is played: runs of every allocation, from one seed, by so many processes."""

    runs: int = 100
    seed: int = 1
    processes: int = 1


class Option(NamedTuple):
    """One allocation in the world, and what it is called."""

    label: str
    setting: Setting


class Rehearsed(msgspec.Struct, frozen=True):
    """The whole result."""

    experiment: str
    metric: str
    direction: str
    arms: dict[str, float]
    """The true mean of each arm at the start."""
    best: list[str]
    """The best arms at the end: one, unless several are equally good."""
    days: float
    runs: int
    seed: int
    alpha: float
    steps: int
    allocations: list[Found]
    all_equal: list[Found]
    """The same allocations, where every arm is like the control; none unless asked for."""
    notes: list[str]


def options(setting: Setting, against: Sequence[Rule]) -> list[Option]:
    """Return the plan's own allocation and those that it is compared with."""
    own = Option(_label(setting), setting)
    return [own, *(Option(_COMPARED[rule], with_rule(setting, rule)) for rule in against)]


def rehearse(
    compared: Sequence[Option], effort: Effort, *, alpha: float, aa: bool = False, progress: Progress = lambda: None
) -> Rehearsed:
    """Play all runs; the result depends on the seed, but not on the number of processes."""
    setting = compared[0].setting
    equal = [Option(option.label, all_equal(option.setting)) for option in compared] if aa else []
    sources = np.random.SeedSequence(effort.seed).spawn(2 * len(compared))
    with _mapping(effort.processes) as mapped:
        found = [
            summarise(option.label, option.setting, _played(option, effort, source, mapped, progress), alpha)
            for option, source in zip([*compared, *equal], sources, strict=False)
        ]
    last = setting.phase_at(setting.ends[-1] - 1)
    return Rehearsed(
        experiment=setting.document.name,
        metric=setting.metric.name,
        direction=setting.metric.direction,
        arms={name: values.mean for name, values in zip(setting.names, setting.phases[0].values, strict=True)},
        best=list(setting.best(last)),
        days=setting.ends[-1] / MINUTES_PER_DAY,
        runs=effort.runs,
        seed=effort.seed,
        alpha=alpha,
        steps=len(setting.ends) - 1,
        allocations=found[: len(compared)],
        all_equal=found[len(compared) :],
        notes=list(notes(setting)),
    )


def notes(setting: Setting) -> Iterator[str]:
    """Return what a reader should know before trusting the figures."""
    shortest, longest = (pick(np.diff(setting.ends).tolist()) for pick in (min, max))
    yield (
        f"played in {len(setting.ends) - 1:,} steps of {shortest} to {longest} minutes: tables and looks change only "
        f"between them, where a router may update more often; unless --step says otherwise, a step is at most about "
        f"{GROWTH:.0%} of what is known by then"
    )
    yield "every request is a unit of its own; where units come back, a split by unit needs more requests than this"
    yield "posterior probabilities above 0.95 are looked for again and again: they are no test with a known error rate"
    document = setting.document
    if len(setting.phases) > 1:
        yield "values change: regret is against the best arm of each moment, calls are right if they name the last one"
    if document.holdout:
        yield f"{document.holdout:.2%} of the decisions are held out; they are in no figure but the intervals' width"
    if document.audience:
        yield "the audience is not looked at: requests_per_hour are those that it lets through"
    if isinstance(document.allocation, Bandit) and not isinstance(setting.metric, BinaryMetric):
        yield "values are drawn as the world says; a real metric with heavier tails is learned more slowly"


def _label(setting: Setting) -> str:
    match setting.document.allocation:
        case Thompson(top_two=True):
            return "top-two"
        case Thompson():
            return "thompson"
        case _:
            return "split"


def _played(
    option: Option,
    effort: Effort,
    source: np.random.SeedSequence,
    mapped: "Callable[[Callable[[np.random.SeedSequence], Run], Sequence[np.random.SeedSequence]], Iterator[Run]]",
    progress: Progress,
) -> list[Run]:
    runs = []
    for run in mapped(partial(play, option.setting), source.spawn(effort.runs)):
        runs.append(run)
        progress()
    return runs


@contextmanager
def _mapping(processes: int) -> Iterator[Callable[..., Iterator[Run]]]:
    if processes == 1:
        yield map
        return
    with ProcessPoolExecutor(processes) as pool:
        yield pool.map
