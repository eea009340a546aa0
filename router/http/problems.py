"""Errors as RFC 9457 problem details: one table from every error class to its status."""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from models import errors as model_errors
from router import errors
from router.documents import Fault, fault_at

STATUS: dict[type[Exception], HTTPStatus] = {
    errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
    errors.RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.ScopeMissing: HTTPStatus.FORBIDDEN,
    errors.RateExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.RevisionRequired: HTTPStatus.PRECONDITION_REQUIRED,
    errors.RevisionMismatch: HTTPStatus.PRECONDITION_FAILED,
    errors.PredictionFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.CannotStart: HTTPStatus.INTERNAL_SERVER_ERROR,
    model_errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    model_errors.RegistryUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    model_errors.RemoteUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    model_errors.InvalidReference: HTTPStatus.BAD_REQUEST,
    model_errors.ModelError: HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""The nearest class in an error's ancestry decides."""

RETRY_AFTER_S = 1
MEDIA_TYPE = "application/problem+json"

_logger = logging.getLogger(__name__)


def status_of(error: Exception) -> HTTPStatus:
    """Return the status of one of our errors; 500 for what nobody raised on purpose."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return HTTPStatus.INTERNAL_SERVER_ERROR


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong (RFC 9457): `code` never changes, `field` names what is wrong in the request, where it can."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    field: str | msgspec.UnsetType = msgspec.UNSET


def problem(
    status: HTTPStatus, detail: str, code: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
) -> Response[Problem]:
    """Return a problem-details response."""
    content = Problem(title=status.phrase, status=status, detail=detail, code=code, field=field or msgspec.UNSET)
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def from_known_error(_: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Answer an error of ours: status by the table, `code` by its class, `field` where it names one."""
    status = status_of(error)
    field = getattr(error, "field", None)
    return problem(status, str(error), _code(type(error)), field=field, headers=_headers(error, status))


def from_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Answer what Litestar raised: unknown path or method, body too large or empty, a parameter of another type."""
    status = HTTPStatus(error.status_code)
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        faults = [_fault(request, item) for item in error.extra]
        details = "; ".join(str(fault.error()) for fault in faults)
        return problem(status, details or error.detail, "invalid-request", field=faults[0].field if faults else None)
    return problem(status, error.detail or status.phrase, _slug(status.phrase), headers=error.headers)


def from_bug(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Answer what nobody foresaw, without telling the client what it was."""
    _logger.error("unhandled error on %s %s", request.method, request.url.path, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return problem(status, "the router failed; its log has the details", _slug(status.phrase))


def from_unreadable_body(_: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Answer a body that is no UTF-8 or nested too deeply, which decoders do not report as their own errors."""
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else "it is not UTF-8"
    status = HTTPStatus.BAD_REQUEST
    return problem(status, f"the body cannot be read: {reason}", "invalid-request")


HANDLERS: dict[type[Exception] | int, Any] = {
    errors.TurnoutError: from_known_error,
    model_errors.ModelError: from_known_error,
    UnicodeDecodeError: from_unreadable_body,
    RecursionError: from_unreadable_body,
    HTTPException: from_http_exception,
    Exception: from_bug,
}


def handler_of(error: Exception) -> Any:
    """Return the handler of the nearest class in an error's ancestry."""
    return next(HANDLERS[ancestor] for ancestor in type(error).__mro__ if ancestor in HANDLERS)


def _fault(request: Request[Any, Any, Any], item: Mapping[str, str]) -> Fault:
    """Return what is wrong with a parameter of the query, or with a body, which Litestar reads unless it is empty."""
    if item.get("source") == "body":
        return Fault(None, "it is empty; send a document in JSON")
    key = item.get("key", "")
    return fault_at(request.query_params.get(key), msgspec.ValidationError(item["message"]), Any).within(key)


def _headers(error: Exception, status: HTTPStatus) -> dict[str, str]:
    """Return the headers with which clients know what to do next."""
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="turnout"'}
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        return {"Retry-After": str(math.ceil(getattr(error, "retry_after_s", RETRY_AFTER_S)))}
    return {}


def _slug(phrase: str) -> str:
    return phrase.lower().replace(" ", "-")


def _code(error: type[Exception]) -> str:
    """Return the class's name as `unknown-endpoint`."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in error.__name__).strip("-")
