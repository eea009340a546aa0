from hypothesis import given
from hypothesis import strategies as st

from router.assignment.epochs import Epoch, dump_runs, fresh, load_runs, quantise, reweight, to_runs
from router.assignment.hashing import BUCKETS

parts = st.lists(st.integers(0, 1000), min_size=2, max_size=100).filter(any)


def weights_of(shares: list[int]) -> list[float]:
    return [share / sum(shares) for share in shares]


@given(parts)
def test_quantise_sums_to_all_buckets_within_one_of_each_share(shares: list[int]) -> None:
    weights = weights_of(shares)
    counts = quantise(weights)
    assert sum(counts) == BUCKETS
    assert all(abs(count - weight * BUCKETS) < 1 + 1e-6 for count, weight in zip(counts, weights, strict=True))


def test_quantise_gives_ties_to_the_earlier_arm() -> None:
    assert quantise([1 / 3, 1 / 3, 1 / 3]) == (3334, 3333, 3333)


def test_quantise_never_drops_a_weight_of_one_bucket() -> None:
    assert quantise([0.9999, 0.0001]) == (9999, 1)


def test_fresh_lays_arms_out_in_order() -> None:
    assert to_runs(fresh((9000, 1000))) == [(9000, 0), (1000, 1)]


def test_epoch_propensity_is_the_exact_share() -> None:
    assert Epoch(1, fresh((9000, 1000))).propensity(1) == 0.1


@given(parts, parts)
def test_reweight_moves_the_total_variation_and_no_more(before: list[int], after: list[int]) -> None:
    arms = max(len(before), len(after))
    old = quantise(weights_of(before + [0] * (arms - len(before))))
    new = quantise(weights_of(after + [0] * (arms - len(after))))
    table = fresh(old)
    moved_table = reweight(table, new)
    assert tuple(moved_table.count(arm) for arm in range(arms)) == new
    moved = sum(a != b for a, b in zip(table, moved_table, strict=True))
    assert moved == sum(abs(a - b) for a, b in zip(old, new, strict=True)) // 2


def test_reweight_without_change_is_the_same_table() -> None:
    table = reweight(fresh((5000, 5000)), (6000, 4000))
    assert reweight(table, (6000, 4000)) == table


@given(parts, parts)
def test_runs_round_trip(before: list[int], after: list[int]) -> None:
    arms = max(len(before), len(after))
    counts = [quantise(weights_of(shares + [0] * (arms - len(shares)))) for shares in (before, after)]
    table = reweight(fresh(counts[0]), counts[1])
    assert load_runs(dump_runs(table)) == table
