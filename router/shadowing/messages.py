"""What a router and its shadow worker say to each other, over a socket: MessagePack behind its length."""

from collections.abc import Iterable, Iterator
from typing import Generic, Literal, TypeAlias, TypeVar

import msgspec

LARGEST_FRAME = 64 * 2**20
"""In bytes; whoever announces more has lost its senses."""

_LENGTH_BYTES = 4

Problem: TypeAlias = Literal["error", "load", "memory", "timeout", "died"]
"""Why a shadow did not predict: it raised, could not be loaded, wanted too much memory, took too long, or died."""


class Call(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """Predict; `inputs` is the JSON text of a decision's rows."""

    number: int
    model: str
    inputs: str


class Keep(msgspec.Struct, frozen=True, array_like=True, tag="keep"):
    """Forget all models but these."""

    models: list[str]


class Started(msgspec.Struct, frozen=True, array_like=True, tag="started"):
    """The worker takes calls."""


class Loading(msgspec.Struct, frozen=True, array_like=True, tag="loading"):
    """The model of the next answer is being loaded."""


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag="loaded"):
    """It is there, or will not be."""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """What became of a call: the JSON text of its predictions, or a problem and its description."""

    number: int
    predictions: str | None
    problem: Problem | None
    error: str | None
    latency_ms: float
    hoarder: str | None = None
    """The model that keeps so much memory that the worker must be replaced."""


Order: TypeAlias = Call | Keep
Report: TypeAlias = Started | Loading | Loaded | Answer
Message = TypeVar("Message")

_encode = msgspec.msgpack.Encoder().encode


def frames(messages: Iterable[Order | Report]) -> bytes:
    """Return messages as they travel."""
    contents = map(_encode, messages)
    return b"".join(len(content).to_bytes(_LENGTH_BYTES) + content for content in contents)


class Frames(Generic[Message]):
    """Puts messages together from the pieces in which they arrive."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Message]) -> None:
        self._decode = decoder.decode
        self._received = bytearray()

    def feed(self, piece: bytes) -> Iterator[Message]:
        """Yield the messages that are complete with this piece.

        Raises:
            ValueError: It is no message.
        """
        received = self._received
        received += piece
        start = 0
        try:
            while len(received) - start >= _LENGTH_BYTES:
                length = int.from_bytes(received[start : start + _LENGTH_BYTES])
                if length > LARGEST_FRAME:
                    raise ValueError(f"a message of {length} bytes")
                begin, end = start + _LENGTH_BYTES, start + _LENGTH_BYTES + length
                if end > len(received):
                    break
                start = end
                yield self._decode(bytes(received[begin:end]))
        finally:
            del received[:start]


def orders() -> Frames[Order]:
    """Return what puts a worker's orders together."""
    return Frames(msgspec.msgpack.Decoder(Order))


def reports() -> Frames[Report]:
    """Return what puts a worker's reports together."""
    return Frames(msgspec.msgpack.Decoder(Report))
