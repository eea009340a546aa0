import math
from collections import Counter

import numpy as np
import pytest

from bench.regret import EPOCH, Setting, _draw, bound, play, uniform


def regrets(setting: Setting) -> list[float]:
    sources = np.random.SeedSequence(4).spawn(setting.repetitions)
    return [play(setting, source)[-1] for source in sources]


def test_bound_of_two_arms_by_hand() -> None:
    setting = Setting(arms=2, gap=0.25, rounds=1000, repetitions=1)
    divergence = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert bound(setting) == pytest.approx(0.25 / divergence)
    assert uniform(setting) == 125.0


def test_bandit_regrets_much_less_than_uniform_allocation() -> None:
    setting = Setting(arms=3, gap=0.2, rounds=20_000, repetitions=4)
    assert max(regrets(setting)) < uniform(setting) / 10


def test_floor_costs_the_same_in_every_round() -> None:
    setting = Setting(arms=3, gap=0.2, rounds=20_000, repetitions=4, floor=0.1)
    own = setting.floor * setting.arms * uniform(setting)
    assert own < np.mean(regrets(setting)) < own + uniform(setting) / 10


@pytest.mark.parametrize("delay", [0, 1, 10, 99, 100, 250])
def test_outcomes_are_known_at_the_first_update_after_their_delay(delay: int) -> None:
    setting = Setting(arms=2, gap=0.1, rounds=1000, repetitions=1, delay=delay)
    drawn = _draw(setting, np.zeros(10_000, np.uint8), 7, np.random.default_rng(1))
    expected = Counter(7 + math.ceil((rounds + delay) / EPOCH) for rounds in range(1, EPOCH + 1))
    assert {known_at: int(counts.sum()) for known_at, counts in drawn} == expected


def test_nothing_is_learnt_while_nothing_is_known() -> None:
    # The other arm never wins and its share falls as soon as anything is known: here, only after the first 500 rounds.
    setting = Setting(arms=2, gap=0.5, rounds=50_000, repetitions=20, delay=400)
    blind = [play(setting, source)[0] for source in np.random.SeedSequence(1).spawn(setting.repetitions)]
    error = 0.5 * math.sqrt(0.25 * 500 / setting.repetitions)
    assert np.mean(blind) == pytest.approx(0.5 * 500 / 2, abs=5 * error)


def test_half_life_finds_a_swapped_arm_again() -> None:
    forgetful = Setting(arms=2, gap=0.4, rounds=20_000, repetitions=3, half_life=500, swapped=True)
    assert np.mean(regrets(forgetful)) < np.mean(regrets(forgetful._replace(half_life=None))) / 4
