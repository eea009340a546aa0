"""Data frames as signatures and batches: the training side of `models.signature` (needs pandas)."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidSample
from models.signature import LARGEST, Batch, Feature, Kind, Output, Signature

if TYPE_CHECKING:
    import pandas as pd

KINDS: dict[str, Kind] = {
    "boolean": "boolean",
    "floating": "number",
    "integer": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
    "string": "category",
}


def from_frame(frame: "pd.DataFrame", output: Output) -> Signature:
    """The signature of a frame's columns: kinds from their values, nullable where a value is missing."""
    return Signature(tuple(_feature(name, frame[name]) for name in _names(frame)), output)


def encode_frame(frame: "pd.DataFrame", signature: Signature) -> Batch:
    """The batch of all rows of a frame, whose columns may stand in any order; other columns are left out."""
    columns = set(_names(frame))
    if missing := [feature.name for feature in signature.features if feature.name not in columns]:
        raise InvalidSample(f"the frame has no column {', '.join(map(repr, missing))}")
    numbers = [_numbers(feature, frame[feature.name]) for feature in signature.numbers]
    categories = [_categories(feature, frame[feature.name]) for feature in signature.categories]
    shape = len(frame)
    return Batch(
        np.stack(numbers, axis=1) if numbers else np.empty((shape, 0)),
        np.stack(categories, axis=1) if categories else np.empty((shape, 0), dtype=np.object_),
    )


def decode_rows(batch: Batch, signature: Signature) -> list[dict[str, float | bool | str | None]]:
    """The rows of a batch as the objects that a request would carry."""
    rows: list[dict[str, float | bool | str | None]] = []
    for numbers, categories in zip(batch.numbers.tolist(), batch.categories.tolist(), strict=True):
        left = {"category": iter(categories), "number": iter(numbers)}
        values = {
            feature.name: _value(feature, next(left["category" if feature.kind == "category" else "number"]))
            for feature in signature.features
        }
        rows.append(values)
    return rows


def _value(feature: Feature, value: Any) -> float | bool | str | None:
    if feature.nullable and (value == "" or value != value):
        return None
    return bool(value) if feature.kind == "boolean" else value


def _names(frame: "pd.DataFrame") -> list[str]:
    names: list[object] = list(frame.columns)
    if odd := [name for name in names if not isinstance(name, str)]:
        raise InvalidSample(f"column {odd[0]!r} is not named by a string; features are")
    return [str(name) for name in names]


def _feature(name: str, column: "pd.Series") -> Feature:
    import pandas as pd

    values = column.astype(column.cat.categories.dtype) if isinstance(column.dtype, pd.CategoricalDtype) else column
    found = pd.api.types.infer_dtype(values, skipna=True)
    # A column of nothing but NaN is a number that has never been seen.
    kind = "number" if found == "empty" and values.dtype.kind == "f" else KINDS.get(found)
    if kind is None:
        raise InvalidSample(
            f"column {name!r} holds {found} values; a feature is a number, a boolean or a string: "
            "derive such columns (from a date, for example) before training"
        )
    return Feature(name, kind, nullable=bool(values.isna().any()))


def _numbers(feature: Feature, column: "pd.Series") -> NDArray[np.float64]:
    try:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InvalidSample(f"column {feature.name!r} is not a {feature.kind}: {error}") from error
    if (np.abs(values) > LARGEST).any():
        raise InvalidSample(f"column {feature.name!r} holds a value beyond {LARGEST:.1e}, which no request may carry")
    return values


def _categories(feature: Feature, column: "pd.Series") -> NDArray[np.object_]:
    values = column.to_numpy(dtype=np.object_, na_value="")
    if odd := [value for value in values if not isinstance(value, str)]:
        raise InvalidSample(f"column {feature.name!r} is a category but holds {odd[0]!r}; categories are strings")
    if column.isna().any() and (column == "").any():
        raise InvalidSample(f"column {feature.name!r} has missing values and empty strings, which are served alike")
    return values
