"""The datatypes of tensors: their names on the wire, their numpy types and the JSON that carries them."""

from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import DTypeLike

Datatype: TypeAlias = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]

LARGEST_RANK = 16
"""How many dimensions a tensor may have."""

_Bit = Annotated[int, msgspec.Meta(ge=0, le=1)]


class Form(NamedTuple):
    """How elements of a datatype look in memory, little-endian, and in JSON. BYTES are objects, text or bytes."""

    dtype: np.dtype[Any]
    json: Any


def _form(dtype: DTypeLike, json: Any) -> Form:
    return Form(np.dtype(dtype), json)


FORMS: dict[str, Form] = {
    "BOOL": _form("?", bool | _Bit),
    "UINT8": _form("u1", int),
    "UINT16": _form("<u2", int),
    "UINT32": _form("<u4", int),
    "UINT64": _form("<u8", int),
    "INT8": _form("i1", int),
    "INT16": _form("<i2", int),
    "INT32": _form("<i4", int),
    "INT64": _form("<i8", int),
    # JSON has no NaN; null stands for it.
    "FP16": _form("<f2", float | None),
    "FP32": _form("<f4", float | None),
    "FP64": _form("<f8", float | None),
    "BYTES": _form("O", str),
}


@cache
def json_decoder(datatype: str, depth: int) -> msgspec.json.Decoder[Any]:
    """Return the decoder of elements in lists `depth` deep."""
    lists = FORMS[datatype].json
    for _ in range(depth):
        lists = list.__class_getitem__(lists)
    return msgspec.json.Decoder(lists)
