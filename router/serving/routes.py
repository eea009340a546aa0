"""An immutable snapshot of everything that the data plane needs: endpoints, running experiments, loaded models."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from models.runtime import Model
from models.signature import BatchEncoder, Signature
from router.allocation.bandit import Contexts, read_basis
from router.assignment.audience import Condition
from router.assignment.epochs import Epoch
from router.assignment.hashing import traffic_seed
from router.documents import Arm, Breaker, Contextual, Endpoint, Experiment, Interleave
from router.errors import ChampionUnavailable, UnknownEndpoint
from router.ledger.control_writing import ExperimentRecord


class ServedModel(NamedTuple):
    """A model version and how it is served; `model` is None, and `problem` says why, when it could not be loaded."""

    reference: str
    model: Model | None
    encoder: BatchEncoder | None
    inline: bool
    problem: str | None = None
    gathers: bool = False
    """Whether requests that come in one turn of the event loop, or while its threads are busy, become one call."""


class Limits(NamedTuple):
    """What a model may take of an endpoint's time, and when it is left alone."""

    timeout_s: float
    max_concurrency: int
    breaker: Breaker

    def of(self, arm: Arm) -> "Limits":
        """Return the limits of an arm of the endpoint that has these."""
        return Limits(
            self.timeout_s if arm.timeout_ms is None else arm.timeout_ms / 1000,
            arm.max_concurrency or self.max_concurrency,
            self.breaker,
        )


class ArmRoute(NamedTuple):
    """An arm of a running experiment."""

    name: str
    served: ServedModel
    limits: Limits


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
    shadows: tuple[ServedModel, ...] = ()
    """What sees the experiment's requests after their reply."""
    interleave: Interleave | None = None
    """How the rankings of all arms are mixed, where they are."""
    contexts: Contexts | None = None
    """Draws the arm by the request's context, where that decides."""


class EndpointRoute(NamedTuple):
    """An endpoint: its champion, its input format and the experiments that may take a unit, in order."""

    name: str
    limits: Limits
    champion: ServedModel
    signature: Signature
    decoder: msgspec.json.Decoder[Any]
    experiments: tuple[ExperimentRoute, ...]
    shadows: tuple[ServedModel, ...] = ()
    """What sees every request after its reply."""
    kind: Literal["predict", "rank"] = "predict"


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

    def limits_in_use(self) -> dict[str, set[Limits]]:
        """Return the model versions that may be called, and under which limits each."""
        used: dict[str, set[Limits]] = {}
        for route in self.endpoints.values():
            for arm in (arm for experiment in route.experiments for arm in experiment.arms):
                used.setdefault(arm.served.reference, set()).add(arm.limits)
            used.setdefault(route.champion.reference, set()).add(route.limits)
        return used


def endpoint_limits(document: Endpoint) -> Limits:
    """Return the limits of the champion, and of arms that say nothing else."""
    return Limits(document.timeout_ms / 1000, document.max_concurrency, document.breaker)


def experiment_route(record: ExperimentRecord, served: Mapping[str, ServedModel], limits: Limits) -> ExperimentRoute:
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
        by_request=document.by_request,
        sticky=document.sticky,
        epoch=record.epoch,
        counts={number: record.epoch.table.count(number) for number in set(record.epoch.table)},
        arms=tuple(ArmRoute(arm.name, served[arm.model], limits.of(arm)) for arm in document.arms),
        shadows=shadow_models(document.shadows, served),
        interleave=document.allocation if isinstance(document.allocation, Interleave) else None,
        contexts=_contexts(document, record.epoch),
    )


def shadow_models(references: Iterable[str], served: Mapping[str, ServedModel]) -> tuple[ServedModel, ...]:
    """Return shadows by their references; a model that only is a shadow is loaded by another process, not by this."""
    return tuple(
        served.get(reference) or ServedModel(reference, None, None, inline=True, problem="it is a shadow")
        for reference in references
    )


def _contexts(document: Experiment, epoch: Epoch) -> Contexts | None:
    if epoch.basis is None or not isinstance(document.allocation, Contextual):
        return None
    return Contexts(document, read_basis(epoch.basis))
