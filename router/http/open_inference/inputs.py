"""From a client's tensors to the rows that an endpoint takes, checked as those of every other request."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.open_inference.tensors import Tensor
from models.signature import Feature, Signature, input_struct
from router.documents import fault_at
from router.errors import InvalidInput
from router.serving.running import Rows

Values = Sequence[float | bool | str | None]


def rows_of(tensors: Sequence[Tensor], signature: Signature) -> Rows:
    """Return the rows that one tensor per feature, or one of shape [n, features], says.

    NaN is null for a nullable number or boolean, and so is the empty string for a nullable category.

    Raises:
        InvalidInput: A feature is missing, unknown, of the wrong datatype or shape, or out of bounds.
    """
    columns = _columns(tensors, signature)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InvalidInput(f"the tensors have different numbers of rows: {told}", field="inputs")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    type_: Any = list[input_struct(signature)]  # type: ignore[misc]
    try:
        return cast(Rows, msgspec.convert(rows, type_))
    except msgspec.ValidationError as error:
        raise fault_at(rows, error, type_).within("inputs").error(InvalidInput) from None


def _columns(tensors: Sequence[Tensor], signature: Signature) -> dict[str, Values]:
    features = {feature.name: feature for feature in signature.features}
    if len(tensors) == 1 and _is_matrix(tensors[0], features):
        return _split(tensors[0], signature)
    counts = Counter(tensor.name for tensor in tensors)
    wrong = [f"{name!r} is missing" for name in features if name not in counts]
    wrong += [f"{name!r} is no feature" for name in counts if name not in features]
    wrong += [f"{name!r} is there {count} times" for name, count in counts.items() if count > 1]
    if wrong:
        shape = "" if signature.categories else f", or one of shape [rows, {len(features)}]"
        raise InvalidInput(
            f"{'; '.join(wrong[:5])}: send one tensor per feature{shape}; the endpoint takes {_expected(signature)}",
            field="inputs",
        )
    return {tensor.name: _values(tensor, tensor.array, features[tensor.name]) for tensor in tensors}


def _is_matrix(tensor: Tensor, features: dict[str, Feature]) -> bool:
    if tensor.array.ndim != 2:
        return False
    return tensor.name not in features or tensor.array.shape[1] == len(features) > 1


def _split(tensor: Tensor, signature: Signature) -> dict[str, Values]:
    features, width = signature.features, tensor.array.shape[1]
    if signature.categories:
        names = ", ".join(repr(feature.name) for feature in signature.categories)
        raise InvalidInput(
            f"tensor {tensor.name!r} cannot hold all features, because {names} are categories: send one tensor per "
            f"feature; the endpoint takes {_expected(signature)}",
            field="inputs",
        )
    if width != len(features):
        raise InvalidInput(
            f"tensor {tensor.name!r} has {width} columns, but the endpoint takes {len(features)} features in this "
            f"order: {_expected(signature)}",
            field="inputs",
        )
    return {feature.name: _values(tensor, tensor.array[:, index], feature) for index, feature in enumerate(features)}


def _values(tensor: Tensor, array: NDArray[Any], feature: Feature) -> Values:
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise InvalidInput(
            f"tensor {tensor.name!r} has the shape {list(tensor.array.shape)}; a feature has [rows] or [rows, 1]",
            field="inputs",
        )
    if (tensor.datatype == "BYTES") != (feature.kind == "category"):
        raise _mismatch(tensor, feature)
    if feature.kind == "category":
        texts = tensor.texts()
        return [text or None for text in texts] if feature.nullable else texts
    return _numbers(tensor, array.ravel(), feature)


def _numbers(tensor: Tensor, array: NDArray[Any], feature: Feature) -> Values:
    if tensor.datatype == "BOOL":
        if feature.kind != "boolean":
            raise _mismatch(tensor, feature)
        truths: list[bool] = array.tolist()
        return truths
    # Python's own loop is quicker for the few rows that most requests have.
    values: list[float | None] = [None if value != value else value for value in array.astype(np.float64).tolist()]
    if not feature.nullable and None in values:
        row = values.index(None)
        raise InvalidInput(f"feature {feature.name!r} may not be null, but is NaN in row {row}", field="inputs")
    if feature.kind == "number":
        return values
    if not {0.0, 1.0, None}.issuperset(values):
        raise InvalidInput(f"feature {feature.name!r} is a boolean: send BOOL, or the numbers 0 and 1", field="inputs")
    return [None if value is None else value == 1.0 for value in values]


def _mismatch(tensor: Tensor, feature: Feature) -> InvalidInput:
    wanted = {"category": "BYTES", "boolean": "BOOL or numbers", "number": "numbers, such as FP64"}[feature.kind]
    return InvalidInput(
        f"feature {feature.name!r} is a {feature.kind}, so its tensor must be {wanted}, not {tensor.datatype}",
        field="inputs",
    )


def _expected(signature: Signature) -> str:
    return ", ".join(f"{feature.name} ({feature.kind})" for feature in signature.features)
