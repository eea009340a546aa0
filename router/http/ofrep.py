"""OpenFeature remote evaluation: an experiment is a flag, and the arm is its variant and its value."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from litestar import MediaType, Request, Response, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.status_codes import HTTP_200_OK, HTTP_304_NOT_MODIFIED, HTTP_400_BAD_REQUEST, HTTP_404_NOT_FOUND

from router.assignment.audience import Context
from router.assignment.hashing import BUCKETS
from router.decision_id import encode
from router.documents import fault_at
from router.errors import NotFound
from router.http.access import needs
from router.http.problems import Problem
from router.ledger.records import DecisionRow
from router.service import Service
from router.serving.exposure import Evaluation
from router.serving.requests import Unit

PREFIX = "/ofrep"

NOT_TAKEN = "(none)"
"""The variant of a unit that the experiment does not take; no arm can have such a name."""

_FLAGS = f"{PREFIX}/v1/evaluate/flags"
_TARGETING_KEY = "targetingKey"
_LONGEST_ATTRIBUTE = 128

Reason = Literal["STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED"]

_encode_json = msgspec.json.Encoder().encode


class Flag(msgspec.Struct, frozen=True, omit_defaults=True):
    """An evaluated flag; without a value the application uses its own default."""

    key: str
    reason: Reason
    variant: str
    value: str | None = None
    metadata: dict[str, str | float | bool] = {}


class Flags(msgspec.Struct, frozen=True):
    """All flags, evaluated."""

    flags: list[Flag]


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Why there is no evaluation."""

    key: str | None = None
    error_code: str | None = None
    error_details: str = ""


class _Subject(NamedTuple):
    unit: str
    context: Context


class _Refusal(NamedTuple):
    code: str
    details: str


def error_shape(problem: Problem, path: str) -> Failure:
    """Return a problem as the protocol tells it; the key is the path's, where it has one."""
    key = path.removeprefix(f"{_FLAGS}/") if path.startswith(f"{_FLAGS}/") else None
    code = "PARSE_ERROR" if problem.status == HTTP_400_BAD_REQUEST else "GENERAL"
    return Failure(key, code, problem.detail)


def ofrep(service: Service) -> list[HTTPRouteHandler]:
    """Return the handlers over a service."""

    @post(f"{_FLAGS}/{{key:str}}", status_code=HTTP_200_OK, include_in_schema=False, **needs("predict"))
    async def evaluate(key: FromPath[str], request: Request[Any, Any, State]) -> Response[Flag] | Response[Failure]:
        """Assign the unit and record that it was: the application acts on the answer."""
        subject = _subject(await request.body())
        if isinstance(subject, _Refusal):
            return _failure(HTTP_400_BAD_REQUEST, subject, key)
        try:
            evaluation, decision = await service.exposures.expose(key, *subject)
        except NotFound as error:
            return _failure(HTTP_404_NOT_FOUND, _Refusal("FLAG_NOT_FOUND", str(error)), key)
        return Response(_flag(evaluation, decision))

    @post(_FLAGS, status_code=HTTP_200_OK, include_in_schema=False, **needs("predict"))
    async def evaluate_all(request: Request[Any, Any, State]) -> Response[bytes] | Response[Failure]:
        """Evaluate every running experiment; nobody has acted on one yet, so no decision is recorded."""
        subject = _subject(await request.body())
        if isinstance(subject, _Refusal):
            return _failure(HTTP_400_BAD_REQUEST, subject)
        evaluations = await service.exposures.preview(*subject)
        content = _encode_json(Flags([_flag(evaluation, None) for evaluation in evaluations]))
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        if _matches(request.headers.get("If-None-Match"), tag):
            return Response(b"", status_code=HTTP_304_NOT_MODIFIED, headers={"ETag": tag})
        return Response(content, media_type=MediaType.JSON, headers={"ETag": tag})

    return [evaluate, evaluate_all]


def _flag(evaluation: Evaluation, decision: DecisionRow | None) -> Flag:
    record, assignment, model = evaluation
    name = record.document.name
    if assignment is None:
        return Flag(name, "DISABLED", NOT_TAKEN, metadata={"endpoint": record.document.endpoint, "state": record.state})
    metadata: dict[str, str | float | bool] = {
        "endpoint": record.document.endpoint,
        "epoch": assignment.epoch,
        "propensity": assignment.slots / BUCKETS,
        "model": model or "",
    }
    if decision is not None:
        metadata["decisionId"] = encode(decision.id)
    value = None if assignment.arm is None else assignment.arm.name
    return Flag(name, _reason(evaluation), assignment.name, value, metadata)


def _reason(evaluation: Evaluation) -> Reason:
    assignment = evaluation.assignment
    if assignment is None:
        return "DISABLED"
    if evaluation.experiment.document.audience:
        return "TARGETING_MATCH"
    everybody = assignment.slots == BUCKETS and assignment.experiment.traffic_buckets == BUCKETS
    return "STATIC" if everybody else "SPLIT"


def _subject(body: bytes) -> _Subject | _Refusal:
    """Return whom a request is about, or why that cannot be said."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _Refusal("PARSE_ERROR", f"the body is not valid JSON: {error}")
    context = content.get("context", {}) if isinstance(content, dict) else None
    if not isinstance(context, dict):
        return _Refusal(
            "INVALID_CONTEXT", 'the body must be an object such as {"context": {"targetingKey": "user-17"}}'
        )
    key = context.get(_TARGETING_KEY)
    if key is None or key == "":
        return _Refusal(
            "TARGETING_KEY_MISSING", f"context.{_TARGETING_KEY} is missing: it is the unit that is assigned"
        )
    try:
        return _Subject(msgspec.convert(key, Unit), _attributes(context))
    except msgspec.ValidationError as error:
        fault = fault_at(key, error, Unit).within(f"context.{_TARGETING_KEY}")
        return _Refusal("INVALID_CONTEXT", str(fault.error()))


def _attributes(context: Mapping[str, Any]) -> Context:
    """Return the attributes that audiences can look at; lists, objects and null are no such thing."""
    return {
        name: value
        for name, value in context.items()
        if name != _TARGETING_KEY and isinstance(value, str | int | float | bool) and len(name) <= _LONGEST_ATTRIBUTE
    }


def _matches(if_none_match: str | None, tag: str) -> bool:
    given = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
    return tag in given or "*" in given


def _failure(status: int, refusal: _Refusal, key: str | None = None) -> Response[Failure]:
    return Response(Failure(key, *refusal), status_code=status)
