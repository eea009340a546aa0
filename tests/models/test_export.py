from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from models.errors import ParityExceeded, UnsupportedModel
from models.estimator import output_of, predictions
from models.export import to_onnx
from models.frame import encode_frame, from_frame
from models.onnx_graph import OnnxGraph
from models.positional import order_of_use, positional
from models.signature import Batch
from tests.models.made_up import Flights

NUMBERS = ["wind", "distance", "weekend"]
CATEGORIES = ["tail", "carrier"]


class Served(NamedTuple):
    """An estimator without data frames, with rows and its predictions for them."""

    estimator: Any
    batch: Batch
    expected: NDArray[np.float64]


def served(estimator: Any, frame: pd.DataFrame, labels: Any) -> Served:
    estimator.fit(frame, labels)
    columns = list(frame.columns)
    signature = from_frame(frame[order_of_use(estimator, columns)], output_of(estimator))
    return Served(
        positional(estimator, columns, signature), encode_frame(frame, signature), predictions(estimator, frame)
    )


def features(encoder: Any) -> ColumnTransformer:
    numbers = SimpleImputer(strategy="median")
    return ColumnTransformer([("numbers", numbers, NUMBERS), ("categories", encoder, CATEGORIES)])


def one_hot() -> ColumnTransformer:
    return features(OneHotEncoder(handle_unknown="ignore"))


def ordinal(missing: int = -1) -> ColumnTransformer:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=missing)
    return features(encoder)


def calibrated(estimator: Pipeline, flights: Flights) -> Pipeline:
    """The pipeline with a sigmoid around its last step."""
    estimator.fit(flights.frame, flights.late)
    return Pipeline([*estimator.steps[:-1], ("model", CalibratedClassifierCV(FrozenEstimator(estimator[-1])))])


CLASSIFIERS: dict[str, Callable[[], Pipeline]] = {
    "logistic": lambda: make_pipeline(one_hot(), StandardScaler(with_mean=False), LogisticRegression()),
    "histogram boosting": lambda: make_pipeline(ordinal(), HistGradientBoostingClassifier(max_iter=5)),
    "gradient boosting": lambda: make_pipeline(ordinal(), GradientBoostingClassifier(n_estimators=5)),
    "forest": lambda: make_pipeline(ordinal(), RandomForestClassifier(5, max_depth=5, random_state=0)),
}


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_graph_predicts_what_the_estimator_predicts(kind: str, sigmoid: bool, flights: Flights) -> None:
    estimator = CLASSIFIERS[kind]()
    case = served(calibrated(estimator, flights) if sigmoid else estimator, flights.frame, flights.late)
    export = to_onnx(case.estimator, case.batch, case.expected)
    found = OnnxGraph(export.content, export.float_width).predict(case.batch)
    assert found.dtype == np.float64
    assert export.float_width == 32
    assert export.parity.rows == len(flights.frame)
    assert export.parity.max_abs_difference == np.abs(found - case.expected).max() < 1e-6


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_graph_serves_unknown_and_missing_categories_and_nulls(kind: str, flights: Flights) -> None:
    case = served(calibrated(CLASSIFIERS[kind](), flights), flights.frame, flights.late)
    export = to_onnx(case.estimator, case.batch, case.expected)
    odd = Batch(np.array([[np.nan, 100.0, 1.0]] * 2), np.array([["", "XX"], ["n1", ""]], dtype=object))
    found = OnnxGraph(export.content, export.float_width).predict(odd)
    np.testing.assert_allclose(found, predictions(case.estimator, odd.joined()), atol=1e-6)


def test_graph_has_two_inputs_and_the_one_output_that_is_served(flights: Flights) -> None:
    case = served(calibrated(CLASSIFIERS["logistic"](), flights), flights.frame, flights.late)
    graph = onnx.load_from_string(to_onnx(case.estimator, case.batch, case.expected).content).graph
    assert [node.name for node in graph.input] == ["numbers", "categories"]
    assert [node.name for node in graph.output] == ["calibrated_probability"]


@pytest.mark.parametrize(("columns", "inputs"), [(["distance", "weekend"], ["numbers"]), (["carrier"], ["categories"])])
def test_graph_of_one_kind_of_feature_has_one_input(columns: list[str], inputs: list[str], flights: Flights) -> None:
    encoder = OneHotEncoder(handle_unknown="ignore") if inputs == ["categories"] else StandardScaler()
    case = served(make_pipeline(encoder, LogisticRegression()), flights.frame[columns], flights.late)
    export = to_onnx(case.estimator, case.batch, case.expected)
    assert [node.name for node in onnx.load_from_string(export.content).graph.input] == inputs
    found = OnnxGraph(export.content, export.float_width).predict(case.batch)
    np.testing.assert_allclose(found, case.expected, atol=1e-6)


def test_graph_widens_to_float64_where_float32_is_too_coarse(flights: Flights) -> None:
    frame = flights.frame[["distance", "weekend"]]
    case = served(make_pipeline(StandardScaler(), LinearRegression()), frame, frame["distance"] * 1e4 + 0.7)
    export = to_onnx(case.estimator, case.batch, case.expected)
    assert export.float_width == 64
    assert export.parity.max_abs_difference < 1e-6


def test_parity_is_refused_beyond_the_limit(flights: Flights) -> None:
    case = served(make_pipeline(ordinal(-2), HistGradientBoostingClassifier(max_iter=5)), flights.frame, flights.late)
    with pytest.raises(ParityExceeded, match=r"differ by \S+ in float32.* on 800 rows; 1e-04 is allowed"):
        to_onnx(case.estimator, case.batch, case.expected)


def test_parity_of_a_single_stray_row_is_refused(flights: Flights) -> None:
    case = served(CLASSIFIERS["logistic"](), flights.frame, flights.late)
    case.expected[417] += 2e-4
    with pytest.raises(ParityExceeded, match=r"by 2\.0e-04"):
        to_onnx(case.estimator, case.batch, case.expected)


def test_parity_of_what_is_not_a_number_is_refused(flights: Flights) -> None:
    case = served(CLASSIFIERS["logistic"](), flights.frame, flights.late)
    case.expected[417] = np.nan
    with pytest.raises(ParityExceeded, match="by inf"):
        to_onnx(case.estimator, case.batch, case.expected)


def test_estimator_without_a_converter_is_named(flights: Flights) -> None:
    regressor = TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1)
    case = served(regressor, flights.frame[["distance"]], flights.late)
    with pytest.raises(UnsupportedModel, match="TransformedTargetRegressor cannot be converted: Unable to find"):
        to_onnx(case.estimator, case.batch, case.expected)


def test_graph_that_fails_on_some_rows_is_refused(flights: Flights) -> None:
    # skl2onnx makes no use of handle_unknown='infrequent_if_exist'.
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist")
    case = served(make_pipeline(encoder, LogisticRegression()), flights.frame[["carrier"]], flights.late)
    unknown = Batch(np.empty((1, 0)), np.array([["XX"]], dtype=object))
    with pytest.raises(UnsupportedModel, match="does not run on every row"):
        to_onnx(case.estimator, unknown, predictions(case.estimator, unknown.joined()))


def test_content_that_is_no_graph_is_named() -> None:
    with pytest.raises(UnsupportedModel, match=r"onnxruntime \d.* cannot run the graph"):
        OnnxGraph(b"not a graph", 32)
