"""Turning the control tables into routes: models load beside the running ones, then everything is swapped."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import msgspec

from models.errors import ModelError
from models.reference import ModelReference
from models.registry import Registry
from models.runtime import Model
from models.signature import BatchEncoder, Signature, input_struct
from router.documents import Endpoint
from router.ledger.control import ControlTables
from router.ledger.control_writing import EndpointRecord, ExperimentRecord
from router.serving.inline import MOST_ROWS
from router.serving.requests import rank_decoder, request_decoder
from router.serving.routes import (
    EndpointRoute,
    ExperimentRoute,
    Limits,
    Routes,
    ServedModel,
    endpoint_limits,
    experiment_route,
    shadow_models,
)

INLINE_LIMIT_S = 0.001
"""A model whose single prediction takes longer is called in a thread; for a faster one the hop would cost more."""

_GAIN = 0.5
"""Requests are gathered for a model that takes less than this share of its time for one row, for each of many."""
_WAKING_S = 5e-6
"""What it costs to put a request to sleep and wake it when its batch is predicted."""
_MEASURED_CALLS = 5
_LONGEST_MEASURED_S = 0.25
"""Of measuring; a refresh must not wait long for a slow model."""

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
            pace = _measure(model, encoder)
        except Exception as error:
            # Whatever a model does when it is loaded, the others are served.
            _logger.exception("cannot load model %s", reference)
            known = isinstance(error, ModelError)
            problem = str(error) if known else f"{reference} cannot be loaded: {type(error).__name__}: {error}"
            return ServedModel(reference, None, None, inline=True, problem=problem)
        return ServedModel(reference, model, encoder, pace.inline, gathers=pace.gathers)

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
        limits = endpoint_limits(document)
        return EndpointRoute(
            name=document.name,
            limits=limits,
            champion=champion,
            signature=signature,
            decoder=rank_decoder(signature) if document.kind == "rank" else request_decoder(signature),
            kind=document.kind,
            experiments=tuple(self._experiments(running, limits)),
            shadows=shadow_models(document.shadows, self._served),
        )

    def _experiments(self, running: Iterable[ExperimentRecord], limits: Limits) -> Iterator[ExperimentRoute]:
        for record in running:
            try:
                yield experiment_route(record, self._served, limits)
            except msgspec.MsgspecError:
                # Of one experiment, so the others are served; the champion answers for this one.
                _logger.exception("cannot read the newest epoch of experiment %r", record.document.name)


def _references(endpoints: Iterable[EndpointRecord], running: Iterable[ExperimentRecord]) -> set[str]:
    champions = {record.document.champion for record in endpoints}
    return champions | {arm.model for record in running for arm in record.document.arms}


class _Pace(NamedTuple):
    inline: bool
    gathers: bool


def _measure(model: Model, encoder: BatchEncoder) -> _Pace:
    """Return how a model is called best, by its speed on the manifest's sample rows; it is warm already."""
    if hasattr(model, "predict_async"):
        # Another server computes, and may gather by itself.
        return _Pace(inline=False, gathers=False)
    rows = msgspec.convert(list(model.manifest.sample.inputs), list[input_struct(model.signature)])  # type: ignore[misc]
    one_s = _seconds_per_call(model, encoder, rows[:1])
    inline = one_s < INLINE_LIMIT_S
    if one_s > _LONGEST_MEASURED_S:
        return _Pace(inline, gathers=False)
    try:
        each_s = _seconds_per_call(model, encoder, list(islice(cycle(rows), MOST_ROWS))) / MOST_ROWS
    except Exception as error:  # noqa: BLE001 (it takes one row, as its sample showed, and not so many)
        _logger.warning("model %s fails with %d rows at once: %r", model.reference, MOST_ROWS, error)
        return _Pace(inline, gathers=False)
    return _Pace(inline, gathers=each_s < _GAIN * one_s and one_s - each_s > _WAKING_S)


def _seconds_per_call(model: Model, encoder: BatchEncoder, rows: Sequence[msgspec.Struct]) -> float:
    """Return the median time of a few calls; of fewer, where they take long."""
    times: list[float] = []
    while len(times) < _MEASURED_CALLS and sum(times) < _LONGEST_MEASURED_S:
        start = time.perf_counter()
        model.predict(encoder.encode(rows))
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
