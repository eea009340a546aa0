import hashlib
import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analysis.statistics.buckets import quantise
from router.assignment.epochs import (
    HOLDOUT,
    Epoch,
    dump_runs,
    fresh,
    load_runs,
    reweight,
    to_runs,
    with_holdout,
)
from router.assignment.hashing import BUCKETS

parts = st.lists(st.integers(0, 1000), min_size=2, max_size=100).filter(any)


def weights_of(shares: list[int]) -> list[float]:
    return [share / sum(shares) for share in shares]


counts = parts.map(lambda shares: with_holdout(quantise(weights_of(shares))))
"""Bucket counts of some arms and a holdout; of another number of arms each time."""


def moved(before: bytes, after: bytes) -> int:
    return sum(old != new for old, new in zip(before, after, strict=True))


def total_variation(before: bytes, after: bytes) -> int:
    """Return the distance of two tables' probabilities, in buckets."""
    difference = Counter(before)
    difference.subtract(Counter(after))
    return sum(map(abs, difference.values())) // 2


@given(parts)
def test_quantise_sums_to_all_buckets_within_one_of_each_share(shares: list[int]) -> None:
    weights = weights_of(shares)
    found = quantise(weights)
    assert sum(found) == BUCKETS
    assert all(abs(count - weight * BUCKETS) < 1 for count, weight in zip(found, weights, strict=True))


@given(parts)
@example([13, 80, 379, 1000])
def test_quantise_is_the_method_of_largest_remainders(shares: list[int]) -> None:
    exact = [Fraction(share * BUCKETS, sum(shares)) for share in shares]
    floors = [math.floor(share) for share in exact]
    first = sorted(range(len(exact)), key=lambda arm: (floors[arm] - exact[arm], arm))[: BUCKETS - sum(floors)]
    assert quantise(weights_of(shares)) == tuple(floor + (arm in first) for arm, floor in enumerate(floors))


@given(parts)
def test_quantise_never_gives_a_larger_weight_fewer_buckets(shares: list[int]) -> None:
    by_weight = sorted(zip(shares, quantise(weights_of(shares)), strict=True))
    assert all(one[1] <= other[1] for one, other in pairwise(by_weight) if one[0] < other[0])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1 / 3, 1 / 3, 1 / 3], (3334, 3333, 3333)),
        ([0.00005, 0.99995], (1, 9999)),
        ([0.99995, 0.00005], (10_000, 0)),
        # In floating point 0.57005 * 10 000 is 5700.499999999999.
        ([0.57005, 0.42995], (5701, 4299)),
    ],
)
def test_quantise_gives_ties_to_the_earlier_arm(weights: list[float], expected: tuple[int, ...]) -> None:
    assert quantise(weights) == expected


def test_quantise_never_drops_a_weight_of_one_bucket() -> None:
    assert quantise([0.9999, 0.0001]) == (9999, 1)


def test_fresh_lays_arms_out_in_order_and_the_holdout_last() -> None:
    assert to_runs(fresh(with_holdout((8000, 1500, 500)))) == [(8000, 0), (1500, 1), (500, HOLDOUT)]


def test_fresh_without_holdout_has_no_run_of_it() -> None:
    assert to_runs(fresh(with_holdout((9000, 1000, 0)))) == [(9000, 0), (1000, 1)]


@given(counts, counts)
def test_epoch_propensities_are_the_exact_shares_and_sum_to_one(before: dict[int, int], after: dict[int, int]) -> None:
    epoch = Epoch(2, reweight(fresh(before), after))
    assert {number: epoch.propensity(number) for number in after} == {
        number: count / BUCKETS for number, count in after.items()
    }
    assert math.fsum(map(epoch.propensity, after)) == pytest.approx(1, abs=1e-12)


@given(counts, counts, counts)
def test_reweight_moves_the_total_variation_and_no_more(
    first: dict[int, int], before: dict[int, int], after: dict[int, int]
) -> None:
    # Two reweightings, because the second one starts from a table that is not laid out in order.
    table = reweight(fresh(first), before)
    following = reweight(table, after)
    assert Counter(following) == +Counter(after)
    assert moved(table, following) == total_variation(table, following)
    assert moved(table, following) == sum(abs(before.get(n, 0) - after.get(n, 0)) for n in before | after) // 2


@given(counts, counts)
def test_reweight_takes_buckets_only_from_shrinking_arms_for_growing_ones(
    before: dict[int, int], after: dict[int, int]
) -> None:
    table = fresh(before)
    for old, new in set(zip(table, reweight(table, after), strict=True)):
        if old != new:
            assert after.get(old, 0) < before[old]
            assert after[new] > before.get(new, 0)


@given(counts)
def test_reweight_without_change_is_the_same_table(after: dict[int, int]) -> None:
    table = reweight(fresh({0: 5000, 1: 5000}), after)
    assert reweight(table, after) == table


def test_reweight_to_more_arms_leaves_everybody_else_where_they_are() -> None:
    table = fresh({0: 5000, 1: 4000, HOLDOUT: 1000})
    following = reweight(table, {0: 4500, 1: 3600, 2: 900, HOLDOUT: 1000})
    assert moved(table, following) == 900
    assert {new for old, new in zip(table, following, strict=True) if old != new} == {2}


def test_reweight_of_a_smaller_holdout_gives_it_to_the_arms_and_keeps_the_rest_out() -> None:
    table = fresh({0: 4500, 1: 4500, HOLDOUT: 1000})
    following = reweight(table, {0: 4800, 1: 4800, HOLDOUT: 400})
    pairs = Counter(zip(table, following, strict=True))
    assert pairs == {(0, 0): 4500, (1, 1): 4500, (HOLDOUT, HOLDOUT): 400, (HOLDOUT, 0): 300, (HOLDOUT, 1): 300}


@given(counts, counts)
def test_runs_round_trip(before: dict[int, int], after: dict[int, int]) -> None:
    table = reweight(fresh(before), after)
    assert load_runs(dump_runs(table)) == table


def test_tables_are_the_same_on_every_platform() -> None:
    table = fresh(with_holdout(quantise((0.45, 0.45, 0.1))))
    for weights in ((0.3, 0.6, 0.1), (1 / 3, 1 / 3, 1 / 3), (0.57005, 0.4, 0.02995), (0.2, 0.2, 0.55, 0.05)):
        table = reweight(table, with_holdout(quantise(weights)))
    assert hashlib.sha256(table).hexdigest() == "5f26b1a99afbf0084c746b446b7a070124831b1acc2ceb91a1098e84a09824fe"
