"""The Litestar application over one service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components

from router.http.access import SECURITY, SECURITY_SCHEMES, caller_of, check_scopes, guard, public
from router.http.bodies import StrictRequest
from router.http.control_plane import CONTROL_PLANE
from router.http.data_plane import data_plane
from router.http.health import live, ready
from router.http.hot_calls import Application, HotCalls
from router.http.metrics import metrics
from router.http.ofrep import PREFIX as OFREP
from router.http.ofrep import error_shape as ofrep_error
from router.http.ofrep import ofrep
from router.http.open_inference.handlers import PREFIX as OPEN_INFERENCE
from router.http.open_inference.handlers import error_shape as open_inference_error
from router.http.open_inference.handlers import open_inference
from router.http.problems import HANDLERS
from router.http.rollouts import ROLLOUTS
from router.http.schemas import sharpen
from router.http.shapes import shaped
from router.service import Service
from router.settings import Settings, load

_DESCRIPTION = """\
Routes prediction traffic to several models behind one endpoint, records every decision with the probability with which
its arm was chosen, and counts the outcomes that come back. Errors are RFC 9457 problem details. `/v2` speaks the Open
Inference Protocol V2 and `/ofrep` OpenFeature's remote evaluation; those protocols have documents of their own."""

_ERROR_SHAPES = {OPEN_INFERENCE: open_inference_error, OFREP: ofrep_error}


def create_app(settings: Settings | None = None) -> Litestar:
    """Return the application over the settings of this process; raises CannotStart when it could not serve."""
    settings = load() if settings is None else settings
    return application(Service(settings), max_body_bytes=settings.max_body_bytes)


def application(service: Service, *, max_body_bytes: int) -> Litestar:
    """Return the application over a service that is not started yet."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = Application(
        [
            *data_plane(service),
            *open_inference(service, max_body_bytes=max_body_bytes),
            *ofrep(service),
            *CONTROL_PLANE,
            *ROLLOUTS,
            live,
            ready,
            metrics,
        ],
        request_class=StrictRequest,
        guards=[guard(service.keys.gate)],
        dependencies={
            "service": Provide(lambda: service, sync_to_thread=False),
            "caller": Provide(caller_of, sync_to_thread=False),
        },
        exception_handlers=shaped(HANDLERS, _ERROR_SHAPES),
        lifespan=[lifespan],
        hot=HotCalls(service, max_body_bytes=max_body_bytes),
        openapi_config=_openapi(),
        request_max_body_size=max_body_bytes,
        logging_config=None,
    )
    check_scopes(app)
    sharpen(app.openapi_schema)
    return app


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Turnout",
        version="1",
        description=_DESCRIPTION,
        use_handler_docstrings=True,
        security=SECURITY,
        components=Components(security_schemes=SECURITY_SCHEMES),
        render_plugins=[SwaggerRenderPlugin()],
        openapi_router=Router("/schema", route_handlers=[], include_in_schema=False, opt=public()["opt"]),
    )
