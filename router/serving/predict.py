"""One prediction, from the request's bytes to the reply's: decide, predict, sign, commit, answer."""

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from router.assignment.audience import Context
from router.decision_id import FORCED, Signer, encode
from router.errors import Conflict, InvalidInput, InvalidRequest, RequestTooLarge
from router.ledger.decided import read_predictions
from router.ledger.records import DecisionRow
from router.ledger.writer import LedgerWriter
from router.serving.answering import Answer, Answerer, PredictRequest, assigned_reference
from router.serving.assign import Assignment, assign, force
from router.serving.replies import Answered, predict_reply, rank_reply
from router.serving.requests import explain_invalid_request
from router.serving.routes import EndpointRoute, Routes
from router.serving.running import ModelRunner
from router.serving.shadows import shadows_of
from router.serving.signing import Content, json_text, signed_row
from router.serving.sticky import StickyAssignments

_NONCE_SIZE = 8
_NONCES_DRAWN = 1024


class Predictor:
    """Answers predict requests through the current routes."""

    def __init__(
        self,
        routes: Callable[[], Routes],
        refresh: Callable[[], Awaitable[None]],
        writer: LedgerWriter,
        signer: Signer,
        *,
        max_batch: int,
        runner: ModelRunner,
        clock: Callable[[], int],
        offer: Callable[[DecisionRow, Sequence[str]], None],
        decisions: Counter[tuple[str, str | None, str | None]],
        fallbacks: Counter[str],
    ) -> None:
        self._decisions = decisions
        self._fallbacks = fallbacks
        self._routes = routes
        self._refresh = refresh
        self._writer = writer
        self._signer = signer
        self._max_batch = max_batch
        self._clock = clock
        self._offer = offer
        self._nonces = _Nonces()
        self._sticky = StickyAssignments(writer, clock)
        self._answerer = Answerer(runner)

    async def predict(self, endpoint: str, body: bytes, forced: str | None = None) -> bytes:
        """Return the JSON reply to a predict request once its decision is durable.

        `forced` names the arm to use instead of drawing one, as `arm` or `experiment/arm`.

        Raises:
            UnknownEndpoint, InvalidRequest, RequestTooLarge: Nothing was decided.
            PredictionFailed, Unavailable: Nothing was acknowledged.
        """
        route = self._route(endpoint, "predict")
        request = self._decode(route, body)
        single = not isinstance(request.inputs, list)
        rows = [request.inputs] if single else request.inputs
        wanted = PredictRequest(request.unit, rows, request.context, request.id, single)
        return predict_reply(await self.answer(route, wanted, forced), single=single)

    async def rank(self, endpoint: str, body: bytes, forced: str | None = None) -> bytes:
        """Return the JSON reply to a rank request once its decision is durable; raises as `predict` does."""
        route = self._route(endpoint, "rank")
        request = self._decode(route, body)
        candidates = request.candidates
        if repeated := _repeated([candidate.id for candidate in candidates]):
            message = f"candidate {repeated!r} stands twice; give every candidate its own id"
            raise InvalidInput(message, field="candidates")
        wanted = PredictRequest(request.unit, candidates, request.context, request.id, False, request.length)
        return rank_reply(await self.answer(route, wanted, forced), candidates)

    async def answer(self, route: EndpointRoute, request: PredictRequest, forced: str | None = None) -> Answered:
        """Return what was decided for a request once it is durable; raises as `predict` does."""
        self._check_size(route, len(request.rows))
        nonce = self._nonces.take()
        if forced is None:
            assignment = await self._assign(route, request.unit, request.context, nonce)
        else:
            assignment = force(route, forced)
        answer = await self._answerer.answer(route, assignment, request, nonce)
        row = self._row(route, request, assignment, answer, nonce)
        stored = await self._writer.decide(row, request.key)
        if stored.id != row.id:
            return await self._replay(stored, row)
        names = _names(assignment)
        self._decisions[route.name, *names] += 1
        if answer.fallback is not None:
            self._fallbacks[route.name] += 1
        if shadows := shadows_of(route, assignment, row.served_model):
            self._offer(row, shadows)
        return Answered(row, *names, answer.predictions)

    def _route(self, endpoint: str, kind: str) -> EndpointRoute:
        route = self._routes().endpoint(endpoint)
        if route.kind != kind:
            raise InvalidRequest(f"endpoint {endpoint!r} is a {route.kind} endpoint: call .../{route.kind} instead")
        return route

    def _decode(self, route: EndpointRoute, body: bytes) -> Any:
        try:
            return route.decoder.decode(body)
        except msgspec.DecodeError as error:
            raise explain_invalid_request(body, error, route.decoder, route.signature) from None

    def _check_size(self, route: EndpointRoute, rows: int) -> None:
        what = "candidates" if route.kind == "rank" else "inputs"
        if rows == 0:
            raise InvalidInput(f"the list of {what} is empty; send at least one", field=what)
        if rows > self._max_batch:
            limit = f"the limit is {self._max_batch}: send several requests"
            raise RequestTooLarge(f"{rows} {what} in one request; {limit}")

    async def _assign(self, route: EndpointRoute, unit: str, context: Context, nonce: bytes) -> Assignment | None:
        drawn = assign(route, unit, context, nonce)
        if drawn is not None and drawn.experiment.contexts is not None:
            drawn.experiment.contexts.check(context)
        return drawn if drawn is None or not drawn.experiment.sticky else await self._sticky.first(drawn, unit)

    async def _replay(self, stored: DecisionRow, row: DecisionRow) -> Answered:
        """Answer a retry with the decision that its key is bound to."""
        if (stored.unit, stored.inputs, stored.context) != (row.unit, row.inputs, row.context):
            raise Conflict(f"id belongs to decision {encode(stored.id)!r}, made for another unit, context or inputs")
        if FORCED in (stored.epoch, row.epoch) and _arm(stored) != _arm(row):
            raise Conflict(f"id belongs to decision {encode(stored.id)!r}, whose arm was chosen in another way")
        if stored.experiment_id is not None and stored.experiment_id not in self._routes().experiments:
            await self._refresh()
        predictions = read_predictions(stored.predictions)
        return Answered(stored, *_stored_names(stored, self._routes()), predictions)

    def _row(
        self,
        route: EndpointRoute,
        request: PredictRequest,
        assignment: Assignment | None,
        answer: Answer,
        nonce: bytes,
    ) -> DecisionRow:
        listed = answer.listed
        content = Content(
            endpoint=route.name,
            unit=request.unit,
            context=request.context,
            model=assigned_reference(route, assignment),
            served_model=answer.served_model,
            fallback=answer.fallback,
            inputs=json_text(request.rows),
            predictions=json_text(answer.predictions),
            shown=None if listed is None else json_text(listed.shown),
            draw=None if listed is None or listed.draw is None else json_text(listed.draw),
            latency_ms=answer.latency_ms,
        )
        return signed_row(self._signer, self._clock(), assignment, nonce, content)


class _Nonces:
    """Random bytes drawn from the system a thousand decisions at a time: each call lets another thread take over."""

    def __init__(self) -> None:
        self._bytes = b""
        self._used = 0

    def take(self) -> bytes:
        if self._used == len(self._bytes):
            self._bytes, self._used = os.urandom(_NONCE_SIZE * _NONCES_DRAWN), 0
        start = self._used
        self._used += _NONCE_SIZE
        return self._bytes[start : self._used]


def _arm(row: DecisionRow) -> tuple[int | None, int | None, int | None]:
    return (row.experiment_id, row.epoch, row.arm)


def _stored_names(row: DecisionRow, routes: Routes) -> tuple[str | None, str | None]:
    if row.experiment_id is None or row.arm is None:
        return (None, None)
    document = routes.experiments[row.experiment_id].document
    return (document.name, document.arm_name(row.arm))


def _names(assignment: Assignment | None) -> tuple[str | None, str | None]:
    return (None, None) if assignment is None else (assignment.experiment.name, assignment.name)


def _repeated(ids: Sequence[str]) -> str | None:
    return None if len(set(ids)) == len(ids) else next(each for each in ids if ids.count(each) > 1)
