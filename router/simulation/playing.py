"""One run of a rehearsal: decisions by the step, from the tables that a router would publish."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.best_arm import best_arm_probabilities
from analysis.statistics.thompson import Evidence, posteriors
from router.allocation.bandit import Known, bandit_epoch
from router.allocation.tables import fixed_counts
from router.assignment.epochs import Epoch, fresh
from router.documents import Bandit, Thompson
from router.simulation.record import Record
from router.simulation.settings import Setting

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

SURE = 0.95
"""From this probability on the posterior is said to be sure of the best arm."""

_MS_PER_MINUTE = 60_000
_NOTHING = Evidence(0.0, 0.0, 0.0, 0)


class Sure(NamedTuple):
    """When the posterior first held an arm for the best one with more than SURE."""

    minute: int
    arm: int


class Run(NamedTuple):
    """What happened in one run; arms are places among the live ones."""

    drawn: Counts
    """Decisions of each arm in each step [steps, arms]; those held out are not among them."""
    shares: Floats
    """Of each arm among what is not held out, in each step and in the epoch after the last [steps + 1, arms]."""
    sure: Sure | None
    leader: int | None
    """The arm of which the posterior was sure at the end."""
    evidence: tuple[Evidence, ...]
    """Of each arm at the end, nothing forgotten."""


def play(setting: Setting, seed: np.random.SeedSequence) -> Run:
    """Play one run; equal seeds give equal runs.

    The table changes between steps only. A router's rule that small changes are not worth an epoch has no part in it:
    it is for updates that follow within a minute of each other, and steps take at least one.
    """
    generator, record, epoch = np.random.default_rng(seed), Record(setting), _first_epoch(setting)
    arms, learns = len(setting.document.live), _learner(setting)
    drawn, shares = np.zeros((len(setting.ends) - 1, arms), dtype=np.int64), []
    sure: Sure | None = None
    known: tuple[Evidence, ...] = (_NOTHING,) * arms
    for step, expected in enumerate(setting.requests):
        probability = _propensities(setting, epoch)
        shares.append(probability)
        drawn[step] = generator.multinomial(generator.poisson(expected), [*probability, _rest(probability)])[:arms]
        record.decide(step, drawn[step], setting.phase_at(setting.ends[step]).values, generator)
        record.arrive(step)
        before, known = known, record.evidence(step, learns)
        if known != before:
            if sure is None and (leader := sure_of(setting, known, learns.min_matured)) is not None:
                sure = Sure(setting.ends[step + 1], leader)
            epoch = _next_epoch(setting, epoch, known, setting.ends[step + 1])
    shares.append(_propensities(setting, epoch))
    everything = record.evidence(len(drawn) - 1, Thompson(metric=setting.metric.name))
    in_all = np.array(shares).sum(axis=1, keepdims=True)
    leader = sure_of(setting, known, learns.min_matured)
    return Run(drawn, np.array(shares) / in_all, sure, leader, everything)


def sure_of(setting: Setting, known: Sequence[Evidence], min_matured: int) -> int | None:
    """Return the arm that is the best one with more than SURE, once every arm has values enough; None if none is."""
    if min(arm.matured for arm in known) < min_matured:
        return None
    probable = best_arm_probabilities(posteriors(setting.kind, known), setting.metric.direction)
    leader = int(np.argmax(probable))
    return leader if probable[leader] > SURE else None


def _learner(setting: Setting) -> Bandit:
    allocation = setting.document.allocation
    return allocation if isinstance(allocation, Bandit) else Thompson(metric=setting.metric.name)


def _first_epoch(setting: Setting) -> Epoch:
    if isinstance(setting.document.allocation, Bandit):
        return bandit_epoch(setting.document, None, Known((_NOTHING,) * len(setting.document.live)), 0)
    return Epoch(1, fresh(fixed_counts(setting.document)))


def _next_epoch(setting: Setting, epoch: Epoch, known: tuple[Evidence, ...], minute: int) -> Epoch:
    if not isinstance(setting.document.allocation, Bandit):
        return epoch
    return bandit_epoch(setting.document, epoch, Known(known), _MS_PER_MINUTE * minute)


def _propensities(setting: Setting, epoch: Epoch) -> Sequence[float]:
    return [epoch.propensity(number) for number in setting.document.live]


def _rest(shares: Sequence[float]) -> float:
    return max(1.0 - sum(shares), 0.0)
