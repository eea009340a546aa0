import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.sample_ratio import sample_ratio


def test_one_epoch_is_the_chi_square_test() -> None:
    result = sample_ratio([[480, 320, 200]], [[0.5, 0.3, 0.2]])
    expected = stats.chisquare([480, 320, 200], [500, 300, 200])
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.degrees_of_freedom == 2


def test_epochs_add_up() -> None:
    result = sample_ratio([[90, 10], [40, 60]], [[0.9, 0.1], [0.5, 0.5]])
    assert result.statistic == pytest.approx(4.0)
    assert result.degrees_of_freedom == 2
    assert result.p_value == pytest.approx(math.exp(-2.0))


def test_swing_that_pooling_would_hide_is_found() -> None:
    draws = np.array([[450, 550], [550, 450]])
    assert sample_ratio([draws.sum(axis=0)], [[0.5, 0.5]]).p_value == 1.0
    assert sample_ratio(draws, [[0.5, 0.5], [0.5, 0.5]]).mismatch


def test_arm_without_share_is_left_out_until_it_is_drawn() -> None:
    assert sample_ratio([[50, 50, 0]], [[0.5, 0.5, 0.0]]).degrees_of_freedom == 1
    drawn = sample_ratio([[50, 50, 1]], [[0.5, 0.5, 0.0]])
    assert drawn.mismatch
    assert drawn.p_value == 0.0


@pytest.mark.parametrize("draws", [[[0, 0]], [[3, 1]], np.zeros((0, 2))])
def test_too_little_traffic_is_not_tested(draws: list[list[int]]) -> None:
    result = sample_ratio(draws, np.full(np.shape(draws), 0.5))
    assert math.isnan(result.p_value)
    assert not result.mismatch


def test_thin_epoch_is_left_out_of_the_others() -> None:
    thin = sample_ratio([[90, 10], [0, 4]], [[0.9, 0.1], [0.5, 0.5]])
    assert thin == sample_ratio([[90, 10]], [[0.9, 0.1]])


def test_honest_split_is_rejected_as_often_as_the_level_says() -> None:
    generator = np.random.default_rng(7)
    replications, level = 4000, 0.05
    shares = np.array([[0.7, 0.2, 0.1], [0.2, 0.4, 0.4]])
    p_values = np.array(
        [
            sample_ratio([generator.multinomial(300, shares[0]), generator.multinomial(500, shares[1])], shares).p_value
            for _ in range(replications)
        ]
    )
    tolerance = 4 * math.sqrt(level * (1 - level) / replications)
    assert np.mean(p_values < level) == pytest.approx(level, abs=tolerance)
