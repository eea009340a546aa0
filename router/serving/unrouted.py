"""Predictions by a model version that the client names: nothing is drawn, and nothing is recorded."""

from collections.abc import Mapping
from typing import NamedTuple

from models.errors import RemoteUnavailable
from router.errors import (
    InvalidInput,
    NotFound,
    Overloaded,
    PredictionFailed,
    RequestTooLarge,
    TurnoutError,
    Unavailable,
)
from router.serving.routes import EndpointRoute, Limits, ServedModel
from router.serving.running import ModelRunner, Rows, describe


class Version(NamedTuple):
    """A model version on an endpoint, and what it may take of a request's time."""

    served: ServedModel
    limits: Limits


def versions_of(route: EndpointRoute) -> Mapping[str, Version]:
    """Return the model versions that an endpoint holds, by reference: champion and arms."""
    versions = {route.champion.reference: Version(route.champion, route.limits)}
    for experiment in route.experiments:
        for arm in experiment.arms:
            versions.setdefault(arm.served.reference, Version(arm.served, arm.limits))
    return versions


def find_version(route: EndpointRoute, text: str) -> Version:
    """Return the version that a client names: a reference, or a number, which is one of the champion's model.

    Raises:
        NotFound: The endpoint holds no such version.
    """
    versions = versions_of(route)
    champion, _, _ = route.champion.reference.partition("@")
    found = versions.get(text) or versions.get(f"{champion}@{text}")
    if found is None:
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise NotFound(f"endpoint {route.name!r} holds no model version {shown!r}; it holds {', '.join(versions)}")
    return found


_KINDS: Mapping[type[Exception], type[TurnoutError]] = {Overloaded: Overloaded, RemoteUnavailable: Unavailable}
"""What the client is told of errors after which the same request may succeed; others mean that the model failed."""


class Unrouted:
    """Asks one model version."""

    def __init__(self, runner: ModelRunner, *, max_batch: int) -> None:
        self._runner = runner
        self._max_batch = max_batch

    async def predict(self, version: Version, rows: Rows) -> list[float]:
        """Return one number per row.

        Raises:
            InvalidInput, RequestTooLarge: There are no rows, or too many.
            Unavailable: The model is not loaded or too busy, or its server does not answer.
            PredictionFailed: It failed, or took too long; no other model is asked.
        """
        if not rows:
            raise InvalidInput("there are no rows; send at least one", field="inputs")
        if len(rows) > self._max_batch:
            raise RequestTooLarge(f"{len(rows)} rows in one request; the limit is {self._max_batch}: send several")
        served, limits = version
        if served.model is None:
            raise Unavailable(f"model {served.reference!r} is not loaded: {served.problem}")
        try:
            return await self._runner.run(served, rows, limits)
        except Exception as error:
            message = f"model {served.reference!r}: {describe(error, limits)}"
            raise _KINDS.get(type(error), PredictionFailed)(message) from error
