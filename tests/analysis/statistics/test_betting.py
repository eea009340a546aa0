import math

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.statistics.betting import Draws, arm_draws, contrast_draws, covers, log_capital, sequence

Floats = NDArray[np.float64]

SIZES = (16, 8, 4, 2, 1, 0.5, 0.25)


def made_up(seed: int, periods: int = 8) -> tuple[Floats, Floats, Floats]:
    generator = np.random.default_rng(seed)
    e = generator.dirichlet([4.0, 4.0, 4.0], periods) * 0.7 + 0.1
    counts = np.array([generator.multinomial(60, each) for each in e])
    return e, counts.astype(np.float64), generator.binomial(counts, [0.2, 0.3, 0.6]).astype(np.float64)


def test_capital_by_hand() -> None:
    # Before the first period the variance is that of the made-up value, (1 - 0) / 4: bets are 4 or less.
    draws = Draws(np.array([[1.0, 0.0]]), np.array([[3.0, 1.0]]), np.zeros(1))
    alpha, planned, mean = 0.05, 100.0, 0.25
    best = math.sqrt(2 * math.log(20) / (100 * 0.25))
    bets = [min(size * best, 0.75 / mean) for size in SIZES]
    expected = sum((1 + bet * 0.75) ** 3 * (1 - bet * 0.25) for bet in bets) / 7
    assert math.exp(log_capital(draws, [mean], planned, alpha).item()) == pytest.approx(expected)


def scores_of_rows(e: Floats, counts: Floats, totals: Floats) -> list[list[Floats]]:
    """The scores of all arms, decision by decision, for each period; guesses are means with one 0 and one 1 more."""
    found = []
    for period in range(len(e)):
        guess = (totals[:period].sum(axis=0) + 1) / (counts[:period].sum(axis=0) + 2)
        rows = []
        for arm in range(e.shape[1]):
            for number in range(int(counts[period, arm])):
                score = guess.copy()
                score[arm] += ((number < totals[period, arm]) - guess[arm]) / e[period, arm]
                rows.append(score)
        found.append(rows)
    return found


@pytest.mark.parametrize("mean", [0.1, 0.3, 1.2])
def test_capital_is_that_of_bets_one_by_one(mean: float) -> None:
    e, counts, totals = made_up(1)
    alpha, planned = 0.025, 400.0
    draws = contrast_draws(e, counts, totals, 2, 0).lower
    capital = np.ones(len(SIZES))
    past: list[float] = []
    first_guess = 0.5
    prior = (1 - (2 * first_guess - max(first_guess / e[0, 2], first_guess / e[0, 0]))) / 4
    for period, rows in enumerate(scores_of_rows(e, counts, totals)):
        guess = (totals[:period].sum(axis=0) + 1) / (counts[:period].sum(axis=0) + 2)
        least = guess[2] + 1 - guess[0] - max(guess[2] / e[period, 2], (1 - guess[0]) / e[period, 0])
        variance = (prior + (np.var(past) * len(past) if past else 0.0)) / (1 + len(past))
        bets = np.minimum(
            np.array(SIZES) * math.sqrt(2 * math.log(1 / alpha) / (planned * variance)), 0.75 / (mean - least)
        )
        values = [1 + row[2] - row[0] for row in rows]
        for value in values:
            assert value >= least - 1e-12
            capital *= 1 + bets * (value - mean)
        past += values
        found = log_capital(draws, [mean], planned, alpha)[period].item()
        assert found == pytest.approx(math.log(capital.mean()))


def test_means_of_draws_are_the_parameters() -> None:
    """Summed over arms and outcomes with their probabilities, a draw is what it bounds."""
    e, truth = np.array([[0.2, 0.3, 0.5]]), np.array([[0.2, 0.3, 0.6]])
    cases = [(arm_draws(e, e, e * truth, 1), 0.3), (contrast_draws(e, e, e * truth, 2, 0), 0.4)]
    for pair, parameter in cases:
        assert (pair.lower.values * pair.lower.counts).sum() == pytest.approx(parameter - pair.low)
        assert (pair.upper.values * pair.upper.counts).sum() == pytest.approx(pair.high - parameter)
        for draws in (pair.lower, pair.upper):
            assert draws.values.min() == pytest.approx(draws.least.item())


def test_sequence_is_where_capital_is_small() -> None:
    e, counts, totals = made_up(2, periods=30)
    pair = arm_draws(e, counts, totals, 2)
    low, high = sequence(pair, planned=1800)
    assert (low <= 0.6).all()
    assert (high >= 0.6).all()
    assert high[-1] - low[-1] < 0.25
    for look in (5, 29):
        assert not covers(pair, low[look] - 1e-9, 1800)[look]
        assert not covers(pair, high[look] + 1e-9, 1800)[look]
        # Rounded outwards by less than a step of the grid, which is pi / 4000 at most.
        assert covers(pair, low[look] + math.pi / 4000, 1800)[look]
        assert covers(pair, high[look] - math.pi / 4000, 1800)[look]


def test_capital_falls_as_the_mean_rises() -> None:
    pair = arm_draws(*made_up(3), 0)
    found = log_capital(pair.lower, np.linspace(0, 1, 101), 500, 0.05)
    assert (np.diff(found, axis=-1) <= 1e-12).all()


def test_runs_are_independent_of_each_other() -> None:
    sets = [made_up(seed) for seed in (4, 5)]
    e, counts, totals = (np.stack(each) for each in zip(*sets, strict=True))
    both = arm_draws(e, counts, totals, 1)
    low, high = sequence(both, planned=500, grid=200)
    for number, one in enumerate(sets):
        alone = sequence(arm_draws(*one, 1), planned=500, grid=200)
        assert low[number] == pytest.approx(alone.low)
        assert high[number] == pytest.approx(alone.high)


def test_sums_of_fractions_never_gain_over_their_rows() -> None:
    generator = np.random.default_rng(6)
    outcomes = generator.beta(2, 3, 400)
    e, ones = np.full((400, 2), 0.5), np.stack([np.ones(400), np.zeros(400)], axis=1)
    totals = np.stack([outcomes, np.zeros(400)], axis=1)
    sums = arm_draws(e, ones, totals, 0).lower
    # The same decisions, but each with the score that it had.
    guess = sums.values[:, 0]
    rows = Draws((guess + (outcomes - guess) / 0.5)[:, np.newaxis], np.ones((400, 1)), sums.least)
    exact = np.log(_capital_with_bets_of(sums, rows, 0.3))
    assert (log_capital(sums, [0.3], 400, 0.05)[:, 0] <= exact + 1e-9).all()


def _capital_with_bets_of(sums: Draws, rows: Draws, mean: float) -> Floats:
    """Capital of the bets that the sums would lay, on the rows' own values."""
    n = np.cumsum(sums.counts.sum(axis=1)) - sums.counts.sum(axis=1)
    first, second = ((sums.counts * sums.values**power).sum(axis=1) for power in (1, 2))
    total, squares = np.cumsum(first) - first, np.cumsum(second) - second
    variance = ((1 - sums.least[0]) / 4 + squares - total**2 / np.maximum(n, 1)) / (1 + n)
    capital = np.zeros(len(n))
    for size in SIZES:
        bets = np.minimum(size * np.sqrt(2 * math.log(20) / (400 * variance)), 0.75 / (mean - sums.least))
        capital += np.cumprod(1 + bets * (rows.values[:, 0] - mean)) / len(SIZES)
    return capital


def test_betting_refuses_what_is_not_bounded() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        arm_draws([[0.5, 0.5]], [[1, 1]], [[1.5, 0]], 0)
    with pytest.raises(ValueError, match="leave that period out"):
        arm_draws([[0.0, 1.0]], [[0, 1]], [[0, 0]], 0)
    with pytest.raises(ValueError, match="must not be negative"):
        log_capital(arm_draws([[0.5, 0.5]], [[1, 1]], [[1, 0]], 0).lower, [-0.1], 10, 0.05)


TRUTH = (0.05, 0.09)


@pytest.mark.parametrize("least", [0.05, 0.002])
def test_betting_covers_at_every_look_while_shares_follow_the_outcomes(least: float) -> None:
    """A rule that flees an arm as soon as it disappoints, which is the worst for its estimate."""
    runs, looks, batch = 1000, 60, 50
    generator = np.random.default_rng(7)
    n, won = np.zeros((runs, 2)), np.zeros((runs, 2))
    seen = []
    for _ in range(looks):
        better = (won[:, 1] + 1) / (n[:, 1] + 2) > (won[:, 0] + 1) / (n[:, 0] + 2)
        second = np.where(better, 1 - least, least)
        k = generator.binomial(batch, second)
        counts = np.stack([batch - k, k], axis=1)
        totals = generator.binomial(counts, TRUTH)
        n, won = n + counts, won + totals
        seen.append((np.stack([1 - second, second], axis=1), counts, totals))
    e, number, total = (np.stack(each, axis=1) for each in zip(*seen, strict=True))
    for pair, truth in (
        (arm_draws(e, number, total, 0), TRUTH[0]),
        (arm_draws(e, number, total, 1), TRUTH[1]),
        (contrast_draws(e, number, total, 1, 0), TRUTH[1] - TRUTH[0]),
    ):
        rate = 1 - float(covers(pair, truth, looks * batch).all(axis=1).mean())
        assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
