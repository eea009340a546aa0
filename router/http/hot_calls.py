"""The calls that applications make all the time, answered without Litestar's routing, injection and responses.

These would take as long as all that the router does besides. Litestar documents these calls too, and answers whichever
is unusual: it forces an arm, does not say how long it is, or has a path, a host or a method that only Litestar can
judge. Both ways lead to the same service, and problems come from the same table.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from litestar import Litestar, Request
from litestar.types import LifeSpanReceive, LifeSpanScope, LifeSpanSend, Receive, Scope, Send

from router.http.access import shown_key
from router.http.data_plane import PREDICTING, RECORDING, record_outcomes
from router.http.problems import MEDIA_TYPE, handler_of
from router.keys import Scope as KeyScope
from router.service import Service
from router.serving.requests import FORCED_ARM_HEADER

_ENDPOINTS = "/v1/endpoints/"
_OUTCOMES = "/v1/outcomes"
_REMEMBERED = 1024
_UNUSUAL = {b"transfer-encoding", b"expect", FORCED_ARM_HEADER.lower().encode()}
_is_plain_host = re.compile(rb"[0-9A-Za-z.:\[\]-]*").fullmatch
_encode = msgspec.json.Encoder().encode


class HotCall(NamedTuple):
    """A call and who may make it; `answer` takes the body and returns the JSON reply."""

    needs: KeyScope
    answer: Callable[[bytes], Awaitable[bytes]]


class HotCalls:
    """Answers predict, rank and outcome calls of the usual form over a service."""

    def __init__(self, service: Service, *, max_body_bytes: int) -> None:
        self._gate = service.keys.gate
        self.predictor = service.predictor
        self._record = HotCall(RECORDING, lambda body: record_outcomes(service.outcomes, body))
        self._routes = service.routes
        self._known: dict[str, HotCall] = {}
        self._max_body_bytes = max_body_bytes

    def find(self, scope: Any) -> HotCall | None:
        """Return the call that a request makes; None where Litestar is to answer."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["root_path"]:
            return None
        path = scope["path"]
        is_outcome = path == _OUTCOMES
        if not (is_outcome or path.startswith(_ENDPOINTS)):
            return None
        if not 0 <= _usual_length(scope["headers"]) <= self._max_body_bytes:
            return None
        if is_outcome:
            return self._record
        return self._known.get(path) or self._asking(path)

    async def answer(self, call: HotCall, scope: Any, receive: Receive, send: Send) -> None:
        """Answer the call with its reply, or with the problem that it met."""
        try:
            self._gate.admit(shown_key(scope["headers"]), call.needs)
            body = await _body(receive)
            if body is None:
                return
            content = await call.answer(body)
        except Exception as error:  # noqa: BLE001 (every error has its problem)
            response = handler_of(error)(Request(scope), error)
            content = _encode(response.content)
            headers = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
            await _send(send, response.status_code, MEDIA_TYPE.encode(), content, headers)
        else:
            await _send(send, 200, b"application/json", content)

    def _asking(self, path: str) -> HotCall | None:
        endpoint, _, verb = path[len(_ENDPOINTS) :].partition("/")
        ask = {"predict": self.predictor.predict, "rank": self.predictor.rank}.get(verb)
        if ask is None or not endpoint:
            return None
        call = HotCall(PREDICTING, lambda body: ask(endpoint, body))
        # Only what is there: anybody may ask for names that are not.
        if endpoint in self._routes().endpoints and len(self._known) < _REMEMBERED:
            self._known[path] = call
        return call


class Application(Litestar):
    """Litestar behind the hot calls."""

    def __init__(self, *args: Any, hot: HotCalls, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hot = hot

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Answer one connection, or live through the application's start and end."""
        call = self.hot.find(scope)
        if call is None:
            await super().__call__(scope, receive, send)
        else:
            await self.hot.answer(call, scope, receive, send)  # type: ignore[arg-type]


def _usual_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return how long the body is; -1 where the headers do not say, or say what only Litestar can judge."""
    length = -1
    for name, value in headers:
        if name == b"content-length":
            length = int(value) if value.isdigit() else -1
        elif name in _UNUSUAL or (name == b"host" and not _is_plain_host(value)):
            return -1
    return length


async def _body(receive: Receive) -> bytes | None:
    """Return the body, None when the client has gone."""
    pieces: list[bytes] = []
    while True:
        message: Any = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


async def _send(
    send: Send, status: int, media_type: bytes, content: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    described = [(b"content-type", media_type), (b"content-length", b"%d" % len(content)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": described})
    await send({"type": "http.response.body", "body": content, "more_body": False})
