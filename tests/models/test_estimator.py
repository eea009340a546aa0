from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.svm import LinearSVC

from models.errors import UnsupportedModel
from models.estimator import output_of, predictions

ROWS = np.arange(12.0).reshape(6, 2)


def test_binary_classifier_gives_the_probability_of_class_1() -> None:
    estimator = LogisticRegression().fit(ROWS, [0, 0, 0, 1, 1, 1])
    assert output_of(estimator) == "probability"
    np.testing.assert_array_equal(predictions(estimator, ROWS), estimator.predict_proba(ROWS)[:, 1])
    assert predictions(estimator, ROWS)[-1] > 0.5


@pytest.mark.parametrize("labels", [[False, True] * 3, [0.0, 1.0] * 3])
def test_classes_may_be_booleans_and_floats(labels: list[Any]) -> None:
    assert output_of(LogisticRegression().fit(ROWS, labels)) == "probability"


def test_regressor_gives_a_number() -> None:
    estimator = LinearRegression().fit(ROWS, ROWS[:, :1])
    assert output_of(estimator) == "number"
    np.testing.assert_allclose(predictions(estimator, ROWS), ROWS[:, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LogisticRegression().fit(ROWS, [0, 1, 2] * 2), r"has the classes \[0, 1, 2\]: only two classes, 0 and 1"),
        (LogisticRegression().fit(ROWS, [1, 2] * 3), r"has the classes \[1, 2\]"),
        (LogisticRegression().fit(ROWS, ["no", "yes"] * 3), r"has the classes \['no', 'yes'\]"),
        (LogisticRegression(), "LogisticRegression has no classes: fit it before publishing"),
        (LinearSVC().fit(ROWS, [0, 1] * 3), "LinearSVC gives no probability: wrap it in CalibratedClassifierCV"),
        (KMeans(2, n_init=1).fit(ROWS), "KMeans is neither a classifier nor a regressor"),
        (MultiOutputClassifier(LogisticRegression()).fit(ROWS, [[0, 1], [1, 0]] * 3), "has the classes"),
    ],
)
def test_output_of_refuses_what_cannot_be_served(estimator: Any, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        output_of(estimator)


def test_predictions_refuse_several_numbers_per_row() -> None:
    with pytest.raises(UnsupportedModel, match="LinearRegression predicts 2 numbers per row, not one"):
        predictions(LinearRegression().fit(ROWS, ROWS), ROWS)
