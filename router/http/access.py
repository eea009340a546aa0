"""Which scope every call needs: each handler declares it, one guard checks it, and a handler without one is refused."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

from litestar import Litestar, Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import ImproperlyConfiguredException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Reference, SecurityScheme
from litestar.routes import HTTPRoute

from router.gate import Gate
from router.http.problems import MEDIA_TYPE, Problem
from router.keys import SCOPES, Caller, Scope

PUBLIC: Final = "public"
"""The scope of calls that need no key."""

SECURITY_SCHEMES: dict[str, SecurityScheme | Reference] = {
    "bearer": SecurityScheme(
        type="http", scheme="bearer", description="An API key, as `turnout key create` prints it."
    ),
    "header": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header", description="The same key."),
}
SECURITY: list[dict[str, list[str]]] = [{name: []} for name in SECURITY_SCHEMES]

_SCOPE = "scope"
_BEARER = b"bearer "
_ALWAYS = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
}

Connection = ASGIConnection[Any, Any, Any, Any]


def needs(scope: Scope, *statuses: int) -> dict[str, Any]:
    """Return what a handler declares: the scope that its callers need, and the problems of its own that it answers."""
    return {"opt": {_SCOPE: scope}, "responses": _responses({*_ALWAYS, *statuses})}


def public(*statuses: int) -> dict[str, Any]:
    """Return what a handler declares that anybody may call."""
    return {"opt": {_SCOPE: PUBLIC}, "responses": _responses(set(statuses)), "security": [{}]}


def guard(gate: Gate) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
    """Return the guard of the whole application."""

    async def admit(connection: Connection, handler: BaseRouteHandler) -> None:
        scope = handler.opt[_SCOPE]
        if scope != PUBLIC:
            connection.scope["auth"] = gate.admit(shown_key(connection.scope["headers"]), scope)

    return admit


def caller_of(request: Request[Any, Caller, State]) -> Caller:
    """Return who makes a call that is not public."""
    return request.auth


def check_scopes(app: Litestar) -> None:
    """Refuse an application some of whose handlers do not say which scope they need."""
    for path, handler in _handlers(app):
        if isinstance(handler, HTTPRouteHandler) and handler.http_methods == {"OPTIONS"}:
            # Litestar adds these; what they tell is in the OpenAPI document, but nobody needs them.
            handler.opt.setdefault(_SCOPE, "read")
        if handler.opt.get(_SCOPE) not in {PUBLIC, *SCOPES}:
            raise ImproperlyConfiguredException(f"{handler} on {path} declares no scope; add **needs(..) or **public()")


def _handlers(app: Litestar) -> Iterator[tuple[str, BaseRouteHandler]]:
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else [route.route_handler]:
            yield route.path, handler


def shown_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the key of `Authorization: Bearer`, else of `X-API-Key`."""
    shown = None
    for name, value in headers:
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            return _text(value[len(_BEARER) :])
        if name == b"x-api-key":
            shown = _text(value)
    return shown


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip()


def _responses(statuses: set[int]) -> dict[int, ResponseSpec]:
    return {
        int(status): ResponseSpec(Problem, False, HTTPStatus(status).phrase, MEDIA_TYPE) for status in sorted(statuses)
    }
