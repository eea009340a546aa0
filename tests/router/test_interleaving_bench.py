import numpy as np
import pytest
from scipy.stats import norm

from bench.interleaving import (
    AB_METRICS,
    CLICKERS,
    METHODS,
    Clicker,
    clicks_on,
    compare_methods,
    costs,
    impressions_needed,
    interleaved,
    make_queries,
    ndcg,
    needed,
)


def test_a_user_reads_from_the_top_and_stops_after_a_click_by_hand() -> None:
    relevance = np.array([[0, 1, 1, 1], [0, 0, 1, 0]])
    clicker = Clicker(click=(0.0, 0.5), stop=(0.0, 0.5))
    chance = np.array([[[0.0, 0.9, 0.1, 0.1], [0.0, 0.0, 0.4, 0.0]], [[0.0, 0.0, 0.2, 0.0], [0.0, 0.0, 0.6, 0.0]]])
    # The first skips an item, clicks the next and stops there; the second clicks the only relevant one.
    expected = [[False, False, True, False], [False, False, True, False]]
    assert clicks_on(relevance, clicker, chance).tolist() == expected


def test_impressions_needed_by_hand() -> None:
    # A mean of a tenth of the standard deviation: ((1.96 + 0.84) * 10)^2.
    assert needed(np.array([0.1]), np.array([1.0]))[0] == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) ** 2 * 100)
    assert needed(np.array([0.0, -0.1]), np.array([1.0, 1.0])).tolist() == [np.inf, np.inf]


def test_an_ab_test_shows_each_arm_half_of_the_impressions() -> None:
    # The difference of two means has the variances of both arms, each from half of the impressions.
    values = np.random.default_rng(1).normal([0.3, 0.1], 1.0, (1000, 2))
    everything = np.ones((1, 1000), dtype=np.bool_)
    (found,) = impressions_needed(values, everything)
    mean, variance = values.mean(axis=0), values.var(axis=0)
    per_arm = needed(np.array([mean[0] - mean[1]]), np.array([variance.sum()]))[0]
    assert found == pytest.approx(2 * per_arm)


def test_every_method_finds_the_ideal_ranker_in_fewer_impressions_than_an_ab_test() -> None:
    queries = make_queries(100, 1.0, seed=3)
    asked = np.random.default_rng(3).integers(100, size=3000)
    shown = {method: interleaved(method, queries, asked) for method in METHODS}
    arms = [
        np.take_along_axis(queries.relevance, each[:, :10], axis=1)[asked] for each in (queries.ideal, queries.worse)
    ]
    found = compare_methods(shown, arms, asked, CLICKERS["perfect"], seed=3)
    assert set(found) == {*METHODS, *AB_METRICS}
    assert max(found[name].ratio for name in AB_METRICS) == 1
    for method in METHODS:
        assert found[method].ratio - 4 * found[method].error > 1
        assert found[method].power == pytest.approx(0.8, abs=0.08)


def test_the_ideal_ranker_is_ideal() -> None:
    queries = make_queries(20, 1.0, seed=4)
    assert ndcg(queries, queries.ideal) == pytest.approx(1)
    assert ndcg(queries, queries.worse) < 0.95


def test_costs_are_told_for_each_method() -> None:
    found = costs(seed=5, lists=3)
    assert set(found) == {"team_draft", "probabilistic", "optimised, new rankings", "optimised, seen before"}
    assert all(0 <= cost.median <= cost.p99 for cost in found.values())
