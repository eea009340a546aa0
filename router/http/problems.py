"""Errors as RFC 9457 problem details: one table from every error class to its status."""

import logging
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from models import errors as model_errors
from router import errors

STATUS: dict[type[Exception], HTTPStatus] = {
    errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
    errors.RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.RevisionRequired: HTTPStatus.PRECONDITION_REQUIRED,
    errors.RevisionMismatch: HTTPStatus.PRECONDITION_FAILED,
    errors.PredictionFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.CannotStart: HTTPStatus.INTERNAL_SERVER_ERROR,
    model_errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    model_errors.RegistryUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
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


def problem(status: int, title: str, detail: str, **members: Any) -> Response[dict[str, Any]]:
    """Return a problem-details response; `members` that are None are left out."""
    extra = {name: value for name, value in members.items() if value is not None}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    content = {"type": "about:blank", "title": title, "status": int(status), "detail": detail, **extra}
    return Response(content, status_code=int(status), media_type=MEDIA_TYPE, headers=headers)


def from_known_error(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Answer an error of ours: status by the table, `code` by its class, `field` where it names one."""
    status = status_of(error)
    return problem(status, status.phrase, str(error), code=_code(type(error)), field=getattr(error, "field", None))


def from_http_exception(_: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
    """Answer what Litestar raised: unknown path or method, body too large, a document that does not fit its type."""
    phrase = HTTPStatus(error.status_code).phrase
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        details = "; ".join(f"{item.get('key', 'body')}: {item['message']}" for item in error.extra)
        return problem(error.status_code, phrase, details or error.detail, code="invalid-request")
    return problem(error.status_code, phrase, error.detail or phrase, code=_slug(phrase))


def from_bug(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Answer what nobody foresaw, without telling the client what it was."""
    _logger.error("unhandled error on %s %s", request.method, request.url.path, exc_info=error)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return problem(status, status.phrase, "the router failed; its log has the details", code=_slug(status.phrase))


def from_unreadable_body(_: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Answer a body that is no UTF-8 or nested too deeply, which decoders do not report as their own errors."""
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else "it is not UTF-8"
    status = HTTPStatus.BAD_REQUEST
    return problem(status, status.phrase, f"the body cannot be read: {reason}", code="invalid-request")


HANDLERS: dict[type[Exception] | int, Any] = {
    errors.TurnoutError: from_known_error,
    model_errors.ModelError: from_known_error,
    UnicodeDecodeError: from_unreadable_body,
    RecursionError: from_unreadable_body,
    HTTPException: from_http_exception,
    Exception: from_bug,
}


def _slug(phrase: str) -> str:
    return phrase.lower().replace(" ", "-")


def _code(error: type[Exception]) -> str:
    """Return the class's name as `unknown-endpoint`."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in error.__name__).strip("-")
