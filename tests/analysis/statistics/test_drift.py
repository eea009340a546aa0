import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics.drift import (
    categorical_drift,
    compare_features,
    index_by_chance,
    numeric_drift,
    quantile_edges,
    stability_index,
)

samples = st.lists(st.integers(0, 6), min_size=2, max_size=40)


def test_distance_by_hand() -> None:
    found = numeric_drift([2, 2, 0], [0, 2, 2])
    assert found.statistic == 0.5
    # Kolmogorov's exact distribution for two values: P(D >= d) = 2 (1 - d)^2 for d >= 1/2.
    assert found.p_value == pytest.approx(0.5)
    assert (found.reference_rows, found.current_rows) == (4, 4)


def test_chi_square_by_hand() -> None:
    # Each cell is 10 off its expected 30.
    found = categorical_drift([40, 20], [20, 40])
    assert found.statistic == pytest.approx(4 * 100 / 30)
    assert found.p_value == pytest.approx(math.erfc(math.sqrt(found.statistic / 2)))


def test_stability_index_by_hand() -> None:
    # Half a row more in each of two bins: 3/4 and 1/4 against 1/4 and 3/4.
    assert stability_index([1, 0], [0, 1]) == pytest.approx(2 * 0.5 * math.log(3))
    assert stability_index([7, 0, 14], [7, 0, 14]) == 0
    assert index_by_chance(11, 100, 200) == pytest.approx(0.15)


@given(samples, samples)
@settings(deadline=None)
def test_with_a_bin_per_value_it_is_the_test_of_kolmogorov_and_smirnov(before: list[int], after: list[int]) -> None:
    found = numeric_drift(np.bincount(before, minlength=7), np.bincount(after, minlength=7))
    expected = stats.ks_2samp(before, after, method="asymp")
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)


@given(st.lists(st.tuples(st.integers(20, 90), st.integers(20, 90)), min_size=2, max_size=6))
@settings(deadline=None)
def test_without_rare_categories_it_is_the_test_of_scipy(pairs: list[tuple[int, int]]) -> None:
    before, after = zip(*pairs, strict=True)
    found, expected = categorical_drift(before, after), stats.chi2_contingency([before, after], correction=False)
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_rare_categories_are_merged() -> None:
    merged = categorical_drift([50, 40, 1, 2, 7], [30, 60, 3, 4, 0])
    assert merged == categorical_drift([50, 40, 10], [30, 60, 7])
    # What is too small even together joins the smallest category that is not.
    assert categorical_drift([50, 40, 1], [30, 60, 0]) == categorical_drift([51, 40], [30, 60])


@pytest.mark.parametrize("test", [numeric_drift, categorical_drift])
@pytest.mark.parametrize("counts", [([0, 0], [3, 4]), ([3, 4], [0, 0])])
def test_without_rows_nothing_is_tested(test: type, counts: tuple[list[int], list[int]]) -> None:
    found = test(*counts)
    assert all(math.isnan(value) for value in found[:4])
    assert math.isnan(stability_index(*counts))
    assert (found.reference_rows, found.current_rows) == (sum(counts[0]), sum(counts[1]))


def test_one_category_cannot_drift() -> None:
    assert math.isnan(categorical_drift([50], [70]).p_value)
    assert math.isnan(categorical_drift([1, 1], [1, 1]).p_value)


@pytest.mark.parametrize(("before", "after"), [([1, 2], [1]), ([1, -1], [1, 1]), ([math.nan], [1]), ([[1]], [[1]])])
def test_what_are_no_counts_is_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="counts"):
        numeric_drift(before, after)


def test_edges_cut_the_reference_into_equal_bins() -> None:
    edges = quantile_edges(range(100), bins=4)
    assert np.bincount(np.searchsorted(edges, np.arange(100), side="right")).tolist() == pytest.approx([25] * 4, abs=1)
    assert quantile_edges([1, 1, 1, 1, 2]).tolist() == [2]
    assert quantile_edges([3, 3]).tolist() == []


def test_false_discoveries_are_as_rare_as_promised_and_shifts_are_found() -> None:
    generator = np.random.default_rng(8)
    repetitions, rows, rate = 150, 2000, 0.05
    false, missed = np.zeros(repetitions), 0
    for number in range(repetitions):
        before, after = generator.normal(size=(8, rows)), generator.normal(size=(8, rows))
        after[0] += 0.5
        edges = [quantile_edges(each) for each in before]
        binned = [
            [np.bincount(np.searchsorted(at, x, side="right"), minlength=at.size + 1) for x in (b, a)]
            for at, b, a in zip(edges, before, after, strict=True)
        ]
        drifts = compare_features({str(place): numeric_drift(*counts) for place, counts in enumerate(binned)})
        named = {name for name, adjusted in drifts.adjusted.items() if adjusted <= rate}
        false[number] = len(named - {"0"}) / max(len(named), 1)
        missed += drifts.found() != ("0",)
    assert false.mean() <= rate + 4 * false.std() / math.sqrt(repetitions)
    assert missed == 0


def test_without_drift_the_index_is_what_chance_makes_of_it() -> None:
    generator = np.random.default_rng(9)
    shares = np.full(10, 0.1)
    indices = [
        categorical_drift(generator.multinomial(500, shares), generator.multinomial(300, shares)).stability_index
        for _ in range(1000)
    ]
    expected = index_by_chance(10, 500, 300)
    # The limit itself errs by some percent at 30 rows per bin.
    error = 4 * np.std(indices) / math.sqrt(len(indices))
    assert abs(np.mean(indices) - expected) < error + 0.05 * expected


def test_features_that_cannot_be_tested_do_not_count() -> None:
    drifts = compare_features({"gone": numeric_drift([1, 2], [0, 0]), "moved": numeric_drift([90, 10], [10, 90])})
    assert drifts.found() == ("moved",)
    assert drifts.adjusted["moved"] == drifts.features["moved"].p_value
    assert math.isnan(drifts.adjusted["gone"])
