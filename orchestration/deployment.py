"""Brings a declared endpoint and its experiments to a router, on the newest registered models."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from models.registry import Registry
from orchestration.candidates.names import Candidate
from orchestration.endpoints.declaration import Endpoint
from router import documents
from router.client import Turnout

_STARTED = {"running", "paused"}


def newest_models(endpoint: Endpoint, registry: Registry) -> dict[str, str]:
    """The newest `name@version` of each of the endpoint's candidates."""
    return {recipe.name: str(registry.latest(Candidate(endpoint, recipe).model)) for recipe in endpoint.recipes}


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
