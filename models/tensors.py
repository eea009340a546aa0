"""From a batch to the named tensors that a model takes which was made for other software."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidValue, UnsupportedModel
from models.manifest import InputTensor
from models.open_inference.datatypes import FORMS
from models.open_inference.tensors import Tensor
from models.signature import Batch, Feature, Signature


class _Place(NamedTuple):
    """Which columns of which part of a batch a tensor holds."""

    tensor: InputTensor
    part: str
    columns: slice


class InputTensors:
    """Fills tensors with batches: one tensor for each feature, or one for all of a kind."""

    def __init__(self, tensors: Sequence[InputTensor], signature: Signature, *, per_feature: bool) -> None:
        if per_feature:
            pairs = zip(tensors, _columns(signature), strict=True)
            self._places = [_Place(tensor, part, slice(at, at + 1)) for tensor, (part, at) in pairs]
        else:
            self._places = [_Place(tensor, _part(tensor.datatype == "BYTES"), slice(None)) for tensor in tensors]

    def of(self, batch: Batch) -> list[Tensor]:
        """Return the tensors of a batch; raises InvalidValue for a number that an integer tensor cannot take."""
        with np.errstate(invalid="ignore", over="ignore"):
            return [_tensor(place.tensor, getattr(batch, place.part)[:, place.columns]) for place in self._places]


def check_takes(feature: Feature, datatype: str, who: str) -> None:
    """Raise UnsupportedModel where a tensor of that datatype, which `who` takes, cannot hold a feature."""
    fits = datatype in FORMS and (datatype == "BYTES") == (feature.kind == "category")
    if not fits or (datatype == "BOOL" and feature.kind != "boolean"):
        raise UnsupportedModel(f"feature {feature.name!r} is a {feature.kind}, but {who} takes {datatype}")
    if feature.nullable and feature.kind != "category" and not datatype.startswith("FP"):
        raise UnsupportedModel(
            f"feature {feature.name!r} may be null, for which {datatype}, which {who} takes, has no value"
        )


def _part(is_text: bool) -> str:
    return "categories" if is_text else "numbers"


def _columns(signature: Signature) -> list[tuple[str, int]]:
    """Return for each feature which part of a batch, and which of its columns, it stands in."""
    seen = {"numbers": 0, "categories": 0}
    columns = []
    for feature in signature.features:
        part = _part(feature.kind == "category")
        columns.append((part, seen[part]))
        seen[part] += 1
    return columns


def _tensor(declared: InputTensor, array: NDArray[Any]) -> Tensor:
    """Return a part of a batch, shape [n, k], as the model wants it."""
    dtype = FORMS[declared.datatype].dtype
    typed = array.astype(dtype, copy=False)
    if dtype.kind in "iu" and not np.array_equal(typed, array):
        raise InvalidValue(
            declared.name,
            f"feature {declared.name!r} has a value that its model, which takes {declared.datatype}, cannot take; send "
            "a whole number within its range",
        )
    return Tensor(declared.name, declared.datatype, typed if declared.as_column else typed[:, 0])
