import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidSample
from models.signature import LARGEST, BatchEncoder, Feature, Signature, input_struct

FLIGHT = Signature(
    (
        Feature("carrier", "category"),
        Feature("distance", "number"),
        Feature("weekend", "boolean"),
        Feature("wind", "number", nullable=True),
        Feature("tail", "category", nullable=True),
    ),
    "probability",
)
ROW = {"carrier": "UA", "distance": 1400, "weekend": True, "wind": 10.5, "tail": "N14228"}


def decoded(row: dict[str, Any], signature: Signature = FLIGHT) -> msgspec.Struct:
    return msgspec.json.decode(msgspec.json.encode(row), type=input_struct(signature))


def test_input_struct_reads_and_writes_the_same_row() -> None:
    assert msgspec.to_builtins(decoded(ROW)) == ROW


def test_input_struct_is_made_once_per_signature() -> None:
    same = msgspec.json.decode(msgspec.json.encode(FLIGHT), type=Signature)
    assert input_struct(same) is input_struct(FLIGHT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distance": None}, r"Expected `float`, got `null` - at `\$.distance`"),
        ({"distance": "far"}, r"Expected `float`, got `str` - at `\$.distance`"),
        ({"distance": True}, r"Expected `float`, got `bool` - at `\$.distance`"),
        ({"distance": 1e39}, r"Expected `float` <= .* - at `\$.distance`"),
        ({"weekend": 1}, r"Expected `bool`, got `int` - at `\$.weekend`"),
        ({"carrier": 7}, r"Expected `str`, got `int` - at `\$.carrier`"),
        ({"altitude": 1}, "unknown field `altitude`"),
    ],
)
def test_input_struct_names_the_wrong_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        decoded(ROW | change)


@pytest.mark.parametrize("missing", list(ROW))
def test_input_struct_requires_every_feature_even_nullable_ones(missing: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{missing}`"):
        decoded({name: value for name, value in ROW.items() if name != missing})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_input_struct_refuses_numbers_that_are_not_finite(value: float) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$.distance"):
        msgspec.convert(ROW | {"distance": value}, input_struct(FLIGHT))


@pytest.mark.parametrize("name", ["sepal length (cm)", "class", "__init__", "_x", "größe", "a.b", "x-1"])
def test_input_struct_takes_any_feature_name(name: str) -> None:
    signature = Signature((Feature(name, "number"), Feature("other", "number")), "number")
    row = decoded({"other": 1.0, name: 2.0}, signature)
    assert BatchEncoder(signature).encode([row]).numbers.tolist() == [[2.0, 1.0]]
    with pytest.raises(msgspec.ValidationError, match="missing required field"):
        decoded({"other": 1.0}, signature)


def test_batch_has_numbers_and_categories_in_signature_order() -> None:
    batch = BatchEncoder(FLIGHT).encode([decoded(ROW), decoded(ROW | {"wind": None, "tail": None, "weekend": False})])
    assert batch.numbers.dtype == np.float64
    np.testing.assert_array_equal(batch.numbers, [[1400, 1, 10.5], [1400, 0, np.nan]])
    assert batch.categories.tolist() == [["UA", "N14228"], ["UA", ""]]


@pytest.mark.parametrize(("numbers", "categories"), [(0, 1), (1, 0), (1, 1), (2, 0), (0, 2)])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_batch_has_both_shapes_whatever_the_signature(numbers: int, categories: int, rows: int) -> None:
    names = {f"n{i}": 1.5 for i in range(numbers)} | {f"c{i}": "a" for i in range(categories)}
    features = [Feature(name, "number" if name[0] == "n" else "category") for name in names]
    signature = Signature(tuple(features), "number")
    batch = BatchEncoder(signature).encode([decoded(names, signature)] * rows)
    assert batch.numbers.shape == (rows, numbers)
    assert batch.categories.shape == (rows, categories)


def test_encoder_takes_rows_decoded_for_another_order_of_the_same_features() -> None:
    reverse = Signature(FLIGHT.features[::-1], "probability")
    batch = BatchEncoder(reverse).encode([decoded(ROW)])
    assert batch.numbers.tolist() == [[10.5, 1, 1400]]
    assert batch.categories.tolist() == [["N14228", "UA"]]


@given(st.floats(-LARGEST, LARGEST), st.text(), st.booleans())
def test_batch_keeps_every_value_exactly(number: float, text: str, flag: bool) -> None:
    row = msgspec.convert(ROW | {"distance": number, "carrier": text, "weekend": flag}, input_struct(FLIGHT))
    batch = BatchEncoder(FLIGHT).encode([row])
    assert batch.numbers[0].tolist() == [number, float(flag), 10.5]
    assert batch.categories[0, 0] == text


def test_signature_accepts_itself_in_any_order() -> None:
    assert FLIGHT.accepts(Signature(FLIGHT.features[::-1], "probability")) == []


def test_signature_accepts_a_model_that_takes_more_nulls() -> None:
    relaxed = Signature(tuple(Feature(f.name, f.kind, nullable=True) for f in FLIGHT.features), "probability")
    assert FLIGHT.accepts(relaxed) == []
    assert relaxed.accepts(FLIGHT) == [
        "feature 'carrier' may be null, which the model does not take",
        "feature 'distance' may be null, which the model does not take",
        "feature 'weekend' may be null, which the model does not take",
    ]


def test_signature_lists_every_difference() -> None:
    other = Signature((Feature("distance", "category"), Feature("speed", "number")), "number")
    assert Signature((Feature("distance", "number"), Feature("wind", "number")), "probability").accepts(other) == [
        "feature 'distance' is a category, not a number",
        "feature 'wind' is missing from the model",
        "the model needs feature 'speed' as well",
        "the output is a number, not a probability",
    ]


def test_signature_refuses_no_features_and_empty_names() -> None:
    for features in ((), (Feature("", "number"),)):
        with pytest.raises(InvalidSample, match="at least one feature"):
            Signature(features, "number")


def test_signature_refuses_a_name_used_twice() -> None:
    with pytest.raises(InvalidSample, match="more than once: 'x'"):
        Signature((Feature("x", "number"), Feature("x", "category")), "number")
