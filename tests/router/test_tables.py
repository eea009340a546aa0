from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics.buckets import quantise
from router.allocation.tables import live_counts
from router.assignment.epochs import HOLDOUT, with_holdout


def test_every_live_arm_has_a_bucket_that_the_largest_gives() -> None:
    assert live_counts(0.0, {0: 0.99999, 1: 0.00001, 3: 0.0}, 4) == {0: 9998, 1: 1, 2: 0, 3: 1, HOLDOUT: 0}


def test_a_share_that_has_its_buckets_keeps_them() -> None:
    assert live_counts(0.1, {0: 0.5, 1: 0.5}, 2) == with_holdout(quantise([0.45, 0.45, 0.1]))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.floats(0, 0.9))
def test_all_buckets_are_given_away_and_nobody_gets_none(weights: list[float], holdout: float) -> None:
    total = sum(weights) or 1.0
    shares = {number: (weight / total if sum(weights) else 1 / len(weights)) for number, weight in enumerate(weights)}
    counts = live_counts(holdout, shares, len(weights) + 1)
    assert sum(counts.values()) == 10_000
    assert all(counts[number] >= 1 for number in shares)
    assert counts[len(weights)] == 0
    assert abs(counts[HOLDOUT] - 10_000 * holdout) <= 1
