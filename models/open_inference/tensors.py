"""Tensors: from their JSON or bytes to arrays and back, with every size checked against the shape."""

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidTensor
from models.open_inference.datatypes import FORMS, LARGEST_RANK, json_decoder
from models.open_inference.messages import BINARY_SIZE, TensorHeader

Bytes = bytes | memoryview

_LENGTH = struct.Struct("<I")
_encode = msgspec.json.Encoder().encode


class Tensor(NamedTuple):
    """A named array with the tensor's shape; the elements of BYTES are `str` or `bytes` objects."""

    name: str
    datatype: str
    array: NDArray[Any]

    def texts(self) -> list[str]:
        """Return the elements of a BYTES tensor as text, in row-major order; raises InvalidTensor."""
        try:
            return [each if isinstance(each, str) else each.decode() for each in self.array.ravel().tolist()]
        except UnicodeDecodeError as error:
            raise InvalidTensor(f"tensor {self.name!r}: an element is not UTF-8: {error}") from None


def binary_size(header: TensorHeader) -> int | None:
    """Return how many bytes after the JSON are this tensor's; None if its data stands in the JSON."""
    size = header.parameters.get(BINARY_SIZE)
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InvalidTensor(f"tensor {header.name!r}: {BINARY_SIZE} must be a number of bytes, not {size!r}")
    if header.data:
        raise InvalidTensor(f"tensor {header.name!r} has data in the JSON and {BINARY_SIZE} as well; send one of them")
    return size


def read_tensor(header: TensorHeader, binary: Bytes | None) -> Tensor:
    """Return the tensor that a header announces, its elements from `binary` or else from the JSON.

    Numbers are not copied from `binary`. Raises InvalidTensor, which names the tensor.
    """
    form = FORMS.get(header.datatype)
    if form is None:
        raise _wrong(header, f"has the unknown datatype {header.datatype!r}; known: {', '.join(FORMS)}")
    if len(header.shape) > LARGEST_RANK:
        raise _wrong(header, f"has {len(header.shape)} dimensions; at most {LARGEST_RANK} are read")
    count = math.prod(header.shape)
    if binary is None:
        elements = _from_json(header, form.dtype, count)
    elif header.datatype == "BYTES":
        elements = _split(header, binary, count)
    else:
        elements = _from_bytes(header, binary, form.dtype, count)
    try:
        return Tensor(header.name, header.datatype, elements.reshape(header.shape))
    except ValueError:
        raise _wrong(header, f"has the impossible shape {header.shape}") from None


def tensor_header(tensor: Tensor) -> TensorHeader:
    """Return the header of a tensor whose data stands in the JSON, flat; NaN becomes null."""
    array = tensor.array.ravel()
    values = tensor.texts() if tensor.datatype == "BYTES" else array.tolist()
    return _header(tensor, data=msgspec.Raw(_encode(values)))


def binary_header(tensor: Tensor) -> tuple[TensorHeader, Bytes]:
    """Return the header of a tensor that is sent as bytes, and the bytes."""
    content = _joined(tensor) if tensor.datatype == "BYTES" else _as_bytes(tensor)
    return _header(tensor, parameters={BINARY_SIZE: len(content)}), content


def _header(tensor: Tensor, **fields: Any) -> TensorHeader:
    return TensorHeader(name=tensor.name, shape=list(tensor.array.shape), datatype=tensor.datatype, **fields)


def _from_json(header: TensorHeader, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    if not header.data:
        raise _wrong(header, f"has no data, neither in the JSON nor by {BINARY_SIZE} after it")
    nested = len(header.shape) > 1 and _is_nested(header.data)
    try:
        values = json_decoder(header.datatype, len(header.shape) if nested else 1).decode(header.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(header, f"of datatype {header.datatype} cannot be read: {error}") from None
    if nested:
        values = _flattened(header, values)
    if len(values) != count:
        raise _wrong(header, f"has {len(values)} elements, but its shape {header.shape} has {count}")
    return _typed(header, values, dtype)


def _is_nested(data: msgspec.Raw) -> bool:
    start = bytes(memoryview(data)[:64]).lstrip(b" \t\r\n")
    return start[1:].lstrip(b" \t\r\n").startswith(b"[")


def _flattened(header: TensorHeader, values: list[Any]) -> list[Any]:
    """Return the elements of nested lists, every one of which has the length that the shape says."""
    expected = 1
    for size in header.shape[:-1]:
        expected *= size
        if len(values) != expected:
            raise _wrong(header, f"has lists that do not fit its shape {header.shape}")
        lengths = {len(each) for each in values}
        if len(lengths) > 1:
            raise _wrong(header, f"has lists of unequal lengths, unlike its shape {header.shape}")
        values = [element for each in values for element in each]
    return values


def _typed(header: TensorHeader, values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        with np.errstate(over="raise"):
            return np.array(values, dtype=dtype)
    except (OverflowError, FloatingPointError):
        raise _wrong(header, f"has an element that does not fit {header.datatype}") from None


def _from_bytes(header: TensorHeader, binary: Bytes, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    expected = count * dtype.itemsize
    if len(binary) != expected:
        raise _wrong(
            header,
            f"has {len(binary)} bytes, but its shape {header.shape} of {header.datatype} has {expected}",
        )
    if dtype.kind == "b":
        # A byte that is neither 0 nor 1 would be a truth value that equals none.
        return np.frombuffer(binary, dtype=np.uint8).astype(np.bool_)
    return np.frombuffer(binary, dtype=dtype)


def _split(header: TensorHeader, binary: Bytes, count: int) -> NDArray[np.object_]:
    """Return the elements of a BYTES tensor: each a length of four bytes, then that many."""
    # Every element takes at least its length, so a false count cannot make us reserve memory.
    if count * _LENGTH.size > len(binary):
        raise _wrong(header, f"has {len(binary)} bytes, too few for the {count} elements of its shape {header.shape}")
    elements = np.empty(count, dtype=np.object_)
    content, position = bytes(binary), 0
    for index in range(count):
        start = position + _LENGTH.size
        if start > len(content):
            raise _wrong(header, f"ends within the length of element {index} of {count}")
        position = start + _LENGTH.unpack_from(content, position)[0]
        if position > len(content):
            raise _wrong(header, f"ends within element {index} of {count}")
        elements[index] = content[start:position]
    if position != len(content):
        raise _wrong(header, f"has {len(content) - position} bytes more than its {count} elements take")
    return elements


def _as_bytes(tensor: Tensor) -> memoryview:
    array = np.ascontiguousarray(tensor.array, dtype=FORMS[tensor.datatype].dtype)
    return array.reshape(-1).view(np.uint8).data


def _joined(tensor: Tensor) -> bytes:
    elements: Sequence[str | bytes] = tensor.array.ravel().tolist()
    parts: list[bytes] = []
    for element in elements:
        content = element.encode() if isinstance(element, str) else element
        parts += (_LENGTH.pack(len(content)), content)
    return b"".join(parts)


def _wrong(header: TensorHeader, what: str) -> InvalidTensor:
    shown = header.name if len(header.name) <= 80 else f"{header.name[:77]}..."
    return InvalidTensor(f"tensor {shown!r} {what}")
