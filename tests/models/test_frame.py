from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from models.errors import InvalidSample
from models.frame import decode_rows, encode_frame, from_frame
from models.signature import BatchEncoder, Feature, Signature, input_struct

FRAME = pd.DataFrame(
    {
        "carrier": ["UA", None, "AA"],
        "seats": [100, 150, 200],
        "wind": [1.5, np.nan, 2.5],
        "weekend": [True, False, True],
        "year": pd.array([2001, None, 2003], dtype="Int64"),
        "de_icing": pd.array([True, None, False], dtype="boolean"),
    }
)


def test_from_frame_finds_kinds_and_missing_values() -> None:
    assert from_frame(FRAME, "number") == Signature(
        (
            Feature("carrier", "category", nullable=True),
            Feature("seats", "number"),
            Feature("wind", "number", nullable=True),
            Feature("weekend", "boolean"),
            Feature("year", "number", nullable=True),
            Feature("de_icing", "boolean", nullable=True),
        ),
        "number",
    )


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        (pd.Series(["a", None], dtype=object), Feature("x", "category", nullable=True)),
        (pd.Series(["a", "b"], dtype="category"), Feature("x", "category")),
        (pd.Series([True, None], dtype=object), Feature("x", "boolean", nullable=True)),
        (pd.Series([1, 2.5], dtype=object), Feature("x", "number")),
        (pd.Series([np.nan, np.nan]), Feature("x", "number", nullable=True)),
        (pd.Series([1, 2], dtype="uint8"), Feature("x", "number")),
    ],
)
def test_from_frame_reads_values_rather_than_storage(values: "pd.Series[Any]", feature: Feature) -> None:
    assert from_frame(pd.DataFrame({"x": values}), "number").features == (feature,)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (pd.to_datetime(["2013-01-01"]), "datetime64"),
        (pd.to_timedelta([1], unit="s"), "timedelta64"),
        (pd.Series([1, "a"], dtype=object), "mixed-integer"),
        (pd.Series([None], dtype=object), "empty"),
        (pd.Series([[1]]), "mixed"),
    ],
)
def test_from_frame_names_a_column_that_is_no_feature(values: "pd.Series[Any]", found: str) -> None:
    with pytest.raises(InvalidSample, match=f"column 'x' holds {found} values.*before training"):
        from_frame(pd.DataFrame({"x": values}), "number")


def test_from_frame_refuses_columns_named_by_numbers() -> None:
    with pytest.raises(InvalidSample, match="column 0 is not named by a string"):
        from_frame(pd.DataFrame([[1.0]]), "number")


def test_encode_frame_orders_columns_by_the_signature() -> None:
    batch = encode_frame(FRAME[FRAME.columns[::-1]], from_frame(FRAME, "number"))
    np.testing.assert_array_equal(
        batch.numbers, [[100, 1.5, 1, 2001, 1], [150, np.nan, 0, np.nan, np.nan], [200, 2.5, 1, 2003, 0]]
    )
    assert batch.categories.tolist() == [["UA"], [""], ["AA"]]


def test_encode_frame_of_one_kind_has_no_columns_of_the_other() -> None:
    only_numbers, only_categories = FRAME[["seats"]], FRAME[["carrier"]]
    assert encode_frame(only_numbers, from_frame(only_numbers, "number")).categories.shape == (3, 0)
    assert encode_frame(only_categories, from_frame(only_categories, "number")).numbers.shape == (3, 0)


def test_encode_frame_names_missing_columns() -> None:
    with pytest.raises(InvalidSample, match="no column 'seats', 'wind'"):
        encode_frame(FRAME.drop(columns=["seats", "wind"]), from_frame(FRAME, "number"))


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        (Feature("x", "number"), ["a"], "column 'x' is not a number"),
        (Feature("x", "number"), [np.inf], "column 'x' holds a value beyond 3.4e"),
        (Feature("x", "category"), [1.0], "column 'x' is a category but holds 1.0"),
        (Feature("x", "category"), ["a", "", None], "column 'x' has missing values and empty strings"),
    ],
)
def test_encode_frame_names_a_column_of_another_kind(feature: Feature, values: list[object], message: str) -> None:
    with pytest.raises(InvalidSample, match=message):
        encode_frame(pd.DataFrame({"x": values}), Signature((feature,), "number"))


def test_decode_rows_gives_what_a_request_would_carry() -> None:
    signature = from_frame(FRAME, "number")
    batch = encode_frame(FRAME, signature)
    rows = msgspec.json.decode(msgspec.json.encode(decode_rows(batch, signature)), type=list[input_struct(signature)])  # type: ignore[misc]
    again = BatchEncoder(signature).encode(rows)
    np.testing.assert_array_equal(again.numbers, batch.numbers)
    np.testing.assert_array_equal(again.categories, batch.categories)
