"""The protocol's calls. The model name is the endpoint's; a version is a model version, which is served unrouted."""

from collections.abc import Sequence
from importlib.metadata import version as installed_version
from typing import Any, Literal

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE

from models.errors import InvalidTensor
from models.open_inference.bodies import Body
from models.open_inference.messages import (
    BINARY_EXTENSION,
    HEADER_LENGTH,
    ModelMetadata,
    ServerError,
    ServerMetadata,
    TensorMetadata,
)
from models.signature import Kind
from router.errors import InvalidRequest
from router.http.access import caller_of, needs, public
from router.http.open_inference.calls import OUTPUT, Call, read_call, routed_reply, unrouted_reply
from router.http.open_inference.compression import uncompressed
from router.http.problems import Problem
from router.service import Service
from router.serving.requests import FORCED_ARM_HEADER
from router.serving.routes import EndpointRoute
from router.serving.unrouted import find_version, versions_of

PREFIX = "/v2"

_DATATYPES: dict[Kind, str] = {"number": "FP64", "boolean": "BOOL", "category": "BYTES"}
_PLATFORM = "turnout"


class Live(msgspec.Struct, frozen=True):
    """Whether the process handles requests."""

    live: bool


class Ready(msgspec.Struct, frozen=True):
    """Whether an endpoint can answer."""

    ready: bool


class ModelReady(msgspec.Struct, frozen=True):
    """Whether this endpoint, or this version on it, can answer."""

    name: str
    ready: bool


class IndexEntry(msgspec.Struct, frozen=True):
    """A model version on an endpoint, and whether it is loaded; a dead endpoint has no version."""

    name: str
    version: str | msgspec.UnsetType
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class IndexRequest(msgspec.Struct, frozen=True):
    """Which entries are wanted: only those that are loaded, or all."""

    ready: bool = False


def error_shape(problem: Problem, _: str) -> ServerError:
    """Return a problem as the protocol tells it."""
    return ServerError(problem.detail)


def open_inference(service: Service, *, max_body_bytes: int) -> list[HTTPRouteHandler]:
    """Return the handlers over a service."""
    return [*_server_calls(service), *_model_calls(service), *_infer_calls(service, max_body_bytes)]


def _server_calls(service: Service) -> list[HTTPRouteHandler]:
    metadata = ServerMetadata(
        name="turnout", version=installed_version("turnout"), extensions=[BINARY_EXTENSION, "model_repository"]
    )

    @get(PREFIX, sync_to_thread=False, include_in_schema=False, **needs("predict"))
    def server() -> ServerMetadata:
        return metadata

    @get(f"{PREFIX}/health/live", sync_to_thread=False, include_in_schema=False, **public())
    def live() -> Live:
        return Live(live=True)

    @get(f"{PREFIX}/health/ready", sync_to_thread=False, include_in_schema=False, **public())
    def ready() -> Response[Ready]:
        routes = service.routes()
        is_ready = bool(routes.endpoints) or not routes.dead_endpoints
        return Response(Ready(is_ready), status_code=HTTP_200_OK if is_ready else HTTP_503_SERVICE_UNAVAILABLE)

    @post(f"{PREFIX}/repository/index", status_code=HTTP_200_OK, include_in_schema=False, **needs("predict"))
    async def index(request: Request[Any, Any, State]) -> list[IndexEntry]:
        body = await request.body()
        try:
            wanted = msgspec.json.decode(body, type=IndexRequest) if body.strip() else IndexRequest()
        except msgspec.DecodeError as error:
            raise InvalidRequest(f'the body is not {{"ready": true or false}}: {error}') from None
        routes = service.routes()
        entries = [entry for route in routes.endpoints.values() for entry in _entries(route)]
        entries += [IndexEntry(name, msgspec.UNSET, "UNAVAILABLE", why) for name, why in routes.dead_endpoints.items()]
        return [entry for entry in entries if entry.state == "READY" or not wanted.ready]

    return [server, live, ready, index]


def _model_calls(service: Service) -> list[HTTPRouteHandler]:
    @get(f"{PREFIX}/models/{{name:str}}", sync_to_thread=False, include_in_schema=False, **needs("predict"))
    def model(name: FromPath[str]) -> ModelMetadata:
        route = service.routes().endpoint(name)
        return _metadata(route, list(versions_of(route)))

    @get(
        f"{PREFIX}/models/{{name:str}}/versions/{{version:str}}",
        sync_to_thread=False,
        include_in_schema=False,
        **needs("predict"),
    )
    def model_version(name: FromPath[str], version: FromPath[str]) -> ModelMetadata:
        route = service.routes().endpoint(name)
        return _metadata(route, [find_version(route, version).served.reference])

    @get(f"{PREFIX}/models/{{name:str}}/ready", sync_to_thread=False, include_in_schema=False, **needs("predict"))
    def model_ready(name: FromPath[str]) -> ModelReady:
        return ModelReady(service.routes().endpoint(name).name, ready=True)

    @get(
        f"{PREFIX}/models/{{name:str}}/versions/{{version:str}}/ready",
        sync_to_thread=False,
        include_in_schema=False,
        **needs("predict"),
    )
    def version_ready(name: FromPath[str], version: FromPath[str]) -> Response[ModelReady]:
        found = find_version(service.routes().endpoint(name), version)
        is_ready = found.served.model is not None
        status = HTTP_200_OK if is_ready else HTTP_503_SERVICE_UNAVAILABLE
        return Response(ModelReady(name, is_ready), status_code=status)

    return [model, model_version, model_ready, version_ready]


def _infer_calls(service: Service, max_body_bytes: int) -> list[HTTPRouteHandler]:
    @post(f"{PREFIX}/models/{{name:str}}/infer", status_code=HTTP_200_OK, include_in_schema=False, **needs("predict"))
    async def infer(name: FromPath[str], request: Request[Any, Any, State]) -> Response[bytes]:
        forced = request.headers.get(FORCED_ARM_HEADER)
        if forced is not None:
            caller_of(request).require("admin")
        route = _predicting(service, name)
        call = await _read(route, request, max_body_bytes)
        return _response(routed_reply(name, call, await service.predictor.answer(route, call.request, forced)))

    @post(
        f"{PREFIX}/models/{{name:str}}/versions/{{version:str}}/infer",
        status_code=HTTP_200_OK,
        include_in_schema=False,
        **needs("predict"),
    )
    async def infer_version(
        name: FromPath[str], version: FromPath[str], request: Request[Any, Any, State]
    ) -> Response[bytes]:
        route = _predicting(service, name)
        found = find_version(route, version)
        call = await _read(route, request, max_body_bytes)
        predictions = await service.unrouted.predict(found, call.request.rows)
        return _response(unrouted_reply(name, call, found.served.reference, predictions))

    return [infer, infer_version]


def _predicting(service: Service, name: str) -> EndpointRoute:
    """Return an endpoint's route, if the protocol has a call for its kind."""
    route = service.routes().endpoint(name)
    if route.kind == "rank":
        raise InvalidRequest(
            f"endpoint {name!r} ranks candidates, for which this protocol has no call: POST /v1/endpoints/{name}/rank"
        )
    return route


async def _read(route: EndpointRoute, request: Request[Any, Any, State], limit: int) -> Call:
    body = uncompressed(await request.body(), request.headers.get("Content-Encoding"), limit)
    try:
        return read_call(body, request.headers.get(HEADER_LENGTH), route.signature)
    except InvalidTensor as error:
        raise InvalidRequest(str(error), field="inputs") from None


def _response(body: Body) -> Response[bytes]:
    headers = body.headers
    return Response(body.content, media_type=headers.pop("Content-Type"), headers=headers)


def _metadata(route: EndpointRoute, versions: Sequence[str]) -> ModelMetadata:
    inputs = [
        TensorMetadata(name=feature.name, datatype=_DATATYPES[feature.kind], shape=[-1])
        for feature in route.signature.features
    ]
    output = TensorMetadata(name=OUTPUT, datatype="FP64", shape=[-1])
    return ModelMetadata(name=route.name, versions=list(versions), platform=_PLATFORM, inputs=inputs, outputs=[output])


def _entries(route: EndpointRoute) -> list[IndexEntry]:
    return [
        IndexEntry(route.name, reference, "READY", "")
        if version.served.model is not None
        else IndexEntry(route.name, reference, "UNAVAILABLE", version.served.problem or "the model is not loaded")
        for reference, version in versions_of(route).items()
    ]
