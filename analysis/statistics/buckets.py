"""From shares to whole buckets: traffic is drawn from tables of 10 000, so that every probability is known exactly."""

from collections.abc import Sequence

BUCKETS = 10_000

_DIGITS = 6


def quantise(weights: Sequence[float]) -> tuple[int, ...]:
    """Return bucket counts that sum to 10 000, by largest remainder; ties go to the earlier arm."""
    # Rounded, because 0.57 * 10 000 is a little less than 5700: decimal weights would lose their ties.
    exact = [round(weight * BUCKETS, _DIGITS) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda arm: (round(counts[arm] - exact[arm], _DIGITS), arm))
    for arm in by_remainder[: BUCKETS - sum(counts)]:
        counts[arm] += 1
    return tuple(counts)


def live_buckets(shares: Sequence[float], holdout: float = 0.0) -> tuple[int, ...]:
    """Return the buckets of each of a bandit's live arms, from shares that sum to 1, and then the holdout's.

    Every live arm has one at least, which the largest gives: without traffic it would never be heard of again.
    """
    counts = [*quantise([*((1.0 - holdout) * share for share in shares), holdout])]
    for arm in range(len(shares)):
        if counts[arm] == 0:
            counts[max(range(len(shares)), key=counts.__getitem__)] -= 1
            counts[arm] = 1
    return tuple(counts)
