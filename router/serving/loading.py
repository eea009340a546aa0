"""Turning the control tables into routes: models load beside the running ones, then everything is swapped."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from models.errors import ModelError
from models.reference import ModelReference
from models.registry import Registry
from models.runtime import Model
from models.signature import BatchEncoder, Signature, input_struct
from router.documents import Endpoint
from router.ledger.control import ControlTables, EndpointRecord, ExperimentRecord
from router.serving.requests import request_decoder
from router.serving.routes import EndpointRoute, Routes, ServedModel, experiment_route

INLINE_LIMIT_S = 0.001
"""A model whose single prediction takes longer is called in a thread; for a faster one the hop would cost more."""

LoadModel = Callable[[Registry, ModelReference], Model]

_logger = logging.getLogger(__name__)


class RouteLoader:
    """Builds routes, keeping the models that stay in use."""

    def __init__(self, control: ControlTables, registry: Registry, load_model: LoadModel) -> None:
        self._control = control
        self._registry = registry
        self._load_model = load_model
        self._served: dict[str, ServedModel] = {}

    def load(self, previous: Routes) -> Routes:
        """Return the routes that the control tables describe now; takes as long as loading new models takes.

        A model that cannot be loaded stops no other: its arm falls back to the champion, an endpoint keeps its
        previous champion where the new one cannot be loaded, and answers with the reason where there is none.
        """
        version = self._control.version()
        endpoints = self._control.endpoints()
        experiments = self._control.experiments()
        running = [record for record in experiments if record.state == "running"]
        self._served = {reference: self._serve(reference) for reference in sorted(_references(endpoints, running))}
        kept = {name: route.champion for name, route in previous.endpoints.items()}
        problems = {name: served.problem for name, served in self._served.items() if served.problem is not None}
        champions = {record.document.name: record.document.champion for record in endpoints}
        return Routes(
            version=version,
            endpoints=self._routes(endpoints, running, kept),
            experiments={record.id: record for record in experiments},
            problems=problems,
            dead_endpoints={
                name: problems[model] for name, model in champions.items() if model in problems and name not in kept
            },
        )

    def _serve(self, reference: str) -> ServedModel:
        kept = self._served.get(reference)
        if kept is not None and kept.model is not None:
            return kept
        try:
            model = self._load_model(self._registry, ModelReference.parse(reference))
            encoder = BatchEncoder(model.signature)
            inline = _seconds_per_call(model, encoder) < INLINE_LIMIT_S
        except Exception as error:
            # Whatever a model does when it is loaded, the others are served.
            _logger.exception("cannot load model %s", reference)
            known = isinstance(error, ModelError)
            problem = str(error) if known else f"{reference} cannot be loaded: {type(error).__name__}: {error}"
            return ServedModel(reference, None, None, inline=True, problem=problem)
        return ServedModel(reference, model, encoder, inline)

    def _routes(
        self,
        endpoints: Iterable[EndpointRecord],
        running: Iterable[ExperimentRecord],
        kept: Mapping[str, ServedModel],
    ) -> dict[str, EndpointRoute]:
        routes = {}
        for record in endpoints:
            name, champion = record.document.name, self._served[record.document.champion]
            if champion.model is None:
                champion = kept.get(name, champion)
            if champion.model is not None:
                mine = [experiment for experiment in running if experiment.document.endpoint == name]
                routes[name] = self._route(record.document, champion, champion.model.signature, mine)
        return routes

    def _route(
        self,
        document: Endpoint,
        champion: ServedModel,
        signature: Signature,
        running: Iterable[ExperimentRecord],
    ) -> EndpointRoute:
        return EndpointRoute(
            name=document.name,
            timeout_s=document.timeout_ms / 1000,
            champion=champion,
            signature=signature,
            decoder=request_decoder(signature),
            experiments=tuple(experiment_route(experiment, self._served) for experiment in running),
        )


def _references(endpoints: Iterable[EndpointRecord], running: Iterable[ExperimentRecord]) -> set[str]:
    champions = {record.document.champion for record in endpoints}
    return champions | {arm.model for record in running for arm in record.document.arms}


def _seconds_per_call(model: Model, encoder: BatchEncoder) -> float:
    """Return the median time of a few calls on one of the manifest's sample rows; the model is warm already."""
    row = msgspec.convert(model.manifest.sample.inputs[0], input_struct(model.signature))
    batch = encoder.encode([row])
    times = []
    for _ in range(5):
        start = time.perf_counter()
        model.predict(batch)
        times.append(time.perf_counter() - start)
    return sorted(times)[2]
