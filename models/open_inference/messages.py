"""The JSON objects of the protocol. Unknown fields are left alone: servers and clients extend the protocol."""

from typing import Annotated, Any

import msgspec

Parameters = dict[str, str | int | float | bool | None]
Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**62)]

BINARY_EXTENSION = "binary_tensor_data"
"""The name under which a server's metadata offers tensors as bytes after the JSON."""

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The HTTP header that tells how many bytes of a body are JSON when tensors follow it."""

BINARY_SIZE = "binary_data_size"
"""The parameter of a tensor whose bytes follow the JSON: how many."""

BINARY_OUTPUT = "binary_data"
"""The parameter of a requested output that is to come as bytes."""

BINARY_OUTPUTS = "binary_data_output"
"""The parameter of a request all of whose outputs are to come as bytes, unless one says otherwise."""


class TensorHeader(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is said about a tensor; its data stands beside, or in bytes after the JSON."""

    name: str
    shape: list[Dimension]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw()


class RequestedOutput(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An output that the client wants."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A request for predictions."""

    id: str | None = None
    parameters: Parameters = {}
    inputs: list[TensorHeader]
    outputs: list[RequestedOutput] = []


class InferResponse(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The predictions."""

    model_name: str = ""
    model_version: str | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[TensorHeader]


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output of a model; a dimension of any size is -1."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a server says of a model; some say less than the protocol asks for."""

    name: str
    versions: list[str] | None = None
    platform: str = ""
    inputs: list[TensorMetadata] | None = None
    outputs: list[TensorMetadata] | None = None


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself."""

    name: str
    version: str
    extensions: list[str] = []


class ServerError(msgspec.Struct, frozen=True):
    """How an error is told."""

    error: str
