import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.statistics.best_arm import normal_best_probabilities
from analysis.statistics.linear import Regression, Weights, nothing, weight_posteriors
from router.allocation.contextual import ArmPosterior, Policy, arm_posterior, encode
from router.documents import AnyFeature, CategoryFeature, Contextual, NumberFeature

Floats = NDArray[np.float64]

HOUR = NumberFeature(name="hour", low=0.0, high=24.0)
ORIGIN = CategoryFeature(name="origin", values=["EWR", "JFK"])
FEATURES: list[AnyFeature] = [HOUR, ORIGIN]
FREE = Contextual(metric="click", features=FEATURES, floor=0.0, min_matured=0)

contexts = st.fixed_dictionaries(
    {},
    optional={
        "hour": st.floats(allow_nan=True) | st.integers() | st.text(max_size=3) | st.none() | st.booleans(),
        "origin": st.sampled_from(["EWR", "JFK", "LGA", "", 7, None]) | st.lists(st.integers(), max_size=2),
    },
)


def fitted(generator: np.random.Generator, arms: int = 4, count: int = 60) -> list[ArmPosterior]:
    regressions = []
    for _ in range(arms):
        rows = np.array([encode(FEATURES, made_up(generator)) for _ in range(count)])
        values = rows @ generator.normal(0, 0.3, 4) + generator.normal(size=count)
        regressions.append(Regression(float(count), float(values @ values), rows.T @ values, rows.T @ rows))
    return [arm_posterior(weights, count) for weights in weight_posteriors(regressions)]


def made_up(generator: np.random.Generator) -> dict[str, Any]:
    return {"hour": generator.uniform(0, 24), "origin": str(generator.choice(["EWR", "JFK", "LGA"]))}


ARMS = fitted(np.random.default_rng(7))


def test_context_becomes_a_row_of_scaled_numbers_and_columns_for_categories() -> None:
    assert encode(FEATURES, {"hour": 18, "origin": "JFK"}).tolist() == [1.0, 0.5, 0.0, 1.0]
    assert encode(FEATURES, {"origin": "EWR", "hour": 0.0, "other": 1}).tolist() == [1.0, -1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("hour", "encoded"),
    [(-5, -1.0), (25.0, 1.0), (math.inf, 1.0), (-math.inf, -1.0), (10**400, 1.0), (-(10**400), -1.0)],
    ids=["below", "above", "inf", "-inf", "huge", "-huge"],
)
def test_numbers_beyond_the_ends_are_clipped(hour: float, encoded: float) -> None:
    assert encode([HOUR], {"hour": hour}).tolist() == [1.0, encoded]


@pytest.mark.parametrize("hour", [None, "18", True, [1], math.nan, {}])
def test_what_is_no_number_is_in_the_middle(hour: object) -> None:
    assert encode([HOUR], {"hour": hour}).tolist() == [1.0, 0.0]
    assert encode([HOUR], {}).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("origin", [None, "LGA", 1, True, ["JFK"]])
def test_what_is_none_of_the_values_is_zero_in_all_their_columns(origin: object) -> None:
    assert encode([ORIGIN], {"origin": origin}).tolist() == [1.0, 0.0, 0.0]


def test_ends_that_are_too_far_apart_for_a_float_are_scaled_all_the_same() -> None:
    wide = NumberFeature(name="x", low=-1.5e308, high=1.5e308)
    assert encode([wide], {"x": 0.75e308}).tolist() == [1.0, 0.5]


def test_scores_are_those_of_the_posterior() -> None:
    weights = Weights(np.array([1.0, 2.0, 3.0, 4.0]), np.diag([0.1, 0.2, 0.3, 0.4]))
    mean, sd = Policy(FREE, "increase", [arm_posterior(weights, 5)] * 2).scores({"hour": 18, "origin": "JFK"})
    assert mean == pytest.approx([1 + 1 + 4] * 2)
    assert sd == pytest.approx([math.sqrt(0.01 + 0.01 + 0.16)] * 2)


def test_probabilities_are_those_of_the_scores() -> None:
    generator = np.random.default_rng(1)
    arms = fitted(generator)
    for policy, sign in ((Policy(FREE, "increase", arms), 1), (Policy(FREE, "decrease", arms), -1)):
        for _ in range(20):
            context = made_up(generator)
            row = encode(FEATURES, context)
            factors = []
            for arm in arms:
                factor = np.zeros((4, 4))
                factor[np.tril_indices(4)] = arm.factor
                factors.append(factor)
            means = [sign * float(row @ np.array(arm.mean)) for arm in arms]
            sds = [float(np.linalg.norm(factor.T @ row)) for factor in factors]
            expected = normal_best_probabilities(means, sds)
            assert policy.probabilities(context) == pytest.approx(expected.tolist(), abs=1e-12)


def test_probabilities_are_those_of_drawing_the_weights() -> None:
    generator, draws = np.random.default_rng(2), 100_000
    arms = fitted(generator)
    context = made_up(generator)
    row = encode(FEATURES, context)
    scores = []
    for arm in arms:
        factor = np.zeros((4, 4))
        factor[np.tril_indices(4)] = arm.factor
        scores.append((np.array(arm.mean) + generator.normal(size=(draws, 4)) @ factor.T) @ row)
    observed = np.bincount(np.argmax(scores, axis=0), minlength=4) / draws
    expected = np.array(Policy(FREE, "increase", arms).probabilities(context))
    assert np.all(np.abs(observed - expected) <= 5 * np.sqrt(expected / draws))


def test_posterior_that_was_stored_gives_the_same_probabilities_to_the_last_bit() -> None:
    generator = np.random.default_rng(3)
    arms = fitted(generator)
    stored = msgspec.json.encode(arms)
    restored = msgspec.json.decode(stored, type=list[ArmPosterior])
    by_others = [ArmPosterior(**arm) for arm in json.loads(json.dumps(msgspec.to_builtins(arms)))]
    for _ in range(20):
        context = made_up(generator)
        found = {Policy(FREE, "increase", each).probabilities(context) for each in (arms, restored, by_others)}
        assert len(found) == 1


def test_order_of_summation_is_fixed() -> None:
    generator = np.random.default_rng(4)
    arms = fitted(generator)
    policy = Policy(FREE, "increase", arms)
    for _ in range(20):
        context = made_up(generator)
        row = encode(FEATURES, context).tolist()
        for number, (mean, sd) in enumerate(zip(*policy.scores(context), strict=True)):
            expected = 0.0
            for entry, weight in zip(row, arms[number].mean, strict=True):
                expected += entry * weight
            assert mean == expected
            assert sd > 0


def test_arms_in_their_burn_in_get_equal_shares() -> None:
    generator = np.random.default_rng(5)
    known = fitted(generator, arms=2)
    fresh = arm_posterior(weight_posteriors([nothing(4)])[0], 3)
    allocation = Contextual(metric="click", features=FEATURES, floor=0.06, min_matured=50)
    context = made_up(generator)
    all_new = Policy(allocation, "increase", [fresh] * 3).probabilities(context)
    assert all_new == pytest.approx((1 / 3,) * 3)
    found = Policy(allocation, "increase", [*known, fresh]).probabilities(context)
    best = Policy(FREE, "increase", known).probabilities(context)
    assert found == pytest.approx((*(0.06 + 0.82 * each * 2 / 3 for each in best), 1 / 3), abs=1e-12)


def test_different_contexts_get_different_arms() -> None:
    generator = np.random.default_rng(6)
    regressions = []
    for slope in (-1.0, 1.0):
        rows = np.array([encode(FEATURES, made_up(generator)) for _ in range(500)])
        values = slope * rows[:, 1] + 0.3 * generator.normal(size=500)
        regressions.append(Regression(500.0, float(values @ values), rows.T @ values, rows.T @ rows))
    arms = [arm_posterior(weights, 500) for weights in weight_posteriors(regressions)]
    policy = Policy(FREE, "increase", arms)
    assert policy.probabilities({"hour": 1, "origin": "JFK"})[0] > 0.999
    assert policy.probabilities({"hour": 23, "origin": "JFK"})[1] > 0.999
    assert 0.01 < policy.probabilities({"hour": 12})[0] < 0.99


@given(contexts, st.floats(0, 0.3), st.none() | st.floats(0.01, 0.99))
def test_whatever_the_context_shares_sum_to_one_and_respect_floor_and_control(
    context: dict[str, Any], floor: float, control_share: float | None
) -> None:
    allocation = Contextual(metric="click", features=FEATURES, floor=floor, control_share=control_share, min_matured=0)
    found = Policy(allocation, "increase", ARMS).probabilities(context)
    assert abs(math.fsum(found) - 1) < 1e-12
    others = found if control_share is None else found[1:]
    if control_share is not None:
        assert found[0] == control_share
    assert min(others) >= min(floor, math.fsum(others) / len(others)) - 1e-12


def test_linear_bandit_learns_which_arm_suits_which_context() -> None:
    generator, rounds = np.random.default_rng(8), 1500
    slopes, regressions, reward = np.array([-1.0, 1.0]), [nothing(2), nothing(2)], []
    allocation = Contextual(metric="click", features=[HOUR], floor=0.02, min_matured=5)
    for number in range(rounds):
        if number % 50 == 0:
            weights = weight_posteriors(regressions)
            arms = [arm_posterior(each, int(arm.n)) for each, arm in zip(weights, regressions, strict=True)]
            policy = Policy(allocation, "increase", arms)
        context = {"hour": generator.uniform(0, 24)}
        arm = int(generator.choice(2, p=policy.probabilities(context)))
        row = encode([HOUR], context)
        value = float(slopes[arm] * row[1] + 0.5 * generator.normal())
        old = regressions[arm]
        regressions[arm] = Regression(
            old.n + 1, old.squares + value**2, old.xy + value * row, old.xx + np.outer(row, row)
        )
        reward.append(abs(row[1]) - slopes[arm] * row[1])
    # Of the regret 0.5 of choosing blindly, the last third has the floor's 0.02 and little more.
    assert np.mean(reward[-rounds // 3 :]) < 0.1
    assert policy.scores({"hour": 24})[0] == pytest.approx(slopes, abs=0.2)
