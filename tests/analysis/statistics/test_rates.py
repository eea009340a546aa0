"""Confidence sequences of rates: exact cases, limits, and coverage over every look."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import betaln

from analysis.statistics.rates import Rate, rate, weighted_rate
from analysis.statistics.unit_groups import Sums, group_of, sums_of


def test_rate_of_no_cases_may_be_anything() -> None:
    found = rate(0, 0, 0.05)
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)


def test_three_failures_of_three_exclude_a_small_rate() -> None:
    found = rate(3, 3, 0.05)
    # 1 / 4 / p^3 = 20 at the lower end.
    assert found.low == pytest.approx((1 / 80) ** (1 / 3))
    assert found.high == 1.0


@pytest.mark.parametrize(("events", "cases"), [(0, 10), (1, 10), (500, 1000), (999, 1000)])
def test_ends_are_where_the_evidence_reaches_its_limit(events: int, cases: int) -> None:
    found = rate(events, cases, 0.05)
    assert found.low <= events / cases <= found.high
    for end in (found.low, found.high):
        if 0 < end < 1:
            likelihood = events * math.log(end) + (cases - events) * math.log1p(-end)
            assert betaln(events + 1, cases - events + 1) - likelihood == pytest.approx(math.log(20), abs=1e-6)


def test_more_events_than_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="4 events of 3 cases"):
        rate(4, 3, 0.05)


@pytest.mark.parametrize("p", [0.01, 0.3])
def test_rate_is_inside_at_every_look_as_often_as_promised(p: float) -> None:
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(200):
        events = np.cumsum(rng.random(1000) < p)
        looks = range(0, 1000, 10)
        missed += any(not (found := rate(int(events[n]), n + 1, 0.05)).low <= p <= found.high for n in looks)
    # Nominal .05, Monte Carlo error .015.
    assert missed / 200 <= 0.05 + 2 * 0.015


def sums(weights: list[float]) -> Sums:
    ones = [1.0] * len(weights)
    return sums_of([0] * len(weights), weights, ones, ones, ones)


def test_weighted_rate_of_equal_weights_is_the_plain_one() -> None:
    assert weighted_rate(sums([0.25] * 3), sums([0.25] * 50), 0.05) == pytest.approx(rate(3, 50, 0.05))
    assert weighted_rate(sums([]), sums([0.25] * 50), 0.05) == pytest.approx(rate(0, 50, 0.05))
    assert weighted_rate(sums([0.3] * 7), sums([0.3] * 7), 0.05).value == pytest.approx(1.0)
    assert weighted_rate(sums([]), sums([]), 0.05)[1:] == (0.0, 1.0)


def apart(one: Rate, other: Rate) -> float:
    """Return by how much the first rate exceeds the second one at least."""
    return one.low - other.high


def test_weighted_rate_compares_over_the_same_times() -> None:
    # A canary in which nothing fails, then a split in which a fifth of everything does, whoever answers.
    control, candidate = [0.01] * 9900 + [0.5] * 1000, [0.99] * 100 + [0.5] * 1000
    failed = sums([0.5] * 200)
    assert apart(rate(200, 1100, 0.025), rate(200, 10_900, 0.025)) > 0.1
    ours, theirs = weighted_rate(failed, sums(candidate), 0.025), weighted_rate(failed, sums(control), 0.025)
    assert ours.value == pytest.approx(theirs.value, abs=0.002)
    assert apart(ours, theirs) < 0


def test_weighted_rate_through_a_ramp_breaches_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(2)
    breached = 0
    for _ in range(100):
        share = np.repeat([0.01, 0.1, 0.5], 1000)
        mine = rng.random(3000) < share
        # What happens to everybody changes with time, most of all when the share does.
        failed = rng.random(3000) < np.repeat([0.0, 0.2, 0.05], 1000)
        weight = np.where(mine, 1 - share, share)

        def seen(
            arm: NDArray[np.bool_], weight: NDArray[np.float64] = weight, failed: NDArray[np.bool_] = failed
        ) -> Rate:
            happened, decided = (sums(weight[: len(arm)][which].tolist()) for which in (arm & failed[: len(arm)], arm))
            return weighted_rate(happened, decided, 0.025)

        breached += any(apart(seen(mine[:n]), seen(~mine[:n])) > 0 for n in range(50, 3001, 200))
    assert breached / 100 <= 0.05 + 2 * 0.022


def half(groups: NDArray[np.int64]) -> Sums:
    """Return the sums of decisions of these groups, each of weight one half."""
    ones = [1.0] * len(groups)
    return sums_of(groups.tolist(), [0.5] * len(groups), ones, ones, ones)


def test_weighted_rate_knows_that_units_return() -> None:
    rng = np.random.default_rng(4)
    group = np.array([group_of(str(number)) for number in range(400)])
    plain, clustered = 0, 0
    for _ in range(100):
        # Of 400 units that ask 60 times each, a tenth fails always, whoever answers.
        unit, failing, mine = rng.integers(0, 400, 24_000), rng.random(400) < 0.1, rng.random(400) < 0.5
        arms = [(half(group[unit[failing[unit] & arm[unit]]]), half(group[unit[arm[unit]]])) for arm in (mine, ~mine)]
        plain += apart(*(rate(happened.count, decided.count, 0.025) for happened, decided in arms)) > 0
        clustered += apart(*(weighted_rate(*arm, 0.025) for arm in arms)) > 0
    assert plain > 15
    assert clustered <= 5


def test_weighted_rate_of_units_that_do_not_return_is_hardly_wider() -> None:
    failed = np.random.default_rng(5).random(2000) < 0.1
    groups = np.array([group_of(str(number)) for number in range(2000)])
    exact, found = rate(int(failed.sum()), 2000, 0.05), weighted_rate(half(groups[failed]), half(groups), 0.05)
    assert found.value == pytest.approx(exact.value)
    assert 1.0 <= (found.high - found.low) / (exact.high - exact.low) < 1.2
