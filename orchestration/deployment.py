"""Brings a declared endpoint and its experiments to a router, on the newest registered models."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from models.registry import Registry
from orchestration.candidates.names import candidates_of, declared_champion
from orchestration.endpoints.declaration import Endpoint
from orchestration.errors import NotProven
from router import documents
from router.client import Turnout

_STARTED = {"running", "paused"}


def newest_models(endpoint: Endpoint, registry: Registry) -> dict[str, str]:
    """The newest `name@version` of each of the endpoint's candidates that has one; NotProven without the champion."""
    registered = [each for each in candidates_of(endpoint) if registry.versions(each.model)]
    models = {each.recipe.name: str(registry.latest(each.model)) for each in registered}
    if endpoint.champion not in models:
        raise NotProven(champion_missing(endpoint))
    return models


def champion_missing(endpoint: Endpoint) -> str:
    """What to say of an endpoint that nothing can serve."""
    return (
        f"no version of {declared_champion(endpoint).model}, the champion of {endpoint.name}, is registered, so that "
        f"nothing can serve it: correct what `turnout materialize {endpoint.name}` says of it"
    )


class Registered(NamedTuple):
    """An endpoint of nothing but registered candidates, and what of the declared one is left out, with the reason."""

    endpoint: Endpoint
    left_out: dict[str, str]


def without_missing(endpoint: Endpoint, models: Mapping[str, str]) -> Registered:
    """Leave out shadows that have no version yet, and experiments in which such candidates take part."""
    missing = {each.recipe.name: each.model for each in candidates_of(endpoint) if each.recipe.name not in models}
    waiting = {each.name: sorted(each.candidates & missing.keys()) for each in endpoint.experiments}
    left_out = dict.fromkeys(missing.values(), f"it has no version: see `turnout materialize {endpoint.name}`")
    left_out |= {name: f"it needs {', '.join(missing[each] for each in of)}" for name, of in waiting.items() if of}
    return Registered(
        endpoint._replace(
            shadows=tuple(shadow for shadow in endpoint.shadows if shadow not in missing),
            experiments=tuple(each for each in endpoint.experiments if not waiting[each.name]),
        ),
        left_out,
    )


def ensure_endpoint(router: Turnout, endpoint: Endpoint, registry: Registry) -> dict[str, Any]:
    """The endpoint as the router has it, created on the newest versions of its champion and shadows if it has not.

    One that is there is left as it is: who serves it is the router's affair. Raises NotProven without a champion.
    """
    for found in router.endpoints():
        if found["document"]["name"] == endpoint.name:
            return found
    models = newest_models(endpoint, registry)
    return router.create_endpoint(without_missing(endpoint, models).endpoint.document(models))


def deploy(router: Turnout, endpoint: Endpoint, models: Mapping[str, str]) -> dict[str, str]:
    """Make the endpoint serve these models and its experiments run on them.

    Returns the name under which each declared experiment runs: its own, or with a number when the models have changed,
    since a retrained model is a new arm, so a new experiment. Those before it are concluded.
    """
    _ensure_endpoint(router, endpoint.document(models))
    existing = {each["document"]["name"]: each for each in router.experiments()}
    return {
        experiment.name: _ensure_experiment(router, experiment.document(endpoint.name, models), existing)
        for experiment in endpoint.experiments
    }


def _ensure_endpoint(router: Turnout, wanted: Mapping[str, Any]) -> None:
    existing = {each["document"]["name"]: each for each in router.endpoints()}
    if wanted["name"] not in existing:
        router.create_endpoint(dict(wanted))
        return
    found = existing[wanted["name"]]
    if any(found["document"][field] != value for field, value in wanted.items()):
        router.replace_endpoint({**found["document"], **wanted}, found["revision"])


def _ensure_experiment(router: Turnout, wanted: dict[str, Any], existing: Mapping[str, Any]) -> str:
    for name in _names(wanted["name"]):
        if name not in existing:
            router.create_experiment({**wanted, "name": name})
            router.start(name)
            return name
        found = existing[name]
        if found["state"] == "running" and _identity(found["document"]) == _identity(wanted):
            return name
        if found["state"] in _STARTED:
            router.conclude(name)
    raise AssertionError("names never end")


def _identity(document: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a running experiment cannot change; shares and shadows may differ from what is declared."""
    read = msgspec.convert(document, documents.Experiment)
    return read.arms, read.metrics, read.audience, type(read.allocation)


def _names(first: str) -> Iterator[str]:
    """Yield the name, then the name with -2, -3, .."""
    yield first
    number = 2
    while True:
        yield f"{first}-{number}"
        number += 1
