"""From shares to bucket counts: what an experiment's first epoch is made of, and every later one."""

from collections.abc import Mapping, Sequence

from analysis.statistics.buckets import live_buckets, quantise
from router.assignment.epochs import HOLDOUT, INTERLEAVED, Epoch, fresh, reweight, with_holdout
from router.assignment.hashing import BUCKETS
from router.documents import Experiment, Interleave, Split


def live_counts(holdout: float, shares: Mapping[int, float], arms: int) -> dict[int, int]:
    """Return the buckets of every number in a bandit's table, from the shares of its live arms by number."""
    *live, held_out = live_buckets([*shares.values()], holdout)
    counts = dict(zip(shares, live, strict=True))
    return with_holdout([*(counts.get(number, 0) for number in range(arms)), held_out])


def bucket_counts(holdout: float, shares: Sequence[float]) -> dict[int, int]:
    """Return the buckets of every number in a table, where `shares` are those of all arms, in order; they sum to 1."""
    return with_holdout(quantise([*((1.0 - holdout) * share for share in shares), holdout]))


def first_epoch(document: Experiment) -> Epoch:
    """Return the first epoch of a split or an interleaving: the arms lie one after the other."""
    return Epoch(1, fresh(fixed_counts(document)), _traffic(document))


def next_epoch(epoch: Epoch, document: Experiment) -> Epoch | None:
    """Return the epoch that follows by a document's weights, holdout and traffic; None where nothing differs."""
    following = Epoch(epoch.number + 1, reweight(epoch.table, fixed_counts(document)), _traffic(document))
    return None if (following.table, following.traffic) == (epoch.table, epoch.traffic) else following


def _traffic(document: Experiment) -> int:
    return round(document.traffic * BUCKETS)


def fixed_counts(document: Experiment) -> dict[int, int]:
    """Return the buckets of every number in the table of a split or an interleaving."""
    match document.allocation:
        case Interleave():
            mixed, held_out = quantise([1.0 - document.holdout, document.holdout])
            return {INTERLEAVED: mixed, HOLDOUT: held_out}
        case Split(weights=weights):
            return bucket_counts(document.holdout, [weights[arm.name] for arm in document.arms])
        case _:
            raise AssertionError(f"a bandit's table follows from what is known, not from {document.name!r} alone")
