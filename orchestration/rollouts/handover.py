"""Hands a registered version to the router, which alone decides what becomes of it."""

from typing import Any, NamedTuple

import httpx

from models import ModelReference, Registry
from orchestration.deployment import ensure_endpoint
from orchestration.endpoints.declaration import Endpoint
from orchestration.errors import RolloutRefused, RouterUnavailable
from router.client import ApiError, Turnout

Json = dict[str, Any]


class Handover(NamedTuple):
    """What the router said of a version."""

    rollout: str | None
    """None for a version that serves already."""
    state: str
    """Of the rollout, or `champion`."""
    champion: str
    """What served the endpoint when the version was handed over."""


def hand_over(client: Turnout, endpoint: Endpoint, version: ModelReference, registry: Registry) -> Handover:
    """Make the router roll the version out, once: a version that it knows of already is left to it.

    An endpoint that the router does not have yet is created, on its declared champion.

    Raises:
        RouterUnavailable: It does not answer, or not now; to ask again may help.
        RolloutRefused: It says that the rollout can never be.
    """
    try:
        return _handed_over(client, endpoint, version, registry)
    except ApiError as error:
        if _passes(error.status):
            raise RouterUnavailable(f"the router cannot take {version} now: {error}") from error
        raise RolloutRefused(
            f"the router refuses to roll out {version} on endpoint {endpoint.name}: {error}; correct the rollout plan "
            "that the endpoint declares, or the router's settings; an endpoint keeps the inputs that it was deployed "
            "with, so other features need an endpoint of another name"
        ) from error
    except httpx.HTTPError as error:
        raise RouterUnavailable(
            f"{version} cannot be handed over, since the router does not answer ({error}): start "
            "it with `turnout serve`, or set TURNOUT_HOST and TURNOUT_PORT to where it is"
        ) from error


def _handed_over(client: Turnout, endpoint: Endpoint, version: ModelReference, registry: Registry) -> Handover:
    champion = str(ensure_endpoint(client, endpoint, registry)["document"]["champion"])
    if champion == str(version):
        return Handover(None, "champion", champion)
    if endpoint.rollout is None:
        raise RolloutRefused(f"endpoint {endpoint.name} declares no rollout plan: give it one as `rollout=`")
    document = endpoint.rollout.document(endpoint.name, str(version))
    found = _existing(client, document["name"]) or _created(client, document)
    return Handover(document["name"], str(found["state"]), champion)


def _created(client: Turnout, document: Json) -> Json:
    try:
        return client.create_rollout(document)
    except ApiError as error:
        # Another run, or the same one before its answer was lost, has created it since.
        if error.status == httpx.codes.CONFLICT and (found := _existing(client, document["name"])):
            return found
        raise


def _existing(client: Turnout, name: str) -> Json | None:
    try:
        return client.rollout(name)
    except ApiError as error:
        if error.status == httpx.codes.NOT_FOUND:
            return None
        raise


def _passes(status: int) -> bool:
    return status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS
