"""Errors in the shapes of the protocols: what the table of problems says, told as the protocol of the path tells it."""

from collections.abc import Callable, Mapping
from typing import Any

from litestar import Request, Response

from router.http.problems import Problem

Shape = Callable[[Problem, str], Any]
"""Turns a problem and the path of its request into the body that the protocol has for it."""

Handler = Callable[[Request[Any, Any, Any], Any], Response[Problem]]


def shaped(handlers: Mapping[type[Exception] | int, Handler], shapes: Mapping[str, Shape]) -> dict[Any, Any]:
    """Return the handlers, their replies reshaped below the paths of `shapes`; status and headers stay."""
    return {error: _reshaping(handler, shapes) for error, handler in handlers.items()}


def _reshaping(handler: Handler, shapes: Mapping[str, Shape]) -> Callable[[Request[Any, Any, Any], Any], Response[Any]]:
    def answer(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
        response = handler(request, error)
        path = request.scope["path"]
        for prefix, shape in shapes.items():
            if path == prefix or path.startswith(f"{prefix}/"):
                content = shape(response.content, path)
                return Response(content, status_code=response.status_code, headers=response.headers)
        return response

    return answer
