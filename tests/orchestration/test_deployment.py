"""Bringing declared endpoints to a router, again and again, with the same models and with newer ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.registry import Registry
from orchestration.deployment import deploy
from orchestration.endpoints import flight_choice, flight_delay
from orchestration.endpoints.declaration import Endpoint
from router.client import Turnout
from router.settings import Settings
from tests.router.servers import serving
from tests.router.small_models import add_model

CANDIDATES = ("base_rate", "logistic", "boosting", "forest")
MODELS = {name: f"sum-{name.replace('_', '-')}@1" for name in CANDIDATES}
RETRAINED = {**MODELS, "logistic": "sum-logistic@2"}
# Shadows have a process of their own, which nothing here needs.
SPLIT = flight_delay.SPLIT._replace(shadows=())
DELAY = flight_delay.ENDPOINT._replace(experiments=(SPLIT, flight_delay.BANDIT))
CHOICE = flight_choice.ENDPOINT


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turnout]:
    """A router over HTTP with two versions of a small model for each candidate."""
    root = tmp_path_factory.mktemp("router")
    settings = Settings(
        database=f"sqlite:///{root}/ledger.db", registry=Path(root / "registry"), spool=Path(root / "spool")
    )
    registry = Registry(settings.registry)
    for name in CANDIDATES:
        for _ in range(2):
            add_model(registry, f"sum-{name.replace('_', '-')}")
    with serving(settings) as url, Turnout(url) as client:
        yield client


def states(router: Turnout, endpoint: Endpoint) -> dict[str, str]:
    found = [each for each in router.experiments() if each["document"]["endpoint"] == endpoint.name]
    return {each["document"]["name"]: each["state"] for each in found}


def fresh(endpoint: Endpoint, name: str) -> Endpoint:
    """The same under another name, so that tests share a router but nothing else."""
    experiments = tuple(each._replace(name=f"{name}-{each.name}") for each in endpoint.experiments)
    return endpoint._replace(name=name, experiments=experiments)


def declared(names: dict[str, str]) -> list[str]:
    return [found.removeprefix(name) for name, found in names.items()]


@pytest.mark.parametrize("endpoint", [DELAY, CHOICE])
def test_everything_declared_runs_and_a_second_time_nothing_changes(router: Turnout, endpoint: Endpoint) -> None:
    mine = fresh(endpoint, f"once-{endpoint.name}")
    names = deploy(router, mine, MODELS)
    assert declared(names) == [""] * len(endpoint.experiments)
    assert set(states(router, mine).values()) == {"running"}
    assert router.endpoint(mine.name)["document"]["kind"] == endpoint.kind
    before = router.experiments(), router.endpoints()
    assert deploy(router, mine, MODELS) == names
    assert (router.experiments(), router.endpoints()) == before


def test_newer_model_makes_new_experiments_of_those_that_have_it(router: Turnout) -> None:
    mine = fresh(DELAY, "newer")
    deploy(router, mine, MODELS)
    assert declared(deploy(router, mine, RETRAINED)) == ["-2", "-2"]
    assert list(states(router, mine).values()) == ["concluded", "concluded", "running", "running"]
    assert router.endpoint("newer")["document"]["champion"] == RETRAINED["logistic"]
    untouched = {**RETRAINED, "forest": "sum-forest@2"}
    assert declared(deploy(router, mine, untouched)) == ["-2", "-3"]


def test_settings_that_somebody_changed_stay(router: Turnout) -> None:
    mine = fresh(DELAY, "changed")
    [split, _] = deploy(router, mine, MODELS).values()
    change(router.experiment(split), router, {"kind": "split", "weights": {"control": 0.9, "boosting": 0.1}})
    endpoint = router.endpoint("changed")
    router.replace_endpoint({**endpoint["document"], "timeout_ms": 77}, endpoint["revision"])
    assert declared(deploy(router, mine, MODELS)) == ["", ""]
    assert router.experiment(split)["document"]["allocation"]["weights"]["control"] == 0.9
    deploy(router, mine, RETRAINED)
    assert router.endpoint("changed")["document"]["timeout_ms"] == 77


def change(found: dict[str, Any], router: Turnout, allocation: dict[str, Any]) -> None:
    router.replace_experiment({**found["document"], "allocation": allocation}, found["revision"])


def test_other_audience_makes_another_experiment(router: Turnout) -> None:
    mine = fresh(DELAY, "audience")
    deploy(router, mine, MODELS)
    july = ({"attribute": "month", "op": "eq", "value": "2013-07"},)
    later = mine._replace(experiments=(mine.experiments[0]._replace(audience=july), mine.experiments[1]))
    assert declared(deploy(router, later, MODELS)) == ["-2", ""]
