"""Contrasts from sums by groups of units: against direct formulas, and over looks by simulation."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.statistics.unit_groups import (
    GROUPS,
    SCALARS,
    SIZE,
    Sums,
    change,
    credit_change,
    draws_log_evidence,
    group_of,
    margin,
    of_items,
    of_ratio,
    of_values,
    overlap_weight,
    planned_variance,
    scale_of,
    sums_of,
)

Arrays = NDArray[Any]
PLANNED = 10_000.0


def added(units: Arrays, propensity: Arrays, values: Arrays) -> Sums:
    groups = [group_of(str(unit)) for unit in units]
    ones = np.ones(len(values))
    return sums_of(groups, *(each.tolist() for each in (1 - propensity, ones, values, values * values)))


def both(rng: np.random.Generator, size: int, share: float, means: tuple[float, float]) -> tuple[Sums, Sums, Arrays]:
    units = rng.integers(0, 2**40, size)
    arm = rng.random(size) < share
    values = (rng.random(size) < np.where(arm, means[1], means[0])).astype(float)
    propensity = np.where(arm, share, 1 - share)
    control, treatment = (added(units[arm == k], propensity[arm == k], values[arm == k]) for k in (False, True))
    return control, treatment, np.stack([arm, values])


def test_group_is_the_same_for_ever_and_spread_over_all() -> None:
    assert group_of("traveller-1") == 61
    assert {group_of(str(number)) for number in range(2000)} == set(range(GROUPS))


def test_sums_add_up_and_keep_their_layout() -> None:
    one = sums_of([3], [0.5], [1], [2.0], [4.0])
    assert one.vector.shape == (SIZE,)
    assert (one.count, one.total, one.squares) == (1, 2, 4)
    assert (one.weight, one.weighted, one.squared_weight) == (0.5, 1, 0.25)
    assert (one.squared_weighted, one.squared_products, one.spread) == (0.5, 1, 0.25)
    assert one.group_weights[3] == 0.5
    assert one.group_weighted[3] == 1
    assert (one + one).weight == 1
    assert not hasattr(one, "nothing")


def test_sums_are_what_their_names_say() -> None:
    rng = np.random.default_rng(7)
    rows = [(group, *rng.random(4).tolist()) for group in (0, 5, 5, 127)]
    found = sums_of(*zip(*rows, strict=True))
    expected = dict.fromkeys(SCALARS, 0.0)
    for _, w, n, t, s in rows:
        expected["count"] += n
        expected["total"] += t
        expected["squares"] += s
        expected["weight"] += w * n
        expected["weighted"] += w * t
        expected["squared_weight"] += w * w * n
        expected["squared_weighted"] += w * w * t
        expected["squared_products"] += w * w * s
        expected["spread"] += w * (1 - w) * n
    assert {name: getattr(found, name) for name in SCALARS} == pytest.approx(expected)
    for group in range(GROUPS):
        mine = [row for row in rows if row[0] == group]
        assert found.group_weights[group] == pytest.approx(sum(w * n for _, w, n, _, _ in mine))
        assert found.group_weighted[group] == pytest.approx(sum(w * t for _, w, _, t, _ in mine))


def test_what_came_since_is_what_was_added() -> None:
    rng = np.random.default_rng(1)

    def drawn(n: int) -> Sums:
        values = rng.normal(size=n)
        groups, ones = rng.integers(0, GROUPS, n).tolist(), [1.0] * n
        return sums_of(groups, rng.random(n).tolist(), ones, values.tolist(), (values * values).tolist())

    before, since = drawn(5000), drawn(40)
    found = (before + since) - before
    assert found.vector == pytest.approx(since.vector, abs=1e-9)
    assert found.count == 40
    assert found.group_weighted.min() < 0 <= found.group_weights.min()


def test_rounding_leaves_no_count_and_no_weight_below_nothing() -> None:
    three, one, two = (sums_of([1], [1.0], [total], [total], [total]) for total in (0.3, 0.1, 0.2))
    assert (three.vector < (one + two).vector).any()
    nothing = three - (one + two)
    assert min(nothing.count, nothing.squares, nothing.weight, nothing.squared_weight, nothing.squared_products) >= 0
    assert (nothing.group_weights >= 0).all()


def test_overlap_weights_compare_arms_within_times_whatever_the_ramp() -> None:
    rng = np.random.default_rng(1)
    # Everybody converts more later, when the treatment has most of the traffic; pooled means would credit it with that.
    early, late = both(rng, 40_000, 0.1, (0.1, 0.1)), both(rng, 40_000, 0.9, (0.3, 0.3))
    control, treatment = early[0] + late[0], early[1] + late[1]
    assert treatment.total / treatment.count - control.total / control.count > 0.1
    found = change(of_values(control), of_values(treatment))
    assert found is not None
    assert abs(found.difference) < 0.01


def test_change_of_a_fixed_split_is_the_difference_of_means_with_welchs_variance() -> None:
    control, treatment, (arm, values) = both(np.random.default_rng(2), 60_000, 0.5, (0.1, 0.12))
    first, second = values[arm == 0], values[arm == 1]
    found = change(of_values(control), of_values(treatment))
    assert found is not None
    assert found.difference == pytest.approx(second.mean() - first.mean(), abs=1e-12)
    welch = first.var() / len(first) + second.var() / len(second)
    # Units do not return, so groups say the same up to their own noise, of which the larger estimate is taken.
    assert 1.0 <= found.variance / found.information**2 / welch < 1.5


def test_units_that_return_count_by_their_groups() -> None:
    rng = np.random.default_rng(3)
    units = np.repeat(np.arange(2000), 20)
    arm = np.repeat(rng.random(2000) < 0.5, 20)
    values = np.repeat(rng.normal(size=2000), 20)
    half = np.full(len(units), 0.5)
    control, treatment = (added(units[arm == k], half[arm == k], values[arm == k]) for k in (False, True))
    found = change(of_values(control), of_values(treatment))
    assert found is not None
    # As if each unit had come once: 4 / 2000, not 4 / 40,000.
    assert found.variance / found.information**2 == pytest.approx(4 / 2000, rel=0.5)


def test_defaults_stand_for_what_was_not_answered() -> None:
    rng = np.random.default_rng(4)
    units, half = np.arange(4000), np.full(4000, 0.5)
    answered = rng.random(4000) < 0.3
    values = np.where(answered, rng.normal(5, 1, 4000), 2.0)
    items = added(units, half, np.ones(4000))
    later_items = added(units + 4000, half, np.ones(4000))
    of_answers = added(units[answered], half[answered], values[answered])
    filled, expected = of_items(of_answers, items, 2.0), of_values(added(units, half, values))
    assert filled.mean == pytest.approx(expected.mean)
    later = added(units + 4000, half, rng.normal(3, 1, 4000))
    one, two = change(of_items(later, later_items, 2.0), filled), change(of_values(later), expected)
    assert one is not None
    assert two is not None
    assert one.difference == pytest.approx(two.difference)
    assert one.variance == pytest.approx(two.variance)


def test_ratio_is_the_quotient_of_sums() -> None:
    units, half = np.arange(1000), np.full(1000, 0.5)
    rng = np.random.default_rng(5)
    money, seats = rng.exponential(10, 1000), rng.integers(1, 5, 1000).astype(float)
    control, treatment = (
        of_ratio(added(units[part], half[part], money[part]), added(units[part], half[part], seats[part]))
        for part in (slice(0, 500), slice(500, 1000))
    )
    assert control.mean == pytest.approx(money[:500].sum() / seats[:500].sum())
    found = change(control, treatment)
    assert found is not None
    assert found.difference == pytest.approx(treatment.mean - control.mean)
    linear = (
        (money - control.mean * seats)[:500] / seats[:500].mean(),
        (money - treatment.mean * seats)[500:] / seats[500:].mean(),
    )
    assert found.variance / found.information**2 == pytest.approx(sum(each.var() / 500 for each in linear), rel=0.5)


@pytest.mark.parametrize("few", [0, 29])
def test_change_says_nothing_of_few_values(few: int) -> None:
    many = of_values(added(np.arange(1000), np.full(1000, 0.5), np.arange(1000.0)))
    little = of_values(added(np.arange(few), np.full(few, 0.5), np.arange(float(few))))
    assert change(many, little) is None
    assert change(little, many) is None


def test_change_says_nothing_of_few_units() -> None:
    same = of_values(added(np.repeat([1, 2, 3], 100), np.full(300, 0.5), np.arange(300.0)))
    assert change(same, same) is None


def test_a_few_treated_failures_do_not_look_certain() -> None:
    control, treatment, _ = both(np.random.default_rng(6), 4000, 0.01, (0.01, 0.0))
    found = change(of_values(control), of_values(treatment))
    assert found is not None
    # Not one of 40 converted; the pooled variance says how little that means.
    scale = planned_variance(found, scale_of(found), PLANNED)
    assert abs(found.difference) < margin(found, scale, 0.05)


def test_credit_is_compared_by_groups() -> None:
    rng = np.random.default_rng(7)
    units, ones = np.arange(4000), np.zeros(4000)
    winner = rng.random(4000) < 0.6
    control, treatment = (added(units[mine], ones[mine], np.ones(int(mine.sum()))) for mine in (~winner, winner))
    found = credit_change(control, treatment)
    assert found is not None
    assert found.difference == pytest.approx(2 * winner.mean() - 1)
    assert found.variance / found.information**2 == pytest.approx(1 / 4000, rel=0.4)
    assert credit_change(Sums(), Sums()) is None


def rollout(rng: np.random.Generator, means: tuple[float, float], lost: float = 0.0) -> tuple[bool, bool]:
    """Return whether the true difference was ever excluded, and whether the draws were ever found wrong."""
    control, treatment, scale = Sums(), Sums(), None
    missed = wrong = False
    for share, looks in ((0.01, 10), (0.1, 15), (0.5, 40)):
        for _ in range(looks):
            c, t, (arm, values) = both(rng, 200, share, means)
            if lost:
                keep = rng.random(int(arm.sum())) >= lost
                treated = values[arm == 1][keep]
                t = added(rng.integers(0, 2**40, len(treated)), np.full(len(treated), share), treated)
            control, treatment = control + c, treatment + t
            evidence = draws_log_evidence(control, treatment, PLANNED, 0.001)
            wrong |= evidence is not None and evidence > math.log(1000)
            found = change(of_values(control), of_values(treatment))
            if found is not None:
                scale = scale_of(found) if scale is None else scale
                missed |= abs(found.difference - (means[1] - means[0])) > margin(
                    found, planned_variance(found, scale, PLANNED), 0.05
                )
    return missed, wrong


def test_sequences_and_draws_keep_their_error_through_a_ramp() -> None:
    rng = np.random.default_rng(8)
    runs = [rollout(rng, (0.1, 0.1)) for _ in range(60)]
    missed, wrong = np.mean(runs, axis=0)
    # Nominal .05 with a Monte Carlo error of .028, and .001.
    assert missed <= 0.05 + 2 * 0.028
    assert wrong <= 1 / 60


def test_lost_decisions_of_an_arm_are_found() -> None:
    rng = np.random.default_rng(9)
    assert all(rollout(rng, (0.1, 0.1), lost=0.2)[1] for _ in range(5))


def test_weights_are_the_probability_of_the_other_arm() -> None:
    assert overlap_weight(0.9) == pytest.approx(0.1)


def test_what_never_happened_may_happen_next_where_values_are_bounded() -> None:
    def constant(value: float, size: int) -> Sums:
        return added(np.arange(size), np.full(size, 0.5), np.full(size, value))

    for value in (0.0, 1.0):
        arms = of_values(constant(value, 500)), of_values(constant(value, 500))
        assert change(*arms) is None
        found = change(*arms, within_1=True)
        assert found is not None
        off = margin(found, planned_variance(found, scale_of(found), 1000), 0.05)
        # The rule of three says 3 / 500, of one arm and at one look.
        assert 0.003 < off < 0.02
    few = change(of_values(constant(0.0, 40)), of_values(constant(0.0, 40)), within_1=True)
    assert few is not None
    assert margin(few, planned_variance(few, scale_of(few), 1000), 0.05) > 0.05


def test_values_that_vary_are_not_touched_by_what_is_unseen() -> None:
    control, treatment, _ = both(np.random.default_rng(3), 2000, 0.5, (0.3, 0.4))
    arms = of_values(control), of_values(treatment)
    assert change(*arms, within_1=True) == change(*arms)
