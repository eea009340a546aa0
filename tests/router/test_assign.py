from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from analysis.statistics.buckets import quantise
from router.assignment.audience import Condition
from router.assignment.epochs import HOLDOUT, Epoch, reweight, with_holdout
from router.assignment.hashing import BUCKETS, bucket
from router.assignment.vectorised import buckets
from router.errors import InvalidRequest
from router.serving.assign import assign, draw, force
from router.serving.routes import EndpointRoute, ExperimentRoute
from tests.router.routes import endpoint, experiment

UNITS = [f"user-{number}" for number in range(20_000)]

shares = st.lists(st.integers(0, 20), min_size=2, max_size=6).filter(any)
experiments = st.builds(
    lambda number, parts, holdout, traffic: experiment(
        f"experiment-{number}",
        tuple(part / sum(parts) for part in parts),
        holdout=holdout / 100,
        traffic_buckets=traffic,
        id=number,
    ),
    number=st.integers(1, 1000),
    parts=shares,
    holdout=st.integers(0, 60),
    traffic=st.integers(0, BUCKETS),
)


def names(route: EndpointRoute, nonce: bytes = b"12345678") -> list[str | None]:
    drawn = [assign(route, unit, {}, nonce) for unit in UNITS]
    return [None if each is None else each.name for each in drawn]


def one_unit_in_every_bucket(seed: str) -> list[str]:
    units = [f"user-{number}" for number in range(200_000)]
    found, first = np.unique(buckets(seed, units), return_index=True)
    assert len(found) == BUCKETS
    return [units[index] for index in first.tolist()]


def reweighted(before: ExperimentRoute, weights: tuple[float, ...], *, holdout: float = 0.0) -> ExperimentRoute:
    table = reweight(
        before.epoch.table, with_holdout(quantise((*(weight * (1 - holdout) for weight in weights), holdout)))
    )
    return experiment(before.name, weights, epoch=Epoch(before.epoch.number + 1, table, before.epoch.traffic))


def test_assign_without_experiments_is_nobody() -> None:
    assert assign(endpoint(), "u", {}, b"12345678") is None


def test_assign_draws_with_the_propensity_it_reports() -> None:
    route = endpoint(experiment())
    counts = Counter(names(route))
    # Standard deviation of a count is sqrt(20000 * .7 * .3) = 65; units and seed are fixed.
    assert counts["arm-1"] == pytest.approx(6000, abs=4 * 65)
    assert {each.slots for unit in UNITS[:100] if (each := assign(route, unit, {}, b""))} == {7000, 3000}


@given(experiments, st.text(min_size=1, max_size=20))
def test_draw_is_the_look_up_it_says_it_is(route: ExperimentRoute, unit: str) -> None:
    drawn = draw(route, unit, {})
    assert drawn.number == route.epoch.table[bucket(route.name, unit)]
    assert drawn.epoch == route.epoch.number
    assert drawn.slots / BUCKETS == route.epoch.propensity(drawn.number)


@given(experiments)
@settings(max_examples=10)
def test_draw_of_one_unit_in_every_bucket_realises_the_propensities_exactly(route: ExperimentRoute) -> None:
    drawn = [draw(route, unit, {}) for unit in one_unit_in_every_bucket(route.name)]
    assert Counter(each.number for each in drawn) == {each.number: each.slots for each in drawn}
    assert sum({each.number: each.slots for each in drawn}.values()) == BUCKETS


def test_assign_keeps_a_units_arm_across_nonces() -> None:
    route = endpoint(experiment())
    assert names(route, b"12345678") == names(route, b"87654321")


def test_assign_by_request_draws_anew_for_each_nonce() -> None:
    route = endpoint(experiment(by_request=True))
    drawn = {assign(route, "u", {}, number.to_bytes(8)).name for number in range(50)}  # type: ignore[union-attr]
    assert drawn == {"arm-0", "arm-1"}


def test_assign_moves_only_the_reweighted_share() -> None:
    before = experiment(weights=(0.5, 0.5))
    pairs = Counter(zip(names(endpoint(before)), names(endpoint(reweighted(before, (0.6, 0.4)))), strict=True))
    assert pairs["arm-0", "arm-1"] == 0
    # A tenth of the units moves; the standard deviation of the count is sqrt(20000 * .1 * .9) = 42.
    assert pairs["arm-1", "arm-0"] == pytest.approx(2000, abs=4 * 42)


@given(experiments, st.integers(0, BUCKETS), st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20))
def test_assign_traffic_ramp_keeps_everybody_who_was_in(route: ExperimentRoute, wider: int, units: list[str]) -> None:
    ramped = route._replace(traffic_buckets=max(wider, route.traffic_buckets))
    for unit in units:
        early, late = (assign(endpoint(each), unit, {}, b"") for each in (route, ramped))
        assert early is None or early[1:] == late[1:]  # type: ignore[index]


def test_assign_traffic_takes_its_share() -> None:
    tenth, half = (names(endpoint(experiment(traffic_buckets=buckets))) for buckets in (1000, 5000))
    # Standard deviations are sqrt(20000 * .1 * .9) = 42 and sqrt(20000 * .5 * .5) = 71.
    assert tenth.count(None) == pytest.approx(18_000, abs=4 * 42)
    assert half.count(None) == pytest.approx(10_000, abs=4 * 71)


def test_assign_takes_the_first_experiment_whose_audience_fits() -> None:
    jfk = experiment("jfk", audience=(Condition("origin", "eq", "JFK"),), id=1)
    rest = experiment("rest", id=2)
    route = endpoint(jfk, rest)
    drawn = [assign(route, "u", {"origin": origin}, b"") for origin in ("JFK", "EWR")]
    assert [each.experiment.name for each in drawn if each] == ["jfk", "rest"]


def test_assign_traffic_tells_nothing_about_the_arm() -> None:
    drawn = Counter(names(endpoint(experiment(weights=(0.5, 0.5), traffic_buckets=2000))))
    assert drawn["arm-0"] / (drawn["arm-0"] + drawn["arm-1"]) == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_assign_holdout_is_a_number_without_arm() -> None:
    drawn = [assign(endpoint(experiment(holdout=0.2)), unit, {}, b"") for unit in UNITS[:200]]
    held_out = [each for each in drawn if each and each.arm is None]
    assert {(each.number, each.name, each.slots) for each in held_out} == {(HOLDOUT, "holdout", 2000)}
    # Standard deviation of the count is sqrt(200 * .2 * .8) = 5.7.
    assert len(held_out) == pytest.approx(40, abs=4 * 5.7)


def test_assign_holdout_stays_out_when_the_weights_change() -> None:
    before = experiment(weights=(0.5, 0.5), holdout=0.1)
    after = reweighted(before, (0.8, 0.2), holdout=0.1)
    for early, late in zip(names(endpoint(before)), names(endpoint(after)), strict=True):
        assert (early == "holdout") == (late == "holdout")


# Mutual exclusion: experiments of one endpoint are asked in order.


@given(st.lists(experiments, max_size=4, unique_by=lambda each: each.id), st.text(min_size=1, max_size=20))
def test_assign_gives_a_unit_to_at_most_one_experiment(routes: list[ExperimentRoute], unit: str) -> None:
    taking = [each for each in routes if assign(endpoint(each), unit, {}, b"") is not None]
    drawn = assign(endpoint(*routes), unit, {}, b"")
    assert drawn == (draw(taking[0], unit, {}) if taking else None)


def independence(pairs: list[tuple[Any, Any]]) -> float:
    """Return the p-value of the chi-square test that the two sides know nothing of each other."""
    rows, columns = (sorted(set(side)) for side in zip(*pairs, strict=True))
    counts = Counter(pairs)
    observed = np.array([[counts[row, column] for column in columns] for row in rows])
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / observed.sum()
    freedom = (len(rows) - 1) * (len(columns) - 1)
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), freedom))


# Names and units are fixed, so these cannot fail by chance.


@pytest.mark.parametrize("number", range(5))
def test_assign_in_the_remainder_of_another_experiment_knows_nothing_of_that_ones_hash(number: int) -> None:
    first = experiment(f"first-{number}", weights=(0.5, 0.5), traffic_buckets=4000, id=1)
    second = experiment(f"second-{number}", weights=(0.6, 0.4), traffic_buckets=5000, holdout=0.1, id=2)
    rest = [unit for unit in UNITS if assign(endpoint(first), unit, {}, b"") is None]
    drawn = {unit: assign(endpoint(first, second), unit, {}, b"") for unit in rest}
    taken = [each.name for each in drawn.values() if each]
    # Half of the remainder; the standard deviation is sqrt(n) / 2.
    assert len(taken) == pytest.approx(len(rest) / 2, abs=4 * len(rest) ** 0.5 / 2)
    first_arms = {unit: draw(first, unit, {}).name for unit in rest}
    assert independence([(first_arms[unit], each is not None) for unit, each in drawn.items()]) > 0.001
    assert independence([(first_arms[unit], each.name) for unit, each in drawn.items() if each]) > 0.001
    places = {unit: bucket(first.traffic_seed, unit) // 1000 for unit in rest}
    assert independence([(places[unit], each is not None) for unit, each in drawn.items()]) > 0.001
    assert independence([(places[unit], each.name) for unit, each in drawn.items() if each]) > 0.001


@pytest.mark.parametrize("number", range(5))
def test_assign_in_one_experiment_tells_nothing_about_another(number: int) -> None:
    one = names(endpoint(experiment(f"one-{number}", weights=(0.5, 0.3, 0.2))))
    other = names(endpoint(experiment(f"other-{number}", weights=(0.5, 0.5), holdout=0.1)))
    assert independence(list(zip(one, other, strict=True))) > 0.001


# Forced arms.


def test_force_takes_the_first_experiment_that_has_the_arm() -> None:
    route = endpoint(experiment("first", (0.5, 0.5), id=1), experiment("second", (0.4, 0.3, 0.3), id=2))
    found = [force(route, text) for text in ("arm-1", "second/arm-1", "arm-2")]
    assert [(each.experiment.name, each.name) for each in found] == [
        ("first", "arm-1"),
        ("second", "arm-1"),
        ("second", "arm-2"),
    ]


def test_force_is_certain_and_belongs_to_no_epoch() -> None:
    forced = force(endpoint(experiment(weights=(1.0, 0.0))), "arm-1")
    assert (forced.epoch, forced.number, forced.slots) == (0, 1, BUCKETS)


@pytest.mark.parametrize("text", ["arm-2", "second/arm-0", "first/", "", "/", "a/b/arm-0", "holdout", "first/holdout"])
def test_force_of_an_unknown_arm_names_the_known(text: str) -> None:
    route = endpoint(experiment("first", holdout=0.1))
    with pytest.raises(InvalidRequest, match="known arms: first/arm-0, first/arm-1") as caught:
        force(route, text)
    assert repr(text) in str(caught.value)
    assert caught.value.field == "X-Turnout-Arm"


def test_force_without_running_experiment_says_so() -> None:
    with pytest.raises(InvalidRequest, match="known arms: none, since no experiment is running"):
        force(endpoint(), "arm-0")
