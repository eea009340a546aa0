"""The next epoch of a bandit, from what is known of its arms; a verifier computes it again from the epoch's basis."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from analysis.statistics.linear import Regression, weight_posteriors
from analysis.statistics.thompson import Evidence, probabilities
from router.allocation.contextual import ArmPosterior, Policy, arm_posterior, check_context
from router.allocation.tables import live_counts
from router.assignment.audience import Context
from router.assignment.epochs import Epoch, fresh, reweight
from router.assignment.hashing import BUCKETS
from router.documents import BinaryMetric, Contextual, Experiment, Thompson
from router.errors import Conflict

SMALLEST_CHANGE = 10
"""An epoch that moves fewer buckets is not worth its row, unless the newest one is old."""

SMALLEST_GAIN = 0.01
"""Nor is a linear model that has seen less than this share of values more."""

LARGEST_AGE_MS = 60_000


class Known(NamedTuple):
    """What is known of the live arms of a bandit, in order; regressions are a contextual one's."""

    evidence: tuple[Evidence, ...]
    regressions: tuple[Regression, ...] = ()

    @property
    def is_finite(self) -> bool:
        """Whether all of it can be computed with, and stored."""
        return all(np.isfinite(each).all() for each in self.evidence) and all(
            np.isfinite(part).all() for each in self.regressions for part in each
        )


class Basis(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a bandit's shares follow from, besides the metric."""

    at_ms: int
    allocation: Thompson | Contextual
    holdout: float
    arms: tuple[int, ...]
    """The numbers of the live arms, the control first."""
    evidence: tuple[Evidence, ...]
    """Of each live arm."""
    posteriors: tuple[ArmPosterior, ...] = ()
    """Of each live arm's linear model, where the context decides."""


read_basis = msgspec.json.Decoder(Basis).decode


class Contexts:
    """Draws arms by the context of each request, as an epoch's basis says; safe to use from several threads."""

    def __init__(self, document: Experiment, basis: Basis) -> None:
        if not isinstance(basis.allocation, Contextual):
            raise AssertionError(f"{document.name!r} does not look at contexts")
        metric = document.metric(basis.allocation.metric)
        self._policy = Policy(basis.allocation, metric.direction, basis.posteriors)
        self._basis = basis
        self._features = basis.allocation.features
        self._arms = len(document.arms)

    def check(self, context: Context) -> None:
        """Raise InvalidRequest if an attribute that the arms are drawn by is of another type than its feature."""
        check_context(self._features, context)

    def counts(self, context: Context) -> dict[int, int]:
        """Return the buckets of every number, in their order on the line, for a request with this context."""
        shares = dict(zip(self._basis.arms, self._policy.probabilities(context), strict=True))
        return live_counts(self._basis.holdout, shares, self._arms)


def drawn_from(counts: Mapping[int, int], bucket: int) -> int:
    """Return the number that the bucket falls on, where the counts lie one after the other."""
    for number, count in counts.items():
        bucket -= count
        if bucket < 0:
            return number
    raise AssertionError(f"{dict(counts)} are not {BUCKETS} buckets")


def table_counts(document: Experiment, basis: Basis) -> dict[int, int]:
    """Return the buckets of every number in the table that follows from a basis.

    Where the context decides, the table only says who is held out: the arms have equal shares in it.
    """
    if isinstance(basis.allocation, Contextual):
        shares: Sequence[float] = [1 / len(basis.arms)] * len(basis.arms)
    else:
        metric = document.metric(basis.allocation.metric)
        kind = "binary" if isinstance(metric, BinaryMetric) else "numeric"
        shares = probabilities(basis.allocation, kind, metric.direction, basis.evidence)
    return live_counts(basis.holdout, dict(zip(basis.arms, shares, strict=True)), len(document.arms))


def lay_out(document: Experiment, before: bytes | None, counts: Mapping[int, int]) -> bytes:
    """Return a bandit's table with these counts.

    Where units are drawn, it moves the fewest; requests have nothing to keep, and a table in order is shorter to store.
    """
    return fresh(counts) if before is None or document.by_request else reweight(before, counts)


def bandit_epoch(document: Experiment, before: Epoch | None, known: Known, now_ms: int) -> Epoch:
    """Return the first epoch of a bandit, or the one that follows another, from what is known now.

    Raises:
        Conflict: If its values add up to what is no number.
    """
    if not known.is_finite:
        raise Conflict(
            f"experiment {document.name!r} cannot be allocated: values of its metric add up to what is no number; "
            "conclude it, and start another one with values that are within bounds"
        )
    basis = _basis(document, known, now_ms)
    table = lay_out(document, None if before is None else before.table, table_counts(document, basis))
    number = 1 if before is None else before.number + 1
    return Epoch(number, table, round(document.traffic * BUCKETS), msgspec.json.encode(basis).decode())


def is_worth_publishing(before: Epoch, after: Epoch) -> bool:
    """Return whether an epoch differs enough from the newest one."""
    if before.basis is None or after.basis is None:
        return True
    old, new = read_basis(before.basis), read_basis(after.basis)
    changes, aged = old.evidence != new.evidence, new.at_ms - old.at_ms >= LARGEST_AGE_MS
    if isinstance(new.allocation, Contextual):
        return changes and (aged or _gain(old, new) >= SMALLEST_GAIN)
    moved = sum(map(int.__ne__, before.table, after.table))
    return moved >= SMALLEST_CHANGE or (moved > 0 and aged)


def _gain(old: Basis, new: Basis) -> float:
    """Return how many values there are more, or fewer by now, for each that there was."""
    seen = sum(arm.n for arm in old.evidence)
    return abs(sum(arm.n for arm in new.evidence) - seen) / max(seen, 1.0)


def _basis(document: Experiment, known: Known, now_ms: int) -> Basis:
    allocation = document.allocation
    if not isinstance(allocation, Thompson | Contextual):
        raise AssertionError(f"{document.name!r} is no bandit")
    posteriors: tuple[ArmPosterior, ...] = ()
    if isinstance(allocation, Contextual):
        weights = weight_posteriors(known.regressions)
        posteriors = tuple(map(arm_posterior, weights, [arm.matured for arm in known.evidence]))
    return Basis(now_ms, allocation, document.holdout, document.live, known.evidence, posteriors)
