"""What the machine allows: an ASGI function that decodes the request into a struct and answers with it."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bench.model import input_type

Message = dict[str, Any]


class Echo(msgspec.Struct):
    """A predict request, answered as it is."""

    unit: str
    inputs: input_type()  # type: ignore[valid-type]


_decoder, _encoder = msgspec.json.Decoder(Echo), msgspec.json.Encoder()


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer any HTTP request that has a body with that body."""
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    reply = _encoder.encode(_decoder.decode(body)) if body else b""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": reply})
