"""Whole bodies of requests and responses: JSON alone, or JSON and then the bytes of tensors in their order."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import msgspec

from models.errors import InvalidTensor
from models.open_inference.messages import (
    BINARY_OUTPUT,
    BINARY_OUTPUTS,
    HEADER_LENGTH,
    InferRequest,
    InferResponse,
    RequestedOutput,
    TensorHeader,
)
from models.open_inference.tensors import Bytes, Tensor, binary_header, binary_size, read_tensor, tensor_header

Message = TypeVar("Message", InferRequest, InferResponse)

_encode = msgspec.json.Encoder().encode
_request = msgspec.json.Decoder(InferRequest)
_response = msgspec.json.Decoder(InferResponse)


class Body(NamedTuple):
    """Bytes to send; `header_length` of them are JSON, or all when it is None."""

    content: bytes
    header_length: int | None

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that say so."""
        if self.header_length is None:
            return {"Content-Type": "application/json"}
        return {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(self.header_length)}


def read_request(body: bytes, header_length: str | None) -> tuple[InferRequest, list[Tensor]]:
    """Return a request and its inputs; `header_length` is the HTTP header's text.

    Raises InvalidTensor, or msgspec's DecodeError when the JSON is none or not a request.
    """
    json, binary = _parts(body, header_length)
    request = _decoded(_request, json)
    return request, _tensors(request.inputs, binary)


def read_response(body: bytes, header_length: str | None) -> tuple[InferResponse, list[Tensor]]:
    """Return a response and its outputs; raises as `read_request` does."""
    json, binary = _parts(body, header_length)
    response = _decoded(_response, json)
    return response, _tensors(response.outputs, binary)


def write_request(tensors: Sequence[Tensor], outputs: Sequence[str], *, binary: bool) -> Body:
    """Return a request for predictions, whose outputs are to come in the same way as its inputs go."""
    headers, contents = _headers(tensors, [binary] * len(tensors))
    # Some servers look at the one place, some at the other.
    wanted = [RequestedOutput(name=name, parameters={BINARY_OUTPUT: True} if binary else {}) for name in outputs]
    message = InferRequest(inputs=headers, outputs=wanted, parameters={BINARY_OUTPUTS: True} if binary else {})
    return _body(message, contents)


def write_response(response: InferResponse, tensors: Sequence[Tensor], binary: Sequence[bool]) -> Body:
    """Return a response with these outputs, each as JSON or, where `binary` says so, as bytes."""
    headers, contents = _headers(tensors, binary)
    return _body(msgspec.structs.replace(response, outputs=headers), contents)


def _parts(body: bytes, header_length: str | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return view, view[len(view) :]
    # int() would take signs, spaces and underscores as well.
    length = (
        int(header_length) if header_length.isascii() and header_length.isdigit() and len(header_length) < 19 else -1
    )
    if not 0 <= length <= len(view):
        shown = header_length if len(header_length) <= 40 else f"{header_length[:37]}..."
        raise InvalidTensor(f"{HEADER_LENGTH} must be a number of bytes up to the body's {len(view)}, not {shown!r}")
    return view[:length], view[length:]


def _decoded(decoder: msgspec.json.Decoder[Message], json: memoryview) -> Message:
    try:
        return decoder.decode(json)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"it is not UTF-8: {error}") from None
    except RecursionError:
        raise msgspec.DecodeError("it is nested too deeply") from None


def _tensors(headers: Sequence[TensorHeader], binary: memoryview) -> list[Tensor]:
    tensors, start = [], 0
    for header in headers:
        size = binary_size(header)
        if size is None:
            tensors.append(read_tensor(header, None))
            continue
        if start + size > len(binary):
            raise InvalidTensor(
                f"tensor {header.name!r} announces {size} bytes, but {len(binary) - start} are left after the JSON; "
                f"{HEADER_LENGTH} says where the JSON ends"
            )
        tensors.append(read_tensor(header, binary[start : start + size]))
        start += size
    if start != len(binary):
        raise InvalidTensor(f"{len(binary) - start} bytes follow the last tensor")
    return tensors


def _headers(tensors: Sequence[Tensor], binary: Sequence[bool]) -> tuple[list[TensorHeader], list[Bytes]]:
    headers: list[TensorHeader] = []
    contents: list[Bytes] = []
    for tensor, as_bytes in zip(tensors, binary, strict=True):
        if as_bytes:
            header, content = binary_header(tensor)
            contents.append(content)
        else:
            header = tensor_header(tensor)
        headers.append(header)
    return headers, contents


def _body(message: object, contents: Sequence[Bytes]) -> Body:
    json = _encode(message)
    if not contents:
        return Body(json, None)
    return Body(b"".join((json, *contents)), len(json))
