import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize

from analysis.statistics.bradley_terry import bradley_terry, wins_of
from analysis.statistics.interleaving import compare_pairs

Floats = NDArray[np.float64]


def drawn(strengths: Sequence[float], matches: int, generator: np.random.Generator) -> Floats:
    wins = np.zeros((len(strengths), len(strengths)))
    for i in range(len(strengths)):
        for j in range(i):
            wins[i, j] = generator.binomial(matches, 1 / (1 + math.exp(strengths[j] - strengths[i])))
            wins[j, i] = matches - wins[i, j]
    return wins


def test_two_rankers_by_hand() -> None:
    # Three wins of four: the odds are 3, and the variance of a log of odds is 1 / 3 + 1 / 1.
    found = bradley_terry([[0, 3], [1, 0]])
    assert found.strengths == pytest.approx([math.log(3) / 2, -math.log(3) / 2])
    assert found.difference(0, 1) == pytest.approx((math.log(3), math.sqrt(1 / 3 + 1)))
    assert found.errors == pytest.approx([math.sqrt(1 / 3 + 1) / 2] * 2)
    assert found.win_probabilities()[0] == pytest.approx([0.5, 0.75])


def test_whoever_never_met_is_compared_through_a_third() -> None:
    # Odds of 2 and of 3 multiply, and variances add.
    found = bradley_terry([[0, 20, 0], [10, 0, 30], [0, 10, 0]])
    assert found.difference(0, 2) == pytest.approx((math.log(6), math.sqrt(1 / 20 + 1 / 10 + 1 / 30 + 1 / 10)))


def test_strengths_and_errors_are_those_of_general_optimisation() -> None:
    wins = drawn([0.5, 0.1, -0.2, -0.4, 0.0], 40, np.random.default_rng(1))
    found = bradley_terry(wins)

    def minus_log_likelihood(free: Floats) -> float:
        s = np.append(free, -free.sum())
        return float((wins * np.log1p(np.exp(s - s[:, np.newaxis]))).sum())

    best = optimize.minimize(minus_log_likelihood, np.zeros(4), method="BFGS", options={"gtol": 1e-7})
    assert found.strengths[:4] == pytest.approx(best.x, abs=1e-6)
    # The inverse Hessian of BFGS is an approximation; differences of the likelihood are better.
    step = 1e-3
    units = np.eye(4) * step
    hessian = np.array(
        [
            [
                sum(
                    a * b * minus_log_likelihood(best.x + a * units[i] + b * units[j]) for a in (-1, 1) for b in (-1, 1)
                )
                for j in range(4)
            ]
            for i in range(4)
        ]
    ) / (4 * step**2)
    assert found.covariance[:4, :4] == pytest.approx(np.linalg.inv(hessian), rel=1e-3)


@pytest.mark.parametrize(
    ("wins", "groups"),
    [
        ([[0, 5, 0], [3, 0, 0], [0, 0, 0]], 2),
        ([[0, 5, 2], [3, 0, 1], [0, 0, 0]], 2),
        ([[0, 5], [0, 0]], 2),
        ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], 1),
    ],
)
def test_rankers_that_cannot_be_compared_have_no_strengths(wins: list[list[int]], groups: int) -> None:
    found = bradley_terry(wins)
    assert len(set(found.groups.tolist())) == groups
    assert found.connected == (groups == 1)
    assert np.isnan(found.strengths).all() == (groups > 1)


def test_single_comparisons_as_units_have_nearly_the_errors_of_independent_ones() -> None:
    wins = drawn([0.3, 0.0, -0.3], 400, np.random.default_rng(2))
    single = np.concatenate([np.repeat(one[np.newaxis], wins[place], axis=0) for place, one in unit_matrices(3)])
    by_unit, independent = bradley_terry(single), bradley_terry(wins)
    assert by_unit.strengths == pytest.approx(independent.strengths)
    assert by_unit.errors == pytest.approx(independent.errors, rel=0.03)


def unit_matrices(rankers: int) -> list[tuple[tuple[int, int], Floats]]:
    found = []
    for i in range(rankers):
        for j in range(rankers):
            if i != j:
                matrix = np.zeros((rankers, rankers))
                matrix[i, j] = 1
                found.append(((i, j), matrix))
    return found


def test_intervals_by_unit_cover_where_those_of_impressions_do_not() -> None:
    generator = np.random.default_rng(3)
    runs, units = 250, 80
    covered = np.zeros(2)
    for _ in range(runs):
        # A unit has a taste of its own in all of its five rounds; all together prefer nobody.
        taste = generator.normal(0, 1.5, (units, 3))
        wins = np.stack([drawn(each.tolist(), 5, generator) for each in taste])
        for place, found in enumerate((bradley_terry(wins), bradley_terry(wins.sum(axis=0)))):
            difference, error = found.difference(0, 2)
            covered[place] += abs(difference) <= 1.96 * error
    tolerance = 4 * math.sqrt(0.95 * 0.05 / runs)
    assert covered[0] / runs > 0.95 - tolerance - 0.01
    assert covered[1] / runs < 0.9


def test_wins_of_a_multileaving() -> None:
    pairs = compare_pairs([[1, 0, 0], [0, 2, 1], [0, 0, 1]], [[True] * 3, [True] * 3, [False, True, True]], [1, 2, 3])
    wins = wins_of(pairs, 3)
    assert wins.tolist() == [[0, 1, 1], [1, 0, 1.5], [1, 1.5, 0]]
    assert bradley_terry(wins).connected


@pytest.mark.parametrize("wins", [[[1, 2], [2, 0]], [[0, -1], [1, 0]], [[0, math.nan], [1, 0]], [[0, 1]]])
def test_what_are_no_wins_is_refused(wins: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="wins"):
        bradley_terry(wins)
