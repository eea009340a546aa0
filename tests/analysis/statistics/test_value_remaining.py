import math
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, special

from analysis.statistics.posteriors import AnyPosterior, Beta, Normal, Student, beta_posteriors
from analysis.statistics.value_remaining import expected_losses, share_remaining, value_remaining
from bench.best_arm import frozen

Floats = NDArray[np.float64]
Direction = Literal["increase", "decrease"]

EXPERIMENTS: dict[str, list[AnyPosterior]] = {
    "beta": [Beta(101, 901), Beta(120, 890), Beta(115, 920)],
    "student": [Student(1.0, 0.1, 5), Student(1.1, 0.2, 9), Student(0.9, 0.2, 30)],
    "normal, scales apart": [Normal(1.0, 1e-1), Normal(1.02, 1e-5), Normal(1.01, 1e-2)],
}


def test_two_uniform_arms_by_hand() -> None:
    # The larger of two uniform means is 2/3 on average, 1/6 above either. (M - B) / B <= v has 1/2 + v / (2 + 2 v).
    posteriors = [Beta(1, 1), Beta(1, 1)]
    assert expected_losses(posteriors) == pytest.approx([1 / 6, 1 / 6])
    assert expected_losses(posteriors, "decrease") == pytest.approx([1 / 6, 1 / 6])
    assert share_remaining(posteriors, 0, quantile=0.8) == pytest.approx(1.5)
    # (B - min) / B <= v has 1/2 + v / 2.
    assert share_remaining(posteriors, 0, "decrease", quantile=0.8) == pytest.approx(0.6)


def test_two_normal_arms_have_a_closed_form() -> None:
    for gap, first, second in ((0.0, 1.0, 1.0), (0.5, 0.1, 2.0), (0.3, 1e-4, 0.1), (0.1, 0.0, 0.1)):
        sd = math.hypot(first, second)
        z = gap / sd
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        losses = [sd * density - gap * special.ndtr(-z), sd * density + gap * special.ndtr(z)]
        assert expected_losses([Normal(gap, first), Normal(0.0, second)]) == pytest.approx(losses, rel=1e-9, abs=1e-14)


def test_a_certain_arm_leaves_the_quantile_of_the_other() -> None:
    posteriors = [Normal(2.0, 0.0), Normal(1.9, 0.1)]
    assert share_remaining(posteriors, 0) == pytest.approx((1.9 + 0.1 * special.ndtri(0.95) - 2) / 2)
    assert expected_losses([Normal(2.0, 0.0), Normal(1.0, 0.0)]) == pytest.approx([0, 1])
    assert expected_losses([Normal(2.0, 0.0), Normal(2.0, 0.0)]).tolist() == [0, 0]


@pytest.mark.parametrize("direction", ["increase", "decrease"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_both_are_those_of_draws(name: str, direction: Direction) -> None:
    posteriors, draws, sign = EXPERIMENTS[name], 400_000, 1 if direction == "increase" else -1
    generator = np.random.default_rng(1)
    means = np.array([frozen(posterior).rvs(draws, random_state=generator) for posterior in posteriors])
    gains = (sign * means).max(axis=0) - sign * means
    found = value_remaining(posteriors, direction)
    assert found.loss == found.losses[found.best] == found.losses.min()
    error = gains.std(axis=1) / math.sqrt(draws)
    assert np.all(np.abs(found.losses - gains.mean(axis=1)) < 5 * error + 1e-12)
    share = np.where(means[found.best] > 0, gains[found.best] / means[found.best], math.inf)
    # By the definition of a quantile: as many draws as it says are below, within their binomial error.
    assert (share <= found.share).mean() == pytest.approx(0.95, abs=5 * math.sqrt(0.95 * 0.05 / draws))


def test_losses_are_those_of_general_quadrature() -> None:
    first, second = frozen(Beta(12, 80)), frozen(Beta(15, 70))
    found = expected_losses([Beta(12, 80), Beta(15, 70)])
    for place, (own, other) in enumerate(((first, second), (second, first))):
        loss = integrate.quad(lambda x, own=own, other=other: own.cdf(x) * other.sf(x), 0, 1, points=[0.13, 0.18])[0]
        assert found[place] == pytest.approx(loss, rel=1e-9)


def test_small_losses_keep_their_digits() -> None:
    # Six standard deviations apart: the loss is far below what 1 - F would leave of it.
    z = 12.0
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    tail = 0.5 * math.erfc(z / math.sqrt(2))
    sd = math.sqrt(2)
    expected = sd * (density - z * tail)
    assert expected_losses([Normal(z * sd, 1.0), Normal(0.0, 1.0)])[0] == pytest.approx(expected, rel=1e-6)


def test_a_mean_that_may_be_negative_has_no_share() -> None:
    assert share_remaining([Normal(0.1, 1.0), Normal(0.0, 1.0)], 0) == math.inf
    assert share_remaining([Normal(-5.0, 0.1), Normal(-6.0, 0.1)], 0) == math.inf


def test_a_posterior_without_a_mean_has_no_loss() -> None:
    assert np.isnan(expected_losses([Student(0.0, 1.0, 1.0), Student(0.0, 1.0, 9.0)])).all()


def test_a_better_arm_is_rarely_better_than_what_remains() -> None:
    # Rates are drawn from the prior, so that the promise is exactly that of the quantile.
    generator = np.random.default_rng(2)
    runs, kept, trials = 150, 0, np.full(3, 500)
    for _ in range(runs):
        rates = generator.random(3)
        won = generator.binomial(trials, rates)
        best = int(won.argmax())
        kept += rates.max() / rates[best] - 1 <= share_remaining(beta_posteriors(trials, won), best) + 1e-12
    assert kept / runs > 0.95 - 4 * math.sqrt(0.95 * 0.05 / runs)


def test_what_is_no_question_is_refused() -> None:
    with pytest.raises(ValueError, match="two arms"):
        value_remaining([Beta(1, 1)])
    with pytest.raises(ValueError, match="quantile"):
        share_remaining([Beta(1, 1), Beta(1, 1)], 0, quantile=1.0)
