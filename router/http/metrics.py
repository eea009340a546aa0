"""Metrics for Prometheus."""

from litestar import Response, get
from litestar.di import NamedDependency

from router.http.access import needs
from router.metrics import CONTENT_TYPE
from router.service import Service


@get("/metrics", media_type=CONTENT_TYPE, tags=["health"], **needs("read"))
async def metrics(service: NamedDependency[Service]) -> Response[bytes]:
    """Return this process's metrics in Prometheus's text format."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)
