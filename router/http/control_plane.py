"""The calls that operators make: endpoints, experiments and models; a write answers with the new revision as ETag."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Protocol, TypeVar

import msgspec
from litestar import Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from models.manifest import Manifest
from models.reference import ModelReference
from router.documents import Endpoint, Experiment
from router.errors import InvalidDocument
from router.http.access import needs
from router.http.schemas import ConditionalOperation
from router.http.views import (
    AuditView,
    EndpointView,
    EpochView,
    ExperimentView,
    audit_view,
    endpoint_view,
    epoch_view,
    experiment_view,
)
from router.keys import Caller
from router.ledger.control_writing import ExperimentRecord
from router.service import Service

IfMatch = Annotated[
    str | None,
    HeaderParameter(name="If-Match", description='The revision that the change is based on, such as "3".'),
]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="How many entries to return.")]
Before = Annotated[int | None, QueryParameter(ge=1, le=2**53, description="Only entries with a lower id or number.")]
CREATE = needs("admin", 404, 409, 413, 422)
REPLACE = {"operation_class": ConditionalOperation, **needs("admin", 404, 409, 412, 413, 422, 428)}
MOVE = {"operation_class": ConditionalOperation, **needs("admin", 404, 409, 412, 422, 428)}


class Revised(Protocol):
    """What has a revision."""

    @property
    def revision(self) -> int:
        """Rises with every change."""
        ...


View = TypeVar("View", bound=Revised)
Record = TypeVar("Record")


class ModelView(msgspec.Struct, frozen=True):
    """A model version in the registry."""

    model: str
    runtime: str
    output: str
    created_at: str


@get("/v1/endpoints", tags=["endpoints"], **needs("read"))
async def list_endpoints(service: NamedDependency[Service]) -> list[EndpointView]:
    """List the endpoints, by name."""
    return [endpoint_view(record) for record in await asyncio.to_thread(service.control.endpoints)]


@get("/v1/endpoints/{name:str}", tags=["endpoints"], **needs("read", 404))
async def read_endpoint(name: FromPath[str], service: NamedDependency[Service]) -> Response[EndpointView]:
    """Return one endpoint."""
    return tagged(endpoint_view(await asyncio.to_thread(service.control.endpoint, name)))


@post("/v1/endpoints", tags=["endpoints"], **CREATE)
async def create_endpoint(
    data: JSONBody[Endpoint], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[EndpointView]:
    """Create an endpoint; its champion serves at once."""
    record = await write(service, lambda: service.control.create_endpoint(data, actor=caller.actor))
    return tagged(endpoint_view(record))


@put("/v1/endpoints/{name:str}", tags=["endpoints"], **REPLACE)
async def replace_endpoint(
    name: FromPath[str],
    data: JSONBody[Endpoint],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    if_match: IfMatch = None,
) -> Response[EndpointView]:
    """Replace an endpoint, for instance to change its champion."""
    _same_name(name, data.name)
    record = await write(service, lambda: service.control.replace_endpoint(data, if_match, actor=caller.actor))
    return tagged(endpoint_view(record))


@get("/v1/experiments", tags=["experiments"], **needs("read"))
async def list_experiments(service: NamedDependency[Service]) -> list[ExperimentView]:
    """List the experiments in the order in which they may take a unit."""
    return [experiment_view(record) for record in await asyncio.to_thread(service.control.experiments)]


@get("/v1/experiments/{name:str}", tags=["experiments"], **needs("read", 404))
async def read_experiment(name: FromPath[str], service: NamedDependency[Service]) -> Response[ExperimentView]:
    """Return one experiment."""
    return tagged(experiment_view(await asyncio.to_thread(service.control.experiment, name)))


@get("/v1/experiments/{name:str}/allocation", tags=["experiments"], **needs("read", 404))
async def read_allocation(
    name: FromPath[str], service: NamedDependency[Service], limit: Limit = 100, before: Before = None
) -> list[EpochView]:
    """Return the newest epochs and their probabilities, oldest first; older ones are `before` the first of them."""
    record = await asyncio.to_thread(service.control.experiment, name)
    epochs = await asyncio.to_thread(service.control.epochs, name, limit, before)
    return [epoch_view(epoch, record.document) for epoch in epochs]


@post("/v1/experiments", tags=["experiments"], **CREATE)
async def create_experiment(
    data: JSONBody[Experiment], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[ExperimentView]:
    """Create an experiment as a draft; it takes units once it is started."""
    record = await write(service, lambda: service.control.create_experiment(data, actor=caller.actor))
    return tagged(experiment_view(record))


@put("/v1/experiments/{name:str}", tags=["experiments"], **REPLACE)
async def replace_experiment(
    name: FromPath[str],
    data: JSONBody[Experiment],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    if_match: IfMatch = None,
) -> Response[ExperimentView]:
    """Replace a draft, or change the weights or traffic of a started experiment; units move as little as possible."""
    _same_name(name, data.name)
    record = await write(service, lambda: service.control.replace_experiment(data, if_match, actor=caller.actor))
    return tagged(experiment_view(record))


@post("/v1/experiments/{name:str}/start", status_code=HTTP_200_OK, tags=["experiments"], **MOVE)
async def start_experiment(
    name: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller], if_match: IfMatch = None
) -> Response[ExperimentView]:
    """Start a draft: it takes units from now on."""
    return await moved(service, lambda: service.control.start(name, if_match, actor=caller.actor))


@post("/v1/experiments/{name:str}/pause", status_code=HTTP_200_OK, tags=["experiments"], **MOVE)
async def pause_experiment(
    name: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller], if_match: IfMatch = None
) -> Response[ExperimentView]:
    """Stop taking units; the champion serves them until the experiment is resumed."""
    return await moved(service, lambda: service.control.pause(name, if_match, actor=caller.actor))


@post("/v1/experiments/{name:str}/resume", status_code=HTTP_200_OK, tags=["experiments"], **MOVE)
async def resume_experiment(
    name: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller], if_match: IfMatch = None
) -> Response[ExperimentView]:
    """Take units again; every unit gets the arm that it had."""
    return await moved(service, lambda: service.control.resume(name, if_match, actor=caller.actor))


@post("/v1/experiments/{name:str}/conclude", status_code=HTTP_200_OK, tags=["experiments"], **MOVE)
async def conclude_experiment(
    name: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller], if_match: IfMatch = None
) -> Response[ExperimentView]:
    """End the experiment for good; late outcomes still count."""
    return await moved(service, lambda: service.control.conclude(name, if_match, actor=caller.actor))


@get("/v1/models", tags=["models"], **needs("read"))
async def list_models(service: NamedDependency[Service]) -> list[ModelView]:
    """List the model versions in the registry."""
    manifests = await asyncio.to_thread(_manifests, service)
    return [
        ModelView(f"{each.name}@{each.version}", each.runtime, each.signature.output, str(each.created_at))
        for each in manifests
    ]


@get("/v1/models/{reference:str}", tags=["models"], **needs("read", 404, 422))
async def read_model(reference: FromPath[str], service: NamedDependency[Service]) -> Manifest:
    """Return the manifest of `name@version`: signature, metrics, datasets, parity and digests."""
    return await asyncio.to_thread(service.registry.manifest, ModelReference.parse(reference))


@get("/v1/audit", tags=["audit"], **needs("admin"))
async def read_audit(service: NamedDependency[Service], limit: Limit = 100, before: Before = None) -> list[AuditView]:
    """List who changed what, newest first; the next page is `before` the last entry's id."""
    return [audit_view(record) for record in await asyncio.to_thread(service.audit.page, limit, before)]


CONTROL_PLANE = [
    list_endpoints,
    read_endpoint,
    create_endpoint,
    replace_endpoint,
    list_experiments,
    read_experiment,
    read_allocation,
    create_experiment,
    replace_experiment,
    start_experiment,
    pause_experiment,
    resume_experiment,
    conclude_experiment,
    list_models,
    read_model,
    read_audit,
]


async def write(service: Service, change: Callable[[], Record]) -> Record:
    """Make a change in a thread, then serve by it before the client is answered."""
    record = await asyncio.to_thread(change)
    await service.refresh()
    return record


async def moved(service: Service, move: Callable[[], ExperimentRecord]) -> Response[ExperimentView]:
    """Move an experiment and answer with what it is now."""
    return tagged(experiment_view(await write(service, move)))


def tagged(view: View) -> Response[View]:
    """Answer with the view, and its revision as ETag."""
    return Response(view, headers={"ETag": f'"{view.revision}"'})


def _same_name(path: str, body: str) -> None:
    if path != body:
        raise InvalidDocument(f"the path names {path!r} but the document {body!r}; a name cannot change", field="name")


def _manifests(service: Service) -> list[Manifest]:
    return [service.registry.manifest(reference) for reference in service.registry.references()]
