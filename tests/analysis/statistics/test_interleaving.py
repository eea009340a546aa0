import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics.interleaving import Comparison, compare, compare_pairs, preferences

shares = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (pair[0], (1 - pair[0]) * pair[1]))
"""What a click gives to either ranker where it is the first's, the second's or nobody's."""


def test_delta_by_hand() -> None:
    # Three wins, one loss and two ties of six: (3 + 2 / 2) / 6 - 1 / 2.
    found = compare([1, 1, 1, -1, 0, 0], ["a", "b", "c", "d", "e", "f"])
    assert found.delta == pytest.approx((3 + 2 / 2) / 6 - 1 / 2)
    assert found[4:] == (3, 1, 2, 6, 6)


def test_clusters_by_hand() -> None:
    # Halved preferences add up to 1 in 2 impressions and 1/2 in 3: delta is 3/10, of which the totals are 2/5 and -2/5
    # away. So the error is sqrt(2 (4/25 + 4/25)) / 5, and t with one degree of freedom is Cauchy's distribution.
    found = compare([1, 1, 1, 0, 0], [7, 7, 9, 9, 9])
    error = math.sqrt(2 * 2 * (2 / 5) ** 2) / 5
    assert found.delta == pytest.approx(0.3)
    assert found.p_value == pytest.approx(1 - 2 / math.pi * math.atan(0.3 / error))
    assert (found.low, found.high) == (-0.5, 0.5)
    assert (found.units, found.impressions) == (2, 5)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 1.0]), min_size=3, max_size=40).filter(lambda x: len(set(x)) > 1))
@settings(deadline=None)
def test_one_impression_per_unit_is_the_ordinary_t_test(preferred: list[float]) -> None:
    found = compare(preferred, range(len(preferred)), confidence=0.9)
    reference = stats.ttest_1samp(np.array(preferred) / 2, 0)
    interval = reference.confidence_interval(0.9)
    assert found.p_value == pytest.approx(reference.pvalue)
    assert found.low == pytest.approx(max(interval.low, -0.5))
    assert found.high == pytest.approx(min(interval.high, 0.5))


def test_as_many_impressions_of_each_unit_is_the_t_test_of_their_means() -> None:
    generator = np.random.default_rng(4)
    preferred = np.sign(generator.normal(0.2, 1, (30, 5)) + generator.normal(0, 1, (30, 1)))
    found = compare(preferred.ravel(), np.repeat(np.arange(30), 5))
    reference = stats.ttest_1samp(preferred.mean(axis=1) / 2, 0)
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


def clustered(generator: np.random.Generator, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Return preferences and units, where units have few or many impressions and a taste of their own."""
    sizes = generator.geometric(0.2, units)
    unit = np.repeat(np.arange(units), sizes)
    taste = generator.normal(0, 1, units)[unit]
    return np.sign(np.round(taste + generator.normal(0, 1, unit.size))), unit


def test_the_interval_agrees_with_a_bootstrap_of_units() -> None:
    generator = np.random.default_rng(5)
    preferred, unit = clustered(generator, 400)
    found = compare(preferred, unit)
    totals, sizes = np.bincount(unit, weights=preferred / 2), np.bincount(unit)
    drawn = generator.integers(400, size=(20_000, 400))
    deltas = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    # The bootstrap's standard error has a Monte Carlo error of 0.5 %, linearisation and t against normal add 1 %.
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(deltas.std(), rel=0.03)


def test_under_no_difference_the_test_by_unit_keeps_its_level() -> None:
    generator = np.random.default_rng(6)
    repetitions, by_unit, by_impression = 2000, 0, 0
    for _ in range(repetitions):
        preferred, unit = clustered(generator, 100)
        by_unit += compare(preferred, unit).p_value < 0.05
        by_impression += compare(preferred, np.arange(unit.size)).p_value < 0.05
    # Four standard errors of a rate of 5 % in 2000 repetitions; what impressions would have made of it is far beyond.
    assert abs(by_unit / repetitions - 0.05) < 4 * math.sqrt(0.05 * 0.95 / repetitions)
    assert by_impression / repetitions > 0.2


def test_names_of_units_do_not_matter() -> None:
    preferred = [1, -1, 0, 1, 1]
    assert compare(preferred, ["b", "a", "b", "c", "c"]) == compare(preferred, [4, -2, 4, 9, 9])


def test_exchanged_rankers_mirror_the_result() -> None:
    preferred, unit = clustered(np.random.default_rng(7), 50)
    there, back = compare(preferred, unit), compare(-preferred, unit)
    assert back[:4] == pytest.approx((-there.delta, -there.high, -there.low, there.p_value))
    assert (back.wins, back.losses, back.ties) == (there.losses, there.wins, there.ties)


@pytest.mark.parametrize(
    ("preferred", "units", "delta"),
    [([1.0], ["a"], 0.5), ([1, -1, 1], ["a", "a", "a"], 1 / 6), ([0, 0, 0], [1, 2, 3], 0), ([0.3] * 7, range(7), 0.15)],
)
def test_without_different_units_there_is_no_interval(
    preferred: list[float], units: list[str] | range, delta: float
) -> None:
    found = compare(preferred, units)
    assert found.delta == pytest.approx(delta)
    assert all(math.isnan(value) for value in (found.low, found.high, found.p_value))


def test_without_impressions_there_is_nothing() -> None:
    found = compare([], [])
    assert all(math.isnan(value) for value in found[:4])
    assert found[4:] == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("preference", [1.5, -2, math.nan])
def test_what_is_no_preference_is_refused(preference: float) -> None:
    with pytest.raises(ValueError, match="between -1 and 1"):
        compare([0, preference], [1, 2])


def test_rounding_is_no_win() -> None:
    assert compare([1e-16, -1e-16, 1], [1, 2, 3])[4:7] == (1, 0, 2)


def test_preferences_by_hand() -> None:
    # Impression 0: two clicks for the first ranker, one for the second; 1: one each; 2: no click; 3: one for nobody.
    impression = [0, 1, 0, 3, 0, 1]
    gains = [(1, 0), (0, 1), (0, 1), (0, 0), (1, 0), (1, 0)]
    assert preferences("team_draft", impression, gains, 4).tolist() == [1, 0, 0, 0]
    assert preferences("optimised", impression, gains, 4) == pytest.approx([1 / 3, 0, 0, 0])
    # 3/4 for the first twice: it has both clicks with 9/16, the second with 1/16.
    assert preferences("probabilistic", [0, 0], [(0.75, 0.25)] * 2, 1) == pytest.approx([8 / 16])


def test_without_clicks_nobody_is_preferred() -> None:
    for method in ("team_draft", "probabilistic", "optimised"):
        assert preferences(method, [], np.zeros((0, 2)), 3).tolist() == [0, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 3), shares), max_size=9))
@settings(deadline=None)
def test_expected_signs_are_the_sum_over_all_assignments(clicks: list[tuple[int, tuple[float, float]]]) -> None:
    expected = np.zeros(4)
    for impression in range(4):
        given_there = [each for where, each in clicks if where == impression]
        for owners in product((1, -1, 0), repeat=len(given_there)):
            chances = [
                {1: first, -1: second, 0: 1 - first - second}[owner]
                for owner, (first, second) in zip(owners, given_there, strict=True)
            ]
            expected[impression] += math.prod(chances) * np.sign(sum(owners))
    found = preferences("probabilistic", [where for where, _ in clicks], [each for _, each in clicks], 4)
    assert found == pytest.approx(expected, abs=1e-12)


def test_pairs_are_compared_where_both_had_a_slot() -> None:
    credit = [[2, 1, 0], [0, 1, 5], [1, 0, 0], [0, 1, 0]]
    there = [[True, True, False], [True, True, True], [True, False, True], [True, True, True]]
    found = compare_pairs(credit, there, ["a", "a", "b", "c"])
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    assert found[0, 1] == compare([1, -1, -1], ["a", "a", "c"])
    assert found[0, 2] == compare([-1, 1, 0], ["a", "b", "c"])
    assert found[1, 2] == compare([-1, 1], ["a", "c"])


def test_rankers_that_never_met_are_not_compared() -> None:
    found = compare_pairs([[1, 0], [0, 1]], [[True, False], [False, True]], [1, 2])[0, 1]
    assert isinstance(found, Comparison)
    assert math.isnan(found.delta)
    assert found.impressions == 0
