"""An immutable snapshot of everything that the data plane needs: endpoints, running experiments, loaded models."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from models.runtime import Model
from models.signature import BatchEncoder, Signature
from router.assignment.audience import Condition
from router.assignment.epochs import Epoch
from router.assignment.hashing import traffic_seed
from router.errors import ChampionUnavailable, UnknownEndpoint
from router.ledger.control import ExperimentRecord


class ServedModel(NamedTuple):
    """A model version and how it is served; `model` is None, and `problem` says why, when it could not be loaded."""

    reference: str
    model: Model | None
    encoder: BatchEncoder | None
    inline: bool
    problem: str | None = None


class ArmRoute(NamedTuple):
    """An arm of a running experiment."""

    name: str
    served: ServedModel


class ExperimentRoute(NamedTuple):
    """A running experiment as the draw needs it."""

    id: int
    name: str
    traffic_seed: str
    traffic_buckets: int
    audience: tuple[Condition, ...]
    by_request: bool
    sticky: bool
    epoch: Epoch
    counts: Mapping[int, int]
    """How many of the epoch's buckets each number has, the holdout's included."""
    arms: tuple[ArmRoute, ...]


class EndpointRoute(NamedTuple):
    """An endpoint: its champion, its input format and the experiments that may take a unit, in order."""

    name: str
    timeout_s: float
    champion: ServedModel
    signature: Signature
    decoder: msgspec.json.Decoder[Any]
    experiments: tuple[ExperimentRoute, ...]


class Routes(NamedTuple):
    """The snapshot. A new one replaces it whole; it never changes."""

    version: int
    endpoints: Mapping[str, EndpointRoute]
    experiments: Mapping[int, ExperimentRecord]
    problems: Mapping[str, str]
    """Why a model version could not be loaded, by its reference."""
    dead_endpoints: Mapping[str, str]
    """Why an endpoint cannot answer, by its name: its champion could not be loaded."""

    def endpoint(self, name: str) -> EndpointRoute:
        """Return an endpoint's route, or raise UnknownEndpoint or ChampionUnavailable."""
        route = self.endpoints.get(name)
        if route is not None:
            return route
        if name in self.dead_endpoints:
            raise ChampionUnavailable(f"endpoint {name!r} cannot answer: {self.dead_endpoints[name]}")
        raise UnknownEndpoint(name, sorted(self.endpoints))


def experiment_route(record: ExperimentRecord, served: Mapping[str, ServedModel]) -> ExperimentRoute:
    """Return the route of a started experiment whose arms' models are in `served`."""
    document = record.document
    if record.epoch is None:
        raise AssertionError(f"experiment {document.name!r} is {record.state} but has no epoch")
    return ExperimentRoute(
        id=record.id,
        name=document.name,
        traffic_seed=traffic_seed(document.name),
        traffic_buckets=record.epoch.traffic,
        audience=tuple(document.audience),
        by_request=document.randomise == "request",
        sticky=document.sticky,
        epoch=record.epoch,
        counts={number: record.epoch.table.count(number) for number in set(record.epoch.table)},
        arms=tuple(ArmRoute(arm.name, served[arm.model]) for arm in document.arms),
    )
