"""The calls that applications make: predict, outcomes, decisions. Bodies go to the service as the bytes they are."""

import asyncio
from typing import Any, Final

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.status_codes import HTTP_200_OK

from router.http.access import caller_of, needs
from router.http.examples import OutcomesOperation, PredictOperation, RankOperation
from router.http.views import DecisionView, decision_view
from router.ledger.records import Receipt
from router.service import Service
from router.serving.outcomes import OutcomeRecorder
from router.serving.requests import FORCED_ARM_HEADER

PREDICTING: Final = "predict"
RECORDING: Final = "outcome"
"""The scopes of calls, however they are answered."""

_encode = msgspec.json.Encoder().encode
_WHITESPACE = b" \t\r\n"


class ReceiptView(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one outcome; `field` names what is wrong with one that is rejected, where it can."""

    status: str
    reason: str | None = None
    field: str | None = None


class ReceiptsView(msgspec.Struct, frozen=True):
    """What became of each outcome of a list, in order, and how many of each there are."""

    accepted: int
    duplicate: int
    rejected: int
    receipts: list[ReceiptView]


def data_plane(service: Service) -> list[HTTPRouteHandler]:
    """Return the handlers over a service, which they hold directly, so that nothing is injected per request."""

    @post(
        "/v1/endpoints/{endpoint:str}/predict",
        status_code=HTTP_200_OK,
        operation_class=PredictOperation,
        tags=["predict"],
        **needs(PREDICTING, 404, 409, 413, 500),
        summary="Predict, and record which model version did and with which probability it was chosen",
    )
    async def predict(endpoint: FromPath[str], request: Request[Any, Any, State]) -> Response[bytes]:
        """Route one request to an arm and answer once the decision is durable."""
        reply = await service.predictor.predict(endpoint, await request.body(), _forced_arm(request))
        return Response(reply, media_type=MediaType.JSON)

    @post(
        "/v1/endpoints/{endpoint:str}/rank",
        status_code=HTTP_200_OK,
        operation_class=RankOperation,
        tags=["rank"],
        **needs(PREDICTING, 404, 409, 413, 500),
        summary="Rank candidates, and record whose ranking was shown and with which probability it was chosen",
    )
    async def rank(endpoint: FromPath[str], request: Request[Any, Any, State]) -> Response[bytes]:
        """Order candidates by an arm's scores, or mix the rankings of all arms, and answer once that is durable."""
        reply = await service.predictor.rank(endpoint, await request.body(), _forced_arm(request))
        return Response(reply, media_type=MediaType.JSON)

    @post(
        "/v1/outcomes",
        status_code=HTTP_200_OK,
        operation_class=OutcomesOperation,
        tags=["outcomes"],
        **needs(RECORDING, 413),
        summary="Post what came of decisions: one outcome or a list",
    )
    async def post_outcomes(request: Request[Any, Any, State]) -> Response[bytes]:
        """Record outcomes and answer, once they are durable, what became of each."""
        return Response(await record_outcomes(service.outcomes, await request.body()), media_type=MediaType.JSON)

    @get("/v1/decisions/{decision_id:str}", tags=["decisions"], **needs("read", 404))
    async def read_decision(decision_id: FromPath[str]) -> DecisionView:
        """Return what was decided and what came of it."""
        raw, _ = service.signer.parse(decision_id)
        stored = await asyncio.to_thread(service.decisions.read, raw)
        outcomes = await asyncio.to_thread(service.decisions.outcomes, raw)
        return decision_view(stored, outcomes, await asyncio.to_thread(service.decisions.shadows, raw))

    return [predict, rank, post_outcomes, read_decision]


async def record_outcomes(outcomes: OutcomeRecorder, body: bytes) -> bytes:
    """Return the JSON reply to one outcome or a list once they are durable."""
    if body.lstrip(_WHITESPACE).startswith(b"["):
        return _encode(_receipts(await outcomes.record_many(body)))
    return _encode(ReceiptView(*await outcomes.record_one(body)))


def _forced_arm(request: Request[Any, Any, State]) -> str | None:
    forced = request.headers.get(FORCED_ARM_HEADER)
    if forced is not None:
        caller_of(request).require("admin")
    return forced


def _receipts(receipts: list[Receipt]) -> ReceiptsView:
    statuses = [receipt.status for receipt in receipts]
    return ReceiptsView(
        accepted=statuses.count("accepted"),
        duplicate=statuses.count("duplicate"),
        rejected=statuses.count("rejected"),
        receipts=[ReceiptView(*receipt) for receipt in receipts],
    )
