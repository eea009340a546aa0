"""Liveness and readiness."""

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE

from router.http.access import public
from router.service import Service


class Readiness(msgspec.Struct, frozen=True):
    """Whether every model that is needed serves and the ledger is there; `problems` says what is wrong."""

    status: str
    models: int
    problems: dict[str, str]


@get("/health/live", sync_to_thread=False, tags=["health"], **public())
def live() -> dict[str, str]:
    """Answer as long as the process handles requests."""
    return {"status": "live"}


@get("/health/ready", sync_to_thread=False, tags=["health"], **public())
def ready(service: NamedDependency[Service]) -> Response[Readiness]:
    """Answer 200 while an endpoint can answer, `degraded` while a model or the ledger is missing; else 503."""
    routes, ledger = service.routes(), service.ledger_state()
    problems = dict(routes.problems)
    if ledger.problem is not None:
        # Anybody may read this; what the database said is in the log.
        problems["ledger"] = f"the database is away; {ledger.spooled} decisions or outcomes wait in the spool"
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
        status, code = "degraded" if problems else "ready", HTTP_200_OK
    return Response(Readiness(status, len(served), problems), status_code=code)
