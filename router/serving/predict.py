"""One prediction, from the request's bytes to the reply's: decide, predict, sign, commit, answer."""

import asyncio
import math
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from router.assignment.audience import Context
from router.assignment.hashing import BUCKETS
from router.decision_id import FORCED, NO_EXPERIMENT, DecisionId, Signer, encode
from router.errors import Conflict, InvalidInput, PredictionFailed, RequestTooLarge
from router.ledger.records import DecisionRow
from router.ledger.writer import LedgerWriter
from router.serving.assign import Assignment, assign, force
from router.serving.requests import PredictReply, explain_invalid_request
from router.serving.routes import EndpointRoute, Routes, ServedModel
from router.serving.sticky import StickyAssignments

_LARGEST_INLINE_BATCH = 64
_NONCE_SIZE = 8
_NONCES_DRAWN = 1024

Rows = Sequence[msgspec.Struct]

_encode_json = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """Predictions, the model version that made them, and why it is not the assigned one (None when it is)."""

    predictions: list[float]
    served_model: str
    fallback: str | None


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
        clock: Callable[[], int],
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
        self._nonces = _Nonces()
        self._sticky = StickyAssignments(writer, clock)
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="model")

    def close(self) -> None:
        """Wait for the models that still run in threads."""
        self._threads.shutdown(cancel_futures=True)

    async def predict(self, endpoint: str, body: bytes, forced: str | None = None) -> bytes:
        """Return the JSON reply to a predict request once its decision is durable.

        `forced` names the arm to use instead of drawing one, as `arm` or `experiment/arm`.

        Raises:
            UnknownEndpoint, InvalidRequest, RequestTooLarge: Nothing was decided.
            PredictionFailed, Unavailable: Nothing was acknowledged.
        """
        routes = self._routes()
        route = routes.endpoint(endpoint)
        request = self._decode(route, body)
        single = not isinstance(request.inputs, list)
        rows = [request.inputs] if single else request.inputs
        nonce = self._nonces.take()
        if forced is None:
            assignment = await self._assign(route, request.unit, request.context, nonce)
        else:
            assignment = force(route, forced)
        answer = await self._answer(route, assignment, rows)
        row = self._row(route, request, rows, assignment, answer, nonce)
        stored = await self._writer.decide(row, request.id)
        if stored.id != row.id:
            return await self._replay(stored, row, single)
        names = _names(assignment)
        self._decisions[route.name, *names] += 1
        if answer.fallback is not None:
            self._fallbacks[route.name] += 1
        return _reply(row, names, answer.predictions, single)

    def _decode(self, route: EndpointRoute, body: bytes) -> Any:
        try:
            request = route.decoder.decode(body)
        except msgspec.DecodeError as error:
            raise explain_invalid_request(body, error, route.signature) from None
        if isinstance(request.inputs, list):
            self._check_size(len(request.inputs))
        return request

    def _check_size(self, rows: int) -> None:
        if rows == 0:
            raise InvalidInput("the list of inputs is empty; send at least one", field="inputs")
        if rows > self._max_batch:
            raise RequestTooLarge(
                f"{rows} inputs in one request; the limit is {self._max_batch}: send several requests"
            )

    async def _assign(self, route: EndpointRoute, unit: str, context: Context, nonce: bytes) -> Assignment | None:
        drawn = assign(route, unit, context, nonce)
        return drawn if drawn is None or not drawn.experiment.sticky else await self._sticky.first(drawn, unit)

    async def _answer(self, route: EndpointRoute, assignment: Assignment | None, rows: Rows) -> Answer:
        champion = route.champion
        assigned = _assigned_model(route, assignment)
        try:
            return Answer(await self._run(assigned, rows, route.timeout_s), assigned.reference, None)
        except Exception as error:
            reason = _describe(error, route.timeout_s)
            if assigned.reference == champion.reference:
                raise PredictionFailed(f"champion {champion.reference!r} of {route.name!r}: {reason}") from error
        try:
            return Answer(await self._run(champion, rows, route.timeout_s), champion.reference, reason)
        except Exception as error:
            message = f"arm {assigned.reference!r}: {reason}; champion {champion.reference!r}: {error}"
            raise PredictionFailed(f"endpoint {route.name!r}: {message}") from error

    async def _run(self, served: ServedModel, rows: Rows, timeout_s: float) -> list[float]:
        model, encoder = served.model, served.encoder
        if model is None or encoder is None:
            raise PredictionFailed(served.problem or "the model is not loaded")
        batch = encoder.encode(rows)
        if served.inline and len(rows) <= _LARGEST_INLINE_BATCH:
            predictions = model.predict(batch)
        else:
            loop = asyncio.get_running_loop()
            call = loop.run_in_executor(self._threads, model.predict, batch)
            predictions = await asyncio.wait_for(call, timeout_s)
        values: list[float] = predictions.tolist()
        if not all(map(math.isfinite, values)):
            raise PredictionFailed("it predicted a value that is not finite")
        return values

    async def _replay(self, stored: DecisionRow, row: DecisionRow, single: bool) -> bytes:
        """Answer a retry with the decision that its key is bound to."""
        if (stored.unit, stored.inputs, stored.context) != (row.unit, row.inputs, row.context):
            raise Conflict(f"id belongs to decision {encode(stored.id)!r}, made for another unit, context or inputs")
        if FORCED in (stored.epoch, row.epoch) and _arm(stored) != _arm(row):
            raise Conflict(f"id belongs to decision {encode(stored.id)!r}, whose arm was chosen in another way")
        if stored.experiment_id is not None and stored.experiment_id not in self._routes().experiments:
            await self._refresh()
        predictions = msgspec.json.decode(stored.predictions, type=list[float])
        return _reply(stored, _stored_names(stored, self._routes()), predictions, single)

    def _row(
        self,
        route: EndpointRoute,
        request: Any,
        rows: Rows,
        assignment: Assignment | None,
        answer: Answer,
        nonce: bytes,
    ) -> DecisionRow:
        now_ms = self._clock()
        if assignment is None:
            content = DecisionId(now_ms, NO_EXPERIMENT, 0, 0, BUCKETS, nonce)
            drawn: tuple[int | None, int | None, int | None] = (None, None, None)
        else:
            drawn = (assignment.experiment.id, assignment.epoch, assignment.number)
            content = DecisionId(now_ms, *drawn, assignment.slots, nonce)
        return DecisionRow(
            self._signer.sign(content),
            now_ms,
            route.name,
            *drawn,
            content.propensity,
            request.unit,
            _assigned_model(route, assignment).reference,
            answer.served_model,
            answer.fallback,
            _encode_json(request.context).decode() if request.context else None,
            _encode_json(rows).decode(),
            _encode_json(answer.predictions).decode(),
        )


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


def _assigned_model(route: EndpointRoute, assignment: Assignment | None) -> ServedModel:
    """Return the model of the assigned arm; the champion's in the holdout and outside experiments."""
    arm = None if assignment is None else assignment.arm
    return route.champion if arm is None else arm.served


def _arm(row: DecisionRow) -> tuple[int | None, int | None, int | None]:
    return (row.experiment_id, row.epoch, row.arm)


def _stored_names(row: DecisionRow, routes: Routes) -> tuple[str | None, str | None]:
    if row.experiment_id is None or row.arm is None:
        return (None, None)
    document = routes.experiments[row.experiment_id].document
    return (document.name, document.arm_name(row.arm))


def _names(assignment: Assignment | None) -> tuple[str | None, str | None]:
    return (None, None) if assignment is None else (assignment.experiment.name, assignment.name)


def _reply(row: DecisionRow, names: tuple[str | None, str | None], predictions: list[float], single: bool) -> bytes:
    experiment, arm = names
    reply = PredictReply(
        decision_id=encode(row.id),
        endpoint=row.endpoint,
        experiment=experiment,
        epoch=row.epoch,
        arm=arm,
        model=row.model,
        propensity=row.propensity,
    )
    if single:
        reply.prediction = predictions[0]
    else:
        reply.predictions = predictions
    if row.fallback is not None:
        reply.served_model, reply.fallback = row.served_model, row.fallback
    return _encode_json(reply)


def _describe(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no prediction within {timeout_s * 1000:g} ms"
    return f"{type(error).__name__}: {error}" if not isinstance(error, PredictionFailed) else str(error)
