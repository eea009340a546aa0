import numpy as np
import pytest

from analysis.statistics.hindsight import look_back


def test_three_values_by_hand() -> None:
    """Arm 0 at share 1/2 had 1 and 0, arm 1 at share 1/4 had 1: weighted means 1/2 and 1."""
    found = look_back([2, 1], [2.0, 4.0], [4.0, 4.0], decrease=False)
    assert found.means.tolist() == [0.5, 1.0]
    assert (found.best, found.regret, found.uniform_regret) == (1, 1.0, 0.75)
    assert look_back([2, 1], [2.0, 4.0], [4.0, 4.0], decrease=True)[1:] == (0, 0.5, 0.75)


def test_nothing_is_said_while_an_arm_has_no_value() -> None:
    found = look_back([2, 0], [1.0, 0.0], [2.0, 0.0], decrease=False)
    assert found.best == -1
    assert np.isnan([found.means[1], found.regret, found.uniform_regret]).all()


def test_arms_that_are_alike_cost_nothing() -> None:
    assert look_back([5, 1], [5.0, 2.0], [10.0, 4.0], decrease=False)[1:] == (0, 0.0, 0.0)


@pytest.mark.parametrize("decrease", [False, True])
def test_loop_over_decisions_finds_the_same(decrease: bool) -> None:
    chance = np.random.default_rng(4)
    arms = chance.integers(0, 3, 200)
    values, shares = chance.normal(size=200), chance.uniform(0.1, 0.9, 200)
    means = []
    for arm in range(3):
        mine = [(v, 1 / p) for a, v, p in zip(arms, values, shares, strict=True) if a == arm]
        means.append(sum(v * w for v, w in mine) / sum(w for _, w in mine))
    best = min(means) if decrease else max(means)
    expected = sum(abs(means[arm] - best) for arm in arms), sum(abs(mean - best) * 200 / 3 for mean in means)
    sums = np.bincount(arms, values / shares), np.bincount(arms, 1 / shares)
    found = look_back(np.bincount(arms), *sums, decrease=decrease)
    assert found.means == pytest.approx(means)
    assert (found.regret, found.uniform_regret) == pytest.approx(expected)


def run(chance: np.random.Generator, rounds: int = 2000) -> tuple[float, float, float]:
    """Two arms 0.2 apart in a world that gets worse, where the better arm gets more and more traffic."""
    world = np.linspace(0.7, 0.1, rounds)
    share = np.linspace(0.5, 0.9, rounds)
    arm = (chance.random(rounds) < share).astype(int)
    value = (chance.random(rounds) < world + 0.2 * arm).astype(float)
    propensity = np.where(arm, share, 1 - share)
    found = look_back(
        np.bincount(arm), np.bincount(arm, value / propensity), np.bincount(arm, 1 / propensity), decrease=False
    )
    return found.regret, found.uniform_regret, value[arm == 1].mean() - value[arm == 0].mean()


def test_regret_is_found_where_plain_means_say_the_opposite() -> None:
    found = np.array([run(np.random.default_rng(seed)) for seed in range(200)])
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    regret, uniform, plain = found.mean(axis=0)
    # The worse arm gets 0.3 of the traffic on average, and would get half.
    assert abs(regret - 0.3 * 2000 * 0.2) < 4 * error[0] + 1
    assert abs(uniform - 0.5 * 2000 * 0.2) < 4 * error[1] + 1
    assert plain < 0.2 - 20 * error[2]
