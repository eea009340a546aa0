import math
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics import adaptive
from analysis.statistics.adaptive import Scores, increments, linearised, overlap_weights, scores
from analysis.statistics.adaptive_weights import weighted_contrast, weighted_mean
from analysis.statistics.best_arm import best_arm_probabilities
from analysis.statistics.cells import Cells, Visits, cells_of, past_means
from analysis.statistics.effects import Estimate, bounded_mean, contrast, lift, log_evidence, mean
from analysis.statistics.posteriors import beta_posteriors
from analysis.statistics.sequences import always_valid_p_values, gamma_exponential, lyapunov_sequence, mixture_rho

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


class Rows(NamedTuple):
    """Decisions one by one: period, arm, propensities of the period and values."""

    period: Ints
    arm: Ints
    propensities: Floats
    values: Floats

    @property
    def cells(self) -> Cells:
        periods, arms = self.propensities.shape
        counts, totals = np.zeros((periods, arms)), np.zeros((periods, arms, self.values.shape[1]))
        products = np.zeros((*totals.shape, self.values.shape[1]))
        np.add.at(counts, (self.period, self.arm), 1.0)
        np.add.at(totals, (self.period, self.arm), self.values)
        np.add.at(products, (self.period, self.arm), self.values[:, :, np.newaxis] * self.values[:, np.newaxis, :])
        return cells_of(self.propensities, counts, totals, products)


def made_up(seed: int, periods: int = 12, arms: int = 3, values: int = 1, size: int = 80) -> Rows:
    generator = np.random.default_rng(seed)
    propensities = generator.dirichlet(np.full(arms, 5.0), periods) * 0.7 + 0.1
    period = np.repeat(np.arange(periods), size)
    arm = (generator.random(len(period))[:, np.newaxis] > np.cumsum(propensities, axis=1)[period]).sum(axis=1)
    drawn = generator.gamma(2.0, 1.0 + arm[:, np.newaxis], (len(period), values)) + np.arange(values) * 3
    return Rows(period, arm, propensities, drawn)


def row_by_row(rows: Rows, first: int) -> Floats:
    """Return x = (1, G) of every decision from the period `first` on, each G from the rows before its period."""
    periods, arms = rows.propensities.shape
    pasts = {
        (period, arm): rows.values[(rows.period < period) & (rows.arm == arm)].mean(axis=0)
        for period in range(first, periods)
        for arm in range(arms)
    }
    found = []
    for period, arm, value in zip(rows.period, rows.arm, rows.values, strict=True):
        if period < first:
            continue
        entries = [1.0]
        for other in range(arms):
            past = pasts[period, other]
            correction = (value - past) / rows.propensities[period, other] if arm == other else 0.0
            entries += (past + correction).tolist()
        found.append(entries)
    return np.array(found)


def plain(cells: Cells) -> Scores:
    """Scores with the variance of the weighted values alone."""
    return scores(cells)._replace(products=np.cumsum(increments(cells)[1], axis=-3))


def with_least(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    monkeypatch.setattr(adaptive, "LEAST_VALUES", least)


def test_scores_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    with_least(monkeypatch, 2)
    # Arm 0 had 1 and 3 in the pilot, arm 1 had 0 and 2. Then arm 0, with propensity 1/4, gets 6.
    cells = cells_of([[0.5, 0.5], [0.25, 0.75]], [[2, 2], [1, 0]], [[4.0, 2.0], [6.0, 0.0]], [[10.0, 4.0], [36.0, 0.0]])
    assert past_means(cells)[1, :, 0].tolist() == [2.0, 1.0]
    sums, products = increments(cells)
    assert sums.tolist() == [[0, 0, 0], [1, 2 + 4 * (6 - 2), 1]]
    assert products[1].tolist() == [[1, 18, 1], [18, 324, 18], [1, 18, 1]]
    found = scores(cells)
    assert found.started.tolist() == [False, True]
    # In the pilot the deviations are 1, and weights 2: 2 values of 4 with 2^2 * 1.
    assert found.scale.tolist() == [[0, 0, 0], [0, 2, 0], [0, 0, 2]]


@pytest.mark.parametrize("values", [1, 2])
def test_cells_give_the_scores_of_their_rows(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    with_least(monkeypatch, 10)
    rows = made_up(1, values=values)
    found = plain(rows.cells)
    first = int(np.argmax(found.started))
    assert first == 1
    expected = row_by_row(rows, first)
    assert found.totals[-1] == pytest.approx(expected.sum(axis=0))
    assert found.products[-1] == pytest.approx(expected.T @ expected)
    half = expected[: 5 * 80]
    assert found.products[first + 4] == pytest.approx(half.T @ half)


def test_weights_count_every_score_of_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    with_least(monkeypatch, 10)
    rows = made_up(2)
    weights = overlap_weights(rows.propensities, 2, 0)
    assert weights == pytest.approx(1 / (1 / rows.propensities[:, 2] + 1 / rows.propensities[:, 0]))
    expected = row_by_row(rows, 1) * weights[rows.period[rows.period > 0], np.newaxis]
    found = scores(rows.cells, weights=weights)
    assert found.totals[-1] == pytest.approx(expected.sum(axis=0))
    assert increments(rows.cells, weights)[1].sum(axis=0) == pytest.approx(expected.T @ expected)


def test_variance_is_at_least_that_of_all_values_of_the_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    with_least(monkeypatch, 10)
    rows = made_up(3, size=150)
    cells, found = rows.cells, scores(rows.cells)
    extra = found.products[-1] - plain(cells).products[-1]
    for arm in range(3):
        mine = rows.arm == arm
        later = mine & (rows.period > 0)
        weight = 1 / rows.propensities[rows.period[later], arm] ** 2
        past = past_means(cells)[rows.period[later], arm, 0]
        centre, variance = rows.values[mine, 0].mean(), rows.values[mine, 0].var(ddof=1)
        expected = (weight * (variance + (centre - past) ** 2)).sum()
        observed = (weight * (rows.values[later, 0] - past) ** 2).sum()
        assert extra[1 + arm, 1 + arm] == pytest.approx(max(expected - observed, 0.0), abs=1e-6)


def test_visits_of_one_decision_each_are_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    with_least(monkeypatch, 10)
    rows = made_up(4, values=2)
    found = scores(rows.cells, visits_of(rows, np.arange(len(rows.arm))))
    expected = scores(rows.cells)
    assert found.products == pytest.approx(expected.products)
    assert found.totals == pytest.approx(expected.totals)


def test_products_of_visits_are_of_units(monkeypatch: pytest.MonkeyPatch) -> None:
    with_least(monkeypatch, 10)
    rows = made_up(5)
    units = np.random.default_rng(0).integers(40, size=len(rows.arm))
    cells = rows.cells
    found = scores(cells, visits_of(rows, units)).products - (scores(cells).products - plain(cells).products)
    x, unit, period = row_by_row(rows, 1), units[rows.period > 0], rows.period[rows.period > 0]
    for look in (1, 6, 11):
        seen = period <= look
        sums = np.array([x[seen & (unit == one)].sum(axis=0) for one in range(40)])
        assert found[look] == pytest.approx(sums.T @ sums)


def visits_of(rows: Rows, units: Ints) -> Visits:
    weight = (rows.arm[:, np.newaxis] == np.arange(rows.propensities.shape[1])) / rows.propensities[rows.period]
    weighted = weight[:, :, np.newaxis] * rows.values[:, np.newaxis, :]
    return Visits(units, rows.period, np.ones(len(units)), weight, weighted)


def test_pilot_lasts_until_every_arm_has_enough_different_values() -> None:
    counts = np.full((4, 2), 20.0)
    totals = np.array([[0, 4], [0, 4], [2, 4], [2, 4]], dtype=np.float64)
    found = scores(cells_of([0.5, 0.5], counts, totals, totals))
    # After two periods both have 40 values, but those of the first arm are all 0 until the third.
    assert found.started.tolist() == [False, False, False, True]
    estimate = mean(found, 0, planned=1000)
    assert np.isnan(estimate.value[:3]).all()
    assert estimate.interval.low[:3].tolist() == [-math.inf] * 3
    assert always_valid_p_values(log_evidence(found, 1, 0, 1000))[:3].tolist() == [1.0] * 3


def test_propensities_must_be_a_distribution() -> None:
    for wrong in ([0.5, 0.4], [0.0, 1.0]):
        with pytest.raises(ValueError, match="must be positive and sum to 1"):
            cells_of([wrong], [[1, 1]], [[1.0, 1.0]], [[1.0, 1.0]])


def test_ratios_must_be_linearised_first() -> None:
    with pytest.raises(ValueError, match="linearised first"):
        mean(scores(made_up(6, values=2).cells), 0, 100)
    with pytest.raises(ValueError, match="these scores have 1 values"):
        linearised(scores(made_up(6).cells))
    with pytest.raises(ValueError, match="no arm 3 among 3"):
        mean(scores(made_up(6).cells), 3, 100)
    with pytest.raises(ValueError, match="planned number"):
        mean(scores(made_up(6).cells), 0, 0)


def test_interval_of_a_mean_is_the_lyapunov_sequence_where_decisions_are_many() -> None:
    rows = made_up(7, size=4000)
    found = scores(rows.cells)
    estimate = contrast(found, 2, 0, planned=40_000)
    n, total = found.totals[-1, 0], found.totals[-1, 3] - found.totals[-1, 1]
    form = np.array([0.0, -1.0, 0.0, 1.0])
    variance = form @ found.products[-1] @ form - total**2 / n
    low, high = lyapunov_sequence(total / n, variance, n, 40_000 * form @ found.scale @ form, 0.05)
    assert estimate.value[-1] == pytest.approx(total / n)
    # About theta instead of about the estimate the variance is a little larger.
    assert estimate.interval.low[-1] == pytest.approx(float(low), rel=1e-3)
    assert estimate.interval.high[-1] == pytest.approx(float(high), rel=1e-3)


def test_lift_is_inverted_on_a_grid() -> None:
    found = scores(made_up(8, size=200).cells)
    estimate = lift(found, 2, 0, planned=2000)
    low, high = estimate.interval
    assert estimate.value[-1] == pytest.approx(found.totals[-1, 3] / found.totals[-1, 1] - 1)
    for look in (3, 11):
        grid = np.linspace(-3, 12, 100_001)
        inside = []
        for theta in (low[look] + 1e-6, high[look] - 1e-6, low[look] - 1e-6, high[look] + 1e-6, *grid[::500]):
            form = np.array([0.0, -1.0 - theta, 0.0, 1.0])
            s, v = form @ found.totals[look], form @ found.products[look] @ form
            rho = 2000 * form @ found.scale @ form / (2 * math.log(20) + math.log(1 + 2 * math.log(20)))
            inside.append(s * s <= (v + rho) * (math.log1p(v / rho) + 2 * math.log(20)))
        assert inside[:4] == [True, True, False, False]
        assert inside[4:] == [bool(low[look] <= theta <= high[look]) for theta in grid[::500]]


def test_lift_is_unknown_where_the_control_may_be_0() -> None:
    rows = made_up(9, size=300)
    centred = rows._replace(values=rows.values - rows.values[rows.arm == 0].mean())
    estimate = lift(scores(centred.cells), 2, 0, planned=1000)
    assert (estimate.interval.low == -math.inf).all()
    assert (estimate.interval.high == math.inf).all()


def test_p_value_is_below_alpha_where_the_interval_excludes_0() -> None:
    found = scores(made_up(10, size=300).cells)
    for alpha in (0.05, 0.001):
        low, high = contrast(found, 1, 0, planned=3000, alpha=alpha).interval
        evidence = log_evidence(found, 1, 0, planned=3000, alpha=alpha)
        assert (evidence > -math.log(alpha)).tolist() == ((low > 0) | (high < 0)).tolist()
    assert (evidence > -math.log(0.001)).any()


def test_linearised_ratio_is_the_delta_method() -> None:
    rows = made_up(11, values=2, size=2000)
    raw, found = plain(rows.cells), linearised(plain(rows.cells))
    n = raw.totals[-1, 0]
    numerator, denominator = raw.totals[-1, 1] / n, raw.totals[-1, 2] / n
    assert mean(found, 0, planned=20_000).value[-1] == pytest.approx(numerator / denominator)
    x = row_by_row(rows, 1)
    influence = (x[:, 1] - numerator / denominator * x[:, 2]) / denominator
    assert found.products[-1, 1, 1] - found.totals[-1, 1] ** 2 / n == pytest.approx(float(influence @ influence))


def test_fixed_shares_agree_with_the_difference_of_means() -> None:
    generator = np.random.default_rng(12)
    arm, period = generator.integers(2, size=40_000), np.repeat(np.arange(100), 400)
    values = generator.normal(5.0 + 0.1 * arm, 1.0)[:, np.newaxis]
    rows = Rows(period, arm, np.full((100, 2), 0.5), values)
    found = scores(rows.cells)
    y = [values[(arm == one) & (period > 0), 0] for one in (0, 1)]
    error = math.sqrt(sum(each.var(ddof=1) / len(each) for each in y))
    estimate = contrast(found, 1, 0, planned=40_000)
    assert estimate.value[-1] == pytest.approx(y[1].mean() - y[0].mean(), abs=0.1 * error)
    width = (estimate.interval.high - estimate.interval.low)[-1] / (2 * error)
    assert width == pytest.approx(math.sqrt((1 + 1 / 7.936) * (math.log(1 + 7.936) + 2 * math.log(20))), rel=0.02)


def test_weighted_scores_by_brute_force() -> None:
    rows = made_up(13, size=200)
    x, period = row_by_row(rows, 1), rows.period[rows.period > 0]
    e = rows.propensities[period]
    cases = [
        (weighted_mean(rows.cells, rows.propensities, 1), x[:, 2], np.sqrt(e[:, 1])),
        (
            weighted_contrast(rows.cells, rows.propensities, 2, 0),
            x[:, 3] - x[:, 1],
            (1 / e[:, 2] + 1 / e[:, 0]) ** -0.5,
        ),
    ]
    for found, score, h in cases:
        value = (h * score).sum() / h.sum()
        error = math.sqrt((h**2 * (score - value) ** 2).sum()) / h.sum()
        assert found.value.item() == pytest.approx(value)
        assert found.error.item() == pytest.approx(error)
        assert [found.low.item(), found.high.item()] == pytest.approx(stats.norm.interval(0.95, value, error))
    with pytest.raises(ValueError, match="one value per decision"):
        weighted_mean(made_up(13, values=2).cells, rows.propensities, 0)


TRUTH = (0.10, 0.13)


def thompson(runs: int, looks: int, batch: int, floor: float, seed: int) -> tuple[Floats, Cells]:
    """A bandit over two arms; P(best) is that of normal posteriors, by which all runs are played together."""
    generator = np.random.default_rng(seed)
    n, won = np.zeros((runs, 2)), np.zeros((runs, 2))
    shares, counts, totals = [], [], []
    for _ in range(looks):
        p = (won + 1) / (n + 2)
        z = (p[:, 1] - p[:, 0]) / np.sqrt((p * (1 - p) / (n + 3)).sum(axis=1))
        second = floor + (1 - 2 * floor) * stats.norm.cdf(z)
        e = np.stack([1 - second, second], axis=1)
        k = generator.binomial(batch, second)
        count = np.stack([batch - k, k], axis=1)
        y = generator.binomial(count, TRUTH)
        n, won = n + count, won + y
        shares.append(e)
        counts.append(count)
        totals.append(y)
    propensities, decisions, sums = (np.stack(each, axis=1) for each in (shares, counts, totals))
    return propensities, cells_of(propensities, decisions, sums, sums)


def test_normal_shares_are_those_of_the_exact_bandit() -> None:
    n, won = np.array([400.0, 600.0]), np.array([41.0, 75.0])
    p = (won + 1) / (n + 2)
    z = (p[1] - p[0]) / math.sqrt((p * (1 - p) / (n + 3)).sum())
    assert stats.norm.cdf(z) == pytest.approx(best_arm_probabilities(beta_posteriors(n, won))[1], abs=0.01)


def missed(estimate: Estimate, truth: float) -> float:
    low, high = estimate.interval
    return float(((low > truth) | (high < truth)).any(axis=-1).mean())


@pytest.mark.parametrize("floor", [0.05, 0.01])
def test_sequences_cover_at_every_look_of_a_bandit(floor: float) -> None:
    runs = 1000
    e, cells = thompson(runs, looks=60, batch=200, floor=floor, seed=14)
    tolerance = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    found, planned = scores(cells), 12_000
    assert missed(mean(found, 0, planned), TRUTH[0]) <= tolerance
    assert missed(mean(found, 1, planned), TRUTH[1]) <= tolerance
    difference = TRUTH[1] - TRUTH[0]
    assert missed(contrast(found, 1, 0, planned), difference) <= tolerance
    assert missed(lift(found, 1, 0, planned), difference / TRUTH[0]) <= tolerance
    weighted = scores(cells, weights=overlap_weights(e, 1, 0))
    assert missed(contrast(weighted, 1, 0, planned), difference) <= tolerance
    if floor < 0.05:
        # Without the variance of all values the arm that is rarely chosen is missed, so there is something to mend.
        assert missed(mean(plain(cells), 0, planned), TRUTH[0]) > tolerance


def test_plain_means_of_a_bandit_are_biased_and_scores_are_not() -> None:
    runs = 2000
    _, cells = thompson(runs, looks=60, batch=50, floor=0.05, seed=15)
    means = cells.totals[..., 0, 0].sum(axis=1) / cells.counts[..., 0].sum(axis=1)
    values = mean(scores(cells), 0, 3000).value[:, -1]
    assert means.mean() - TRUTH[0] < -3 * means.std() / math.sqrt(runs)
    assert values.mean() == pytest.approx(TRUTH[0], abs=3 * values.std() / math.sqrt(runs))


def test_bounded_mean_is_that_of_its_rows() -> None:
    generator = np.random.default_rng(17)
    rows = made_up(17)
    rows = rows._replace(values=generator.random((len(rows.arm), 1)))
    found = bounded_mean(rows.cells, 1, (0.0, 1.0), 0.05, planned_variance=500.0)
    total = variance = 0.0
    for period, arm, value in zip(rows.period, rows.arm, rows.values[:, 0], strict=True):
        past = rows.values[(rows.period < period) & (rows.arm == 1), 0]
        guess = past.mean() if len(past) else 0.5
        score = guess + (value - guess) / rows.propensities[period, 1] if arm == 1 else guess
        total, variance = total + score, variance + (score - guess) ** 2
    n = len(rows.arm)
    margin = gamma_exponential(variance, float(mixture_rho(500.0, 0.05)), 20.0, 0.025).item() / n
    assert found.value[-1] == pytest.approx(total / n)
    assert found.interval.low[-1] == pytest.approx(total / n - margin)
    assert found.interval.high[-1] == pytest.approx(total / n + margin)


def test_bounded_mean_refuses_what_is_beyond_the_limits() -> None:
    cells = cells_of([0.25, 0.75], [[4, 4]], [[1.0, 3.0]], [[1.0, 3.0]])
    with pytest.raises(ValueError, match="outcomes must be between"):
        bounded_mean(cells, 0, (0.5, 1.0), 0.25, 100.0)
    with pytest.raises(ValueError, match="was less than"):
        bounded_mean(cells, 0, (0.0, 1.0), 0.3, 100.0)


def test_bounded_mean_covers_from_the_first_look_of_a_bandit() -> None:
    runs = 300
    _, cells = thompson(runs, looks=60, batch=50, floor=0.05, seed=18)
    rate = missed(bounded_mean(cells, 0, (0.0, 1.0), 0.05, planned_variance=3000 * 0.1 / 0.05), TRUTH[0])
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_ratios_cover_at_every_look_of_a_ramp() -> None:
    runs, looks, batch = 400, 40, 100
    generator = np.random.default_rng(19)
    shares = np.repeat([0.1, 0.25, 0.5, 0.5], looks // 4)
    e = np.stack([1 - shares, shares], axis=1)
    arm = generator.random((runs, looks, batch)) < shares[:, np.newaxis]
    views = 1 + generator.poisson(2.0, arm.shape)
    values = np.stack([generator.binomial(views, np.where(arm, 0.25, 0.2)), views], axis=-1).astype(np.float64)
    mine = np.stack([~arm, arm], axis=-1).astype(np.float64)
    by_arm = np.swapaxes(mine, -1, -2)
    totals = by_arm @ values
    products = (by_arm @ (values[..., :, np.newaxis] * values[..., np.newaxis, :]).reshape(*arm.shape, 4)).reshape(
        runs, looks, 2, 2, 2
    )
    cells = cells_of(np.broadcast_to(e, (runs, looks, 2)), mine.sum(axis=2), totals, products)
    found, tolerance = linearised(scores(cells)), 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert missed(mean(found, 1, 4000), 0.25) <= tolerance
    assert missed(contrast(found, 1, 0, 4000), 0.05) <= tolerance
    assert missed(lift(found, 1, 0, 4000), 0.25) <= tolerance
    low, high = contrast(found, 1, 0, 4000).interval
    assert np.median(high[:, -1] - low[:, -1]) < 0.1


def test_units_that_return_need_visits() -> None:
    runs, looks, batch, units = 150, 20, 100, 100
    generator = np.random.default_rng(20)
    with_visits: list[float] = []
    without: list[float] = []
    for _ in range(runs):
        arm_of, rate_of = generator.integers(2, size=units), generator.choice([0.1, 0.9], units)
        unit = generator.integers(units, size=looks * batch)
        values = (generator.random(len(unit)) < rate_of[unit]).astype(np.float64)[:, np.newaxis]
        rows = Rows(np.repeat(np.arange(looks), batch), arm_of[unit], np.full((looks, 2), 0.5), values)
        cells = rows.cells
        for estimates, found in ((with_visits, scores(cells, visits_of(rows, unit))), (without, scores(cells))):
            estimates.append(missed(contrast(found, 1, 0, looks * batch), 0.0))
    tolerance = 3 * math.sqrt(0.05 * 0.95 / runs)
    assert np.mean(with_visits) <= 0.05 + tolerance
    assert np.mean(without) > 0.2


def test_weighted_scores_cover_at_the_end_of_a_bandit() -> None:
    runs = 1000
    e, cells = thompson(runs, looks=60, batch=200, floor=0.05, seed=16)
    tolerance = 3 * math.sqrt(0.05 * 0.95 / runs)
    for found, truth in (
        (weighted_mean(cells, e, 0), TRUTH[0]),
        (weighted_contrast(cells, e, 1, 0), TRUTH[1] - TRUTH[0]),
    ):
        assert ((found.low > truth) | (found.high < truth)).mean() == pytest.approx(0.05, abs=tolerance)
