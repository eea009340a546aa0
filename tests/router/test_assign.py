from collections import Counter
from typing import Any

import pytest

from router.assignment.audience import Condition
from router.assignment.epochs import Epoch, fresh, quantise, reweight
from router.serving.assign import assign
from router.serving.routes import ArmRoute, EndpointRoute, ExperimentRoute, ServedModel


def served(reference: str) -> ServedModel:
    return ServedModel(reference, None, None, inline=True)


def experiment(name: str = "test", weights: tuple[float, ...] = (0.7, 0.3), **fields: Any) -> ExperimentRoute:
    table = fields.pop("table", fresh(quantise(weights)))
    arms = tuple(ArmRoute(f"arm-{number}", served(f"m@{number + 1}")) for number in range(len(weights)))
    values: dict[str, Any] = {
        "id": 1,
        "name": name,
        "traffic_seed": f"{name}/traffic",
        "traffic_buckets": 10_000,
        "audience": (),
        "by_request": False,
        "epoch": Epoch(1, table),
        "counts": tuple(table.count(number) for number in range(len(weights))),
        "arms": arms,
    }
    return ExperimentRoute(**{**values, **fields})


def endpoint(*experiments: ExperimentRoute) -> EndpointRoute:
    return EndpointRoute("e", 0.2, served("m@1"), None, None, experiments)  # type: ignore[arg-type]


UNITS = [f"user-{number}" for number in range(20_000)]


def arms(route: EndpointRoute, nonce: bytes = b"12345678") -> list[str | None]:
    drawn = [assign(route, unit, {}, nonce) for unit in UNITS]
    return [None if each is None else each.arm.name for each in drawn]


def test_assign_without_experiments_is_nobody() -> None:
    assert assign(endpoint(), "u", {}, b"12345678") is None


def test_assign_draws_with_the_propensity_it_reports() -> None:
    route = endpoint(experiment())
    counts = Counter(arms(route))
    # Standard deviation of a count is sqrt(20000 * .7 * .3) = 65; units and seed are fixed.
    assert counts["arm-1"] == pytest.approx(6000, abs=4 * 65)
    assert {each.slots for unit in UNITS[:100] if (each := assign(route, unit, {}, b""))} == {7000, 3000}


def test_assign_keeps_a_units_arm_across_nonces() -> None:
    route = endpoint(experiment())
    assert arms(route, b"12345678") == arms(route, b"87654321")


def test_assign_by_request_draws_anew_for_each_nonce() -> None:
    route = endpoint(experiment(by_request=True))
    drawn = {assign(route, "u", {}, number.to_bytes(8)).arm.name for number in range(50)}  # type: ignore[union-attr]
    assert drawn == {"arm-0", "arm-1"}


def test_assign_moves_only_the_reweighted_share() -> None:
    before = experiment(weights=(0.5, 0.5))
    table = reweight(before.epoch.table, quantise((0.6, 0.4)))
    after = experiment(weights=(0.6, 0.4), table=table)
    pairs = Counter(zip(arms(endpoint(before)), arms(endpoint(after)), strict=True))
    assert pairs["arm-0", "arm-1"] == 0
    # A tenth of the units moves; the standard deviation of the count is sqrt(20000 * .1 * .9) = 42.
    assert pairs["arm-1", "arm-0"] == pytest.approx(2000, abs=4 * 42)


def test_assign_traffic_ramp_keeps_everybody_who_was_in() -> None:
    tenth, half = (arms(endpoint(experiment(traffic_buckets=buckets))) for buckets in (1000, 5000))
    assert tenth.count(None) == pytest.approx(18_000, abs=200)
    assert half.count(None) == pytest.approx(10_000, abs=300)
    assert all(late == early for early, late in zip(tenth, half, strict=True) if early is not None)


def test_assign_takes_the_first_experiment_whose_audience_fits() -> None:
    jfk = experiment("jfk", audience=(Condition("origin", "eq", "JFK"),), id=1)
    rest = experiment("rest", id=2)
    route = endpoint(jfk, rest)
    drawn = [assign(route, "u", {"origin": origin}, b"") for origin in ("JFK", "EWR")]
    assert [each.experiment.name for each in drawn if each] == ["jfk", "rest"]


def test_assign_in_one_experiment_tells_nothing_about_another() -> None:
    one, other = (arms(endpoint(experiment(name, weights=(0.5, 0.5)))) for name in ("one", "other"))
    together = Counter(zip(one, other, strict=True))
    # Each of the four pairs has probability a quarter: sd sqrt(20000 * .25 * .75) = 61.
    assert all(count == pytest.approx(5000, abs=4 * 61) for count in together.values())


def test_assign_traffic_tells_nothing_about_the_arm() -> None:
    drawn = Counter(arms(endpoint(experiment(weights=(0.5, 0.5), traffic_buckets=2000))))
    assert drawn["arm-0"] / (drawn["arm-0"] + drawn["arm-1"]) == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
