"""A rehearsal made ready to be played: truths by arm and time, steps, and what comes when."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from router.documents import AnyMetric, BinaryMetric, Experiment, Split, Thompson
from router.simulation.delays import answered
from router.simulation.plans import Change, Rehearsal, Truth, World
from router.simulation.steps import even_ends, step_ends
from router.simulation.traffic import MINUTES_PER_DAY, expected_requests
from router.simulation.values import AnyValues, Normals, Ones

Floats = NDArray[np.float64]
Rule = Literal["split", "thompson", "top-two"]

_FLOOR = 0.05


class Phase(NamedTuple):
    """What the values of each live arm are, from a minute on until the next phase."""

    start: int
    values: tuple[AnyValues, ...]


class Setting(NamedTuple):
    """One experiment in one world, as often as it is played."""

    document: Experiment
    metric: AnyMetric
    world: World
    phases: tuple[Phase, ...]
    ends: tuple[int, ...]
    """The minutes at which steps begin and end."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the live arms, the control first."""
        return tuple(self.document.arms[number].name for number in self.document.live)

    @property
    def kind(self) -> str:
        """What decides between beta and Student posteriors."""
        return "binary" if isinstance(self.metric, BinaryMetric) else "numeric"

    @property
    def sign(self) -> float:
        """1 where more is better, else -1."""
        return 1.0 if self.metric.direction == "increase" else -1.0

    @property
    def requests(self) -> Floats:
        """How many decisions of the experiment are expected in each step [steps], those held out among them."""
        coming = expected_requests(self.world.requests_per_hour, self.world.daily, self.ends)
        return self.document.traffic * coming

    @property
    def answered(self) -> float:
        """The share of decisions whose outcome comes and counts."""
        return (1 - self.world.missing) * answered(self.world.delay, self.longest_s)

    @property
    def longest_s(self) -> float:
        """How late an outcome may be and still count."""
        return float(self.metric.window_s) if self.metric.ignores_late else math.inf

    def phase_at(self, minute: int) -> Phase:
        """Return the phase that a minute is in."""
        return next(phase for phase in reversed(self.phases) if phase.start <= minute)

    def means(self) -> Floats:
        """Return the true mean of each live arm in each step [steps, arms]."""
        return np.array([[each.mean for each in self.phase_at(start).values] for start in self.ends[:-1]])

    def best(self, phase: Phase) -> tuple[str, ...]:
        """Return the arms that are truly the best in a phase: one, unless several are equally good."""
        scores = [self.sign * each.mean for each in phase.values]
        return tuple(name for name, score in zip(self.names, scores, strict=True) if score == max(scores))


def prepare(
    rehearsal: Rehearsal, days: float, *, logged: Mapping[str, AnyValues] | None = None, step: int | None = None
) -> Setting:
    """Return the setting; `logged` has the values of arms where no truths are said, `step` is in minutes."""
    document, world, metric = rehearsal.experiment, rehearsal.world, rehearsal.metric
    first = logged if world.arms is None else {name: values_of(truth) for name, truth in world.arms.items()}
    if first is None:
        raise AssertionError("neither truths nor logged values are there")
    changes = [change.after_days for change in world.changes if change.after_days < days]
    ends = step_ends(document, metric, world.delay, days, changes) if step is None else even_ends(step, days, changes)
    phases = _phases([first[name] for name in rehearsal.live], rehearsal.live, world.changes)
    return Setting(document, metric, world, phases, ends)


def with_rule(setting: Setting, rule: Rule) -> Setting:
    """Return the same world with another allocation, which has the defaults of its kind; a split is even."""
    live = [setting.document.arms[number] for number in setting.document.live]
    share = 1 / len(live)
    floor = min(_FLOOR, share / 2)
    allocation = (
        Split(weights={arm.name: share for arm in live})
        if rule == "split"
        else Thompson(metric=setting.metric.name, floor=floor, top_two=rule == "top-two")
    )
    document = msgspec.structs.replace(setting.document, arms=live, allocation=allocation)
    return setting._replace(document=document)


def all_equal(setting: Setting) -> Setting:
    """Return the setting in which every arm is what the control is."""
    phases = (Phase(phase.start, (phase.values[0],) * len(phase.values)) for phase in setting.phases)
    return setting._replace(phases=tuple(phases))


def values_of(truth: Truth) -> AnyValues:
    """Return the values that follow from a checked truth."""
    if truth.probability is not None:
        return Ones(truth.probability)
    if truth.mean is None or truth.sd is None:
        raise AssertionError(f"{truth} was not checked")
    return Normals(truth.mean, truth.sd)


def _phases(first: Sequence[AnyValues], names: Sequence[str], changes: Sequence[Change]) -> tuple[Phase, ...]:
    phases, current = [Phase(0, tuple(first))], dict(zip(names, first, strict=True))
    for change in sorted(changes, key=lambda change: change.after_days):
        current |= {name: values_of(truth) for name, truth in change.arms.items()}
        if change.swap is not None:
            one, other = change.swap
            current |= {one: current[other], other: current[one]}
        start = max(round(change.after_days * MINUTES_PER_DAY), 1)
        phases.append(Phase(start, tuple(current.values())))
    return tuple(phases)
