import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.off_policy import (
    Estimates,
    Limits,
    Log,
    arm_means,
    balanced_propensities,
    evaluate,
    make_log,
    overlap_of,
)
from analysis.statistics.ratios import moments, ratio_of_sums
from bench.off_policy import ESTIMATORS, context_means, evaluations, make_decisions, make_world, rare_world

Floats = NDArray[np.float64]

ANYTHING = Limits(effective_sample_size=0, unsupported_mass=1)


def estimates_of(log: Log, policy: Floats | list[float], expected: Floats | list[float], **rest: float) -> Estimates:
    found = evaluate(log, policy, expected, limits=ANYTHING, **rest).estimates  # type: ignore[arg-type]
    assert found is not None
    return found


def test_estimates_by_hand() -> None:
    # Weights of arm 0 are 2, those of arm 1 are 1/2 with 0.8, and a model that says 1/4 and 3/4.
    log = make_log([0, 1, 2, 3], [0, 1, 1, 0], [1, 0, 1, 0], [[0.25, 0.75]] * 2 + [[0.5, 0.5]] + [[0.25, 0.75]])
    policy, model = [0.5, 0.5], [0.25, 0.75]
    weights = [2, 2 / 3, 1, 2]
    found = estimates_of(log, policy, model, threshold=1.5)
    assert found.ips.value == pytest.approx((2 + 1) / 4)
    assert found.snips.value == pytest.approx((2 + 1) / sum(weights))
    assert found.dm.value == pytest.approx(0.5)
    assert found.dr.value == pytest.approx(0.5 + (2 * 0.75 - 2 / 3 * 0.75 + 0.25 - 2 * 0.25) / 4)
    assert found.switch_dr.value == pytest.approx(0.5 + (-2 / 3 * 0.75 + 0.25) / 4)
    # Units are one decision each: the error of IPS is that of a mean.
    terms = np.array([2, 0, 1, 0])
    assert found.ips.error == pytest.approx(terms.std(ddof=1) / 2)
    assert found.ips.high - found.ips.value == pytest.approx(found.ips.error * stats.t(3).ppf(0.975))


def test_overlap_by_hand() -> None:
    # Unit "a" has the weights 2 and 2, unit "b" 0 and 0.5, and a third of the policy's choices were impossible at "b".
    log = make_log(["a", "a", "b", "b"], [0, 0, 1, 2], [1, 0, 1, 1], [[0.25, 0.5, 0.25]] * 2 + [[0, 0.5, 0.5]] * 2)
    found = overlap_of(log, [[0.5, 0, 0.5]] * 2 + [[0.75, 0, 0.25]] * 2, censored=1, version_changes=3)
    assert found.effective_sample_size == pytest.approx(4.5**2 / (16 + 0.25))
    assert (found.largest_weight, found.mean_weight, found.unsupported_mass) == (2, 4.5 / 4, 0.375)
    assert (found.censored_share, found.version_changes) == (0.2, 3)
    assert not found.sufficient
    assert len(found.reasons) == 2


def test_the_policy_that_made_the_log_has_its_mean() -> None:
    generator = np.random.default_rng(2)
    arms, rewards = generator.integers(0, 2, 300), generator.normal(size=300)
    log = make_log(np.arange(300), arms, rewards, [0.5, 0.5])
    found = estimates_of(log, [0.5, 0.5], [0.0, 0.0])
    reference = stats.ttest_1samp(rewards, 0).confidence_interval(0.95)
    for estimate in (found.ips, found.snips, found.dr):
        assert estimate.value == pytest.approx(rewards.mean())
        assert (estimate.low, estimate.high) == pytest.approx(tuple(reference))


def test_estimates_are_those_of_loops_over_units() -> None:
    generator = np.random.default_rng(3)
    context, _, log = make_decisions(make_world(1.0, 0.05, 3), 200, generator)
    policy, model = make_world(1.0, 0.05, 3).policy[context], context_means(log, context)
    found = estimates_of(log, policy, model, threshold=2.0)
    per_unit: dict[int, Floats] = {}
    for row, (unit, arm) in enumerate(zip(log.units, log.arms, strict=True)):
        weight = policy[row, arm] / log.propensities[row, arm]
        planned = sum(p * m for p, m in zip(policy[row], model[row], strict=True))
        correction = weight * (log.rewards[row] - model[row, arm])
        added = [1, weight, weight * log.rewards[row], planned, correction, correction * (weight <= 2)]
        per_unit[unit] = per_unit.get(unit, np.zeros(6)) + np.array(added)
    number, weight, weighted, planned, correction, switched = np.array(list(per_unit.values())).T
    expected = {
        "ips": (weighted, number),
        "snips": (weighted, weight),
        "dr": (planned + correction, number),
        "switch_dr": (planned + switched, number),
    }
    for name, (above, below) in expected.items():
        value = above.sum() / below.sum()
        # The jackknife over units is another route to the error of a ratio; they differ by less than 2 % here.
        left_out = (above.sum() - above) / (below.sum() - below)
        jackknife = math.sqrt((above.size - 1) * left_out.var())
        assert getattr(found, name).value == pytest.approx(value)
        assert getattr(found, name).error == pytest.approx(jackknife, rel=0.02)
    assert found.dm.value == pytest.approx(planned.sum() / number.sum())


def test_rows_of_several_decisions_are_worth_single_ones() -> None:
    single = make_log([7, 7, 7, 8, 9, 9], [0, 0, 1, 1, 0, 1], [1, 0, 1, 0, 1, 1], [0.5, 0.5])
    together = make_log([7, 7, 8, 9, 9], [0, 1, 1, 0, 1], [1, 1, 0, 1, 1], [0.5, 0.5], counts=[2, 1, 1, 1, 1])
    policy, model = [0.8, 0.2], [0.3, 0.6]
    assert overlap_of(together, policy) == overlap_of(single, policy)
    apart, joined = (estimates_of(log, policy, model, threshold=9) for log in (single, together))
    for one, other in zip(apart[:5], joined[:5], strict=True):
        assert one == pytest.approx(other)


def test_means_of_arms_come_from_other_units_and_all_times() -> None:
    # One fold has units 0 and 2, the other 1 and 3; weights are 1 / propensity.
    log = make_log([0, 1, 2, 3], [0, 0, 0, 1], [4, 1, 8, 6], [[0.5, 0.5], [0.5, 0.5], [0.25, 0.75], [0.5, 0.5]])
    found = arm_means(log, folds=2)
    assert found[0].tolist() == [1, 6]
    # There is no value of arm 1 among units 0 and 2, so it has the mean of all that is there.
    assert found[1] == pytest.approx([(2 * 4 + 4 * 8) / 6] * 2)


def test_balanced_weights_by_hand() -> None:
    found = balanced_propensities([300, 100], [[0.9, 0.1], [0.1, 0.9]])
    assert found == pytest.approx([0.7, 0.3])
    by_context = balanced_propensities([1, 1], [[[0.9, 0.1], [0.5, 0.5]], [[0.1, 0.9], [0.3, 0.7]]])
    assert by_context == pytest.approx(np.array([[0.5, 0.5], [0.4, 0.6]]))


def test_a_log_with_an_effective_sample_size_of_2_is_refused() -> None:
    generator = np.random.default_rng(4)
    world = rare_world()
    for found in evaluations(world, 10_000, generator).values():
        assert found.overlap.effective_sample_size < 10
        assert found.estimates is None
        assert "effective sample size" in found.overlap.reasons[0]


def test_what_was_never_possible_is_refused() -> None:
    units = np.arange(1000)
    log = make_log(units, units % 2, np.ones(1000), [0.5, 0.5, 0.0])
    found = evaluate(log, [0.6, 0.38, 0.02])
    assert found.estimates is None
    assert "2.0%" in found.overlap.reasons[0]
    assert evaluate(log, [0.6, 0.395, 0.005]).estimates is not None


@pytest.mark.parametrize("censored", [0, 5])
def test_an_empty_log_is_refused(censored: int) -> None:
    found = evaluate(make_log([], [], [], [0.5, 0.5]), [1, 0], censored=censored)
    assert found.estimates is None
    assert found.overlap.reasons
    assert found.overlap.censored_share == pytest.approx(1.0 if censored else math.nan, nan_ok=True)


def test_a_policy_that_wants_nothing_of_the_log_is_refused() -> None:
    assert evaluate(make_log([1, 2], [0, 0], [1, 1], [0.5, 0.5]), [0, 1]).overlap.effective_sample_size == 0


@pytest.mark.parametrize(
    ("rewards", "propensities", "policy", "says"),
    [
        ([1, math.nan], [0.5, 0.5], [1, 0], "reward"),
        ([1, 1], [0.5, 0.4], [1, 0], "propensities"),
        ([1, 1], [0.0, 1.0], [1, 0], "propensity 0"),
        ([1, 1], [0.5, 0.5], [1, 1], "policy"),
    ],
)
def test_what_is_no_log_or_policy_is_refused(
    rewards: list[float], propensities: list[float], policy: list[float], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        evaluate(make_log([1, 2], [0, 1], rewards, propensities), policy)


def test_without_units_there_is_no_error() -> None:
    nothing = ratio_of_sums(moments(np.zeros(0, dtype=np.intp), np.zeros(0), np.zeros(0)))
    assert math.isnan(nothing.value)
    one = ratio_of_sums(moments(np.zeros(2, dtype=np.intp), np.ones(2), np.ones(2)))
    assert one.value == 1
    assert math.isnan(one.error)


def test_heavy_weights_are_switched_off_where_that_costs_little() -> None:
    # One decision in twenty thousand has the weight 10,000, and would add its own residual / 2 to the estimate.
    generator = np.random.default_rng(5)
    arms = np.arange(20_000) == 7
    rewards = generator.normal(5, 0.1, 20_000) + arms
    log = make_log(np.arange(20_000), arms, rewards, [1 - 1e-6, 1e-6])
    found = estimates_of(log, [0.99, 0.01], [5.0, 5.0])
    assert found.switch_threshold == pytest.approx(0.99, rel=1e-5)
    assert found.switch_dr.error < found.dr.error / 10


def test_estimates_are_unbiased_and_their_intervals_cover() -> None:
    generator = np.random.default_rng(6)
    world, logs = make_world(1.0, 0.05, 2), 300
    found = [evaluations(world, 500, generator) for _ in range(logs)]
    for way in found[0]:
        given = [each[way].estimates for each in found]
        for name in ESTIMATORS:
            values = np.array([getattr(estimates, name) for estimates in given if estimates is not None])
            error = values[:, 0].std() / math.sqrt(logs)
            covered = ((values[:, 2] <= world.truth) & (world.truth <= values[:, 3])).mean()
            if name == "dm" and "without" in way:
                # A model without context cannot know what the policy gains by it.
                assert values[:, 0].mean() < world.truth - 10 * error
            else:
                # The smoothed model of contexts and the ratio of SNIPS have small biases of order 1 / n.
                assert abs(values[:, 0].mean() - world.truth) < 4 * error + 1 / 500
                assert covered > 0.95 - 4 * math.sqrt(0.95 * 0.05 / logs)
