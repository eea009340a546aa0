from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from models.estimator import output_of, predictions
from models.frame import encode_frame, from_frame
from models.positional import order_of_use, positional
from tests.models.made_up import Flights

NUMBERS = ["wind", "distance", "weekend"]
CATEGORIES = ["tail", "carrier"]


def columns(categories: Any, numbers: Any = None) -> ColumnTransformer:
    numbers = numbers or SimpleImputer(strategy="median")
    return ColumnTransformer([("numbers", numbers, NUMBERS), ("categories", categories, CATEGORIES)])


def one_hot() -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore")


def ordinal(missing: float) -> OrdinalEncoder:
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=missing)


def logistic(first: Any) -> Pipeline:
    return make_pipeline(first, StandardScaler(with_mean=False), LogisticRegression())


def boosting(encoder: OrdinalEncoder) -> Pipeline:
    return make_pipeline(columns(encoder), HistGradientBoostingClassifier(max_iter=5))


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "one-hot": lambda: logistic(columns(one_hot())),
    "ordinal, missing as unknown": lambda: boosting(ordinal(-1)),
    "ordinal, missing as NaN": lambda: boosting(ordinal(np.nan)),
    "ordinal, missing as another number": lambda: boosting(ordinal(-2)),
    "target encoding": lambda: make_pipeline(
        columns(TargetEncoder()), RandomForestClassifier(5, max_depth=4, n_jobs=2, random_state=0)
    ),
    "imputed categories": lambda: logistic(columns(make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot()))),
    "constant category": lambda: logistic(
        columns(make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), one_hot()))
    ),
    "selectors and remainder": lambda: logistic(
        ColumnTransformer(
            [
                ("categories", one_hot(), make_column_selector(dtype_include=["object", "string"])),
                ("numbers", SimpleImputer(), make_column_selector(dtype_include="float")),
            ],
            remainder="passthrough",
        )
    ),
    "frames between steps": lambda: logistic(
        columns(OneHotEncoder(handle_unknown="ignore", sparse_output=False)).set_output(transform="pandas")
    ),
    "union": lambda: logistic(FeatureUnion([("a", columns(one_hot())), ("b", columns(one_hot()))])),
    "calibrated": lambda: CalibratedClassifierCV(logistic(columns(one_hot())), cv=2),
    "frozen": lambda: FrozenEstimator(logistic(columns(one_hot()))),
    "search": lambda: GridSearchCV(logistic(columns(one_hot())), {"logisticregression__C": [0.1, 1]}, cv=2),
    "voting": lambda: VotingClassifier([("a", logistic(columns(one_hot())))], voting="soft"),
    "transformed target": lambda: TransformedTargetRegressor(
        make_pipeline(columns(one_hot()), Ridge()), func=np.log1p, inverse_func=np.expm1
    ),
    "skipped first step": lambda: Pipeline([("none", "passthrough"), ("rest", logistic(columns(one_hot())))]),
}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_positional_predicts_the_same_from_arrays(kind: str, flights: Flights) -> None:
    frame, estimator = flights.frame, ESTIMATORS[kind]()
    if isinstance(estimator, FrozenEstimator):
        estimator.estimator.fit(frame, flights.late)
    estimator.fit(frame, flights.late)
    expected = predictions(estimator, frame)
    signature = from_frame(frame, output_of(estimator))
    served = positional(estimator, list(frame.columns), signature)
    np.testing.assert_allclose(predictions(served, encode_frame(frame, signature).joined()), expected, atol=1e-12)
    np.testing.assert_allclose(predictions(estimator, frame), expected, atol=1e-12)


def test_positional_reorders_for_an_estimator_that_selects_nothing(flights: Flights) -> None:
    frame = flights.frame[["carrier", "distance", "weekend"]]
    estimator = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(frame, flights.late)
    signature = from_frame(frame, "probability")
    served = positional(estimator, list(frame.columns), signature)
    assert list(served.named_steps) == ["order", "model"]
    batch = encode_frame(frame, signature)
    np.testing.assert_allclose(predictions(served, batch.joined()), predictions(estimator, frame), atol=1e-12)


def test_positional_takes_a_column_handed_over_as_a_vector(flights: Flights) -> None:
    words = ColumnTransformer([("words", CountVectorizer(analyzer="char"), "carrier")])
    estimator = make_pipeline(words, LogisticRegression()).fit(flights.frame, flights.late)
    signature = from_frame(flights.frame, "probability")
    served = positional(estimator, list(flights.frame.columns), signature)
    found = predictions(served, encode_frame(flights.frame, signature).joined())
    np.testing.assert_allclose(found, predictions(estimator, flights.frame), atol=1e-12)


def test_positional_leaves_threads_to_the_server(flights: Flights) -> None:
    estimator = ESTIMATORS["target encoding"]().fit(flights.frame, flights.late)
    served = positional(estimator, list(flights.frame.columns), from_frame(flights.frame, "probability"))
    assert served[-1].n_jobs is None
    assert estimator[-1].n_jobs == 2


def test_order_of_use_puts_selected_columns_first(flights: Flights) -> None:
    estimator = make_pipeline(
        ColumnTransformer([("some", SimpleImputer(), ["wind", "distance"])]), LogisticRegression()
    ).fit(flights.frame, flights.late)
    names = list(flights.frame.columns)
    assert order_of_use(estimator, names) == ["wind", "distance", "carrier", "weekend", "tail"]


def test_order_of_use_without_selection_is_the_frames_own() -> None:
    estimator = LogisticRegression().fit(pd.DataFrame({"b": [0.0, 1.0], "a": [1.0, 1.0]}), [0, 1])
    assert order_of_use(estimator, ["b", "a"]) == ["b", "a"]
