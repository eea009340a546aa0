import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.sequential_ratio import (
    dirichlet_evidence,
    sequential_ratio,
    single_arm_tilts,
    tilted_evidence,
)

Floats = NDArray[np.float64]


def test_evidence_of_one_tilt_by_hand() -> None:
    # An arm that gets twice its traffic: (2 / 1.5)^2 (1 / 1.5), then once more with the shares 1/4 and 3/4.
    found = tilted_evidence([[2, 1], [1, 0]], [[0.5, 0.5], [0.25, 0.75]], tilts=np.log([[2, 1]]))
    assert np.exp(found) == pytest.approx([(4 / 3) ** 2 * (2 / 3), (4 / 3) ** 2 * (2 / 3) * 2 / 1.25])


def test_dirichlet_evidence_by_hand() -> None:
    # Beta(1, 1) against a fair coin: 2 heads of 3 are 1 of 4 times 3, so 1 / 12, against 1 / 8.
    assert np.exp(dirichlet_evidence([[2, 1]], [[0.5, 0.5]], concentration=2)) == pytest.approx([8 / 12])


def test_both_have_mean_1_over_all_that_can_happen() -> None:
    # Exactly: all sequences of three draws, each with shares that follow from the draw before.
    shares = {(): [0.5, 0.3, 0.2], 0: [0.2, 0.2, 0.6], 1: [0.5, 0.3, 0.2], 2: [0.7, 0.3, 0.0]}
    means = np.zeros(3)
    for arms in product(range(3), repeat=3):
        promised = [shares[before] for before in ((), *arms[:2])]
        chance = math.prod(p[arm] for p, arm in zip(promised, arms, strict=True))
        if chance > 0:
            draws = np.eye(3)[list(arms)]
            means += chance * np.exp(
                [
                    tilted_evidence(draws, promised)[-1],
                    dirichlet_evidence(draws, promised, concentration=4)[-1],
                    sequential_ratio(draws, promised).log_e_values[-1],
                ]
            )
    assert means == pytest.approx(np.ones(3), abs=1e-10)


def test_tilted_evidence_is_the_product_over_single_decisions() -> None:
    generator = np.random.default_rng(1)
    draws, shares = generator.integers(0, 4, (6, 3)), generator.dirichlet(np.ones(3), 6)
    tilts = np.exp(single_arm_tilts(3))
    evidence = [Fraction(1)] * len(tilts)
    for counts, promised in zip(draws, shares, strict=True):
        for number, tilt in enumerate(tilts):
            expected = sum(Fraction(p) * Fraction(t) for p, t in zip(promised, tilt, strict=True))
            for arm, count in enumerate(counts):
                evidence[number] *= (Fraction(tilt[arm]) / expected) ** int(count)
    assert tilted_evidence(draws, shares)[-1] == pytest.approx(math.log(sum(evidence) / len(tilts)), rel=1e-12)


def test_many_periods_are_the_sum_of_single_ones() -> None:
    generator = np.random.default_rng(2)
    shares = generator.dirichlet([5.0, 5.0], 25_000)
    draws = generator.multinomial(20, shares)
    tilt = np.log([[1.01, 1.0]])
    steps = draws[:, 0] * tilt[0, 0] - 20 * np.log1p(0.01 * shares[:, 0])
    assert tilted_evidence(draws, shares, tilts=tilt) == pytest.approx(np.cumsum(steps), abs=1e-9)


def test_dirichlet_evidence_is_a_ratio_of_probabilities() -> None:
    counts, shares = [130, 80, 40], np.array([0.5, 0.3, 0.2])
    marginal = stats.dirichlet_multinomial(50 * shares, [250]).logpmf(counts)
    found = dirichlet_evidence([[100, 50, 20], [30, 30, 20]], [shares, shares], concentration=50)
    assert found[-1] == pytest.approx(marginal - stats.multinomial(250, shares).logpmf(counts))


def test_dirichlet_evidence_stops_where_shares_change() -> None:
    shares = [[0.5, 0.5], [0.0, 0.0], [0.5, 0.5], [0.4, 0.6], [0.5, 0.5]]
    found = dirichlet_evidence([[60, 40], [0, 0], [50, 50], [10, 90], [90, 10]], shares)
    assert found[2:].tolist() == [found[2]] * 3
    assert found[1] == found[0]


def test_a_draw_without_share_is_a_mismatch_for_good() -> None:
    shares = [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]
    found = sequential_ratio([[5, 5], [5, 5], [5, 1], [5, 5]], shares)
    assert np.isinf(found.log_e_values).tolist() == [False, False, True, True]
    assert found.mismatch
    assert found.p_value == 0


def test_without_periods_nothing_is_known() -> None:
    found = sequential_ratio(np.zeros((0, 2)), np.zeros((0, 2)))
    assert (found.p_value, found.mismatch) == (1.0, False)
    assert sequential_ratio([[0, 0]], [[0, 0]]).p_value == 1.0


@pytest.mark.parametrize(
    ("draws", "shares"), [([[1, 2]], [[0.5, 0.4]]), ([[1, 2]], [[1.5, -0.5]]), ([[1]], [[0.5, 0.5]])]
)
def test_what_are_no_shares_is_refused(draws: list[list[int]], shares: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="shares"):
        sequential_ratio(draws, shares)


def swinging(generator: np.random.Generator, periods: int, lost: float) -> tuple[Floats, Floats]:
    """Return draws and shares of three arms, of which one has nearly all traffic, by turns; the last loses some."""
    leading = generator.integers(0, 3, periods)
    shares = np.where(np.arange(3) == leading[:, np.newaxis], 0.96, 0.02)
    actual = shares * np.array([1, 1, 1 - lost])
    return generator.multinomial(500, actual / actual.sum(axis=1, keepdims=True)).astype(np.float64), shares


@pytest.mark.parametrize("moving", [False, True])
def test_an_honest_split_is_rarely_rejected_at_any_look(moving: bool) -> None:
    generator = np.random.default_rng(5)
    repetitions, level = 250, 0.05
    rejected = 0
    for _ in range(repetitions):
        draws, shares = swinging(generator, 200, 0.0)
        if not moving:
            shares = np.full((200, 3), 1 / 3)
            draws = generator.multinomial(500, shares[0], 200).astype(np.float64)
        rejected += sequential_ratio(draws, shares).p_value < level
    assert rejected / repetitions <= level + 4 * math.sqrt(level * (1 - level) / repetitions)


def test_a_loss_is_found_where_pooled_counts_hide_it() -> None:
    generator = np.random.default_rng(6)
    found, pooled = 0, 0
    for _ in range(50):
        draws, shares = swinging(generator, 600, 0.1)
        found += sequential_ratio(draws, shares).mismatch
        expected = (draws.sum(axis=1, keepdims=True) * shares).sum(axis=0)
        pooled += stats.chisquare(draws.sum(axis=0), expected).pvalue < 0.001
    # Both rates are far from the middle, so that 50 repetitions tell them apart by more than ten standard errors.
    assert found > 45
    assert pooled < 5
