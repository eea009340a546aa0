"""Liveness and readiness."""

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE

from router.http.access import public
from router.service import Service


class Readiness(msgspec.Struct, frozen=True):
    """Whether every model that is needed serves; `problems` says which does not and why."""

    status: str
    models: int
    problems: dict[str, str]


@get("/health/live", sync_to_thread=False, tags=["health"], **public())
def live() -> dict[str, str]:
    """Answer as long as the process handles requests."""
    return {"status": "live"}


@get("/health/ready", sync_to_thread=False, tags=["health"], **public())
def ready(service: NamedDependency[Service]) -> Response[Readiness]:
    """Answer 200 while an endpoint can answer, `degraded` when some model could not be loaded; else 503."""
    routes = service.routes()
    served = {route.champion.reference for route in routes.endpoints.values()}
    served |= {
        arm.served.reference
        for route in routes.endpoints.values()
        for experiment in route.experiments
        for arm in experiment.arms
        if arm.served.model is not None
    }
    if routes.dead_endpoints and not routes.endpoints:
        status, code = "unavailable", HTTP_503_SERVICE_UNAVAILABLE
    else:
        status, code = "degraded" if routes.problems else "ready", HTTP_200_OK
    return Response(Readiness(status, len(served), dict(routes.problems)), status_code=code)
