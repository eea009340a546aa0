from typing import Any

import numpy as np
import pytest

from models.errors import InvalidSample
from models.estimator import predictions
from models.frame import from_frame
from models.recipe import Recipe, boosting, logistic
from models.training import cross_validate, fit
from tests.models.made_up import Flights, made_up_flights


def test_fit_never_trains_on_the_rows_that_it_calibrates_on(flights: Flights) -> None:
    signature = from_frame(flights.frame, "probability")
    estimator = fit(logistic(), signature, flights.frame, flights.late, calibration_share=0.25)
    earlier = logistic().build(signature).fit(flights.frame[:600], flights.late[:600])
    (calibrated,) = estimator[-1].calibrated_classifiers_
    np.testing.assert_allclose(calibrated.estimator.estimator.coef_, earlier[-1].coef_, rtol=1e-3, atol=1e-4)


def overconfident(rows: int) -> Flights:
    """Labels that are right for the first half and mostly noise afterwards."""
    flights = made_up_flights(rows, seed=7)
    noise = np.random.default_rng(7).integers(0, 2, rows)
    return flights._replace(late=np.where(np.arange(rows) < rows * 0.8, flights.frame["weekend"].astype(int), noise))


def test_fit_calibrates_on_the_latest_rows() -> None:
    flights = overconfident(2000)
    signature = from_frame(flights.frame, "probability")
    late = slice(1600, None)
    uncalibrated = logistic().build(signature).fit(flights.frame[:1600], flights.late[:1600])
    calibrated = fit(logistic(), signature, flights.frame, flights.late)
    spread = [np.ptp(predictions(model, flights.frame[late])) for model in (uncalibrated, calibrated)]
    assert spread[0] > 0.9
    assert spread[1] < 0.2


def test_fit_decides_alike_on_a_number_and_on_its_float32(flights: Flights) -> None:
    signature = from_frame(flights.frame, "probability")
    estimator = fit(boosting(iterations=20, leaf_rows=5), signature, flights.frame, flights.late)
    rounded = flights.frame.assign(wind=flights.frame["wind"].astype(np.float32).astype(float))
    assert (rounded["wind"] != flights.frame["wind"]).sum() > 500
    np.testing.assert_array_equal(predictions(estimator, rounded), predictions(estimator, flights.frame))


def test_cross_validate_scores_each_future_with_its_past_alone() -> None:
    flights = made_up_flights(1000, seed=3)
    signature = from_frame(flights.frame, "probability")
    folds = list(cross_validate(logistic(), signature, flights.frame, flights.late, folds=4))
    assert [(fold.train_rows, fold.test_rows) for fold in folds] == [(200, 200), (400, 200), (600, 200), (800, 200)]
    estimator = fit(logistic(), signature, flights.frame[:200], flights.late[:200])
    brier = np.mean((predictions(estimator, flights.frame[200:400]) - flights.late[200:400]) ** 2)
    assert folds[0].scores["brier"] == pytest.approx(brier)


@pytest.mark.parametrize("recipe", [logistic(), boosting(iterations=20, leaf_rows=5)], ids=["logistic", "boosting"])
def test_feature_that_came_up_later_leaves_out_the_past_without_it(recipe: Recipe) -> None:
    flights = made_up_flights(1000, seed=3)
    signature = from_frame(flights.frame, "probability")
    frame = flights.frame.assign(wind=flights.frame["wind"].where(np.arange(1000) >= 400))
    folds = list(cross_validate(recipe, signature, frame, flights.late, folds=4))
    assert [fold.train_rows for fold in folds] == [600, 800]
    assert np.isfinite(predictions(fit(recipe, signature, frame, flights.late), frame)).all()
    with pytest.raises(InvalidSample, match=r"feature 'wind' has no value in the first 320 of 400 rows"):
        fit(recipe, signature, frame[:400], flights.late[:400])


def test_cross_validate_fits_lazily_for_progress_bars() -> None:
    flights = made_up_flights(300, seed=3)
    folds = cross_validate(logistic(), from_frame(flights.frame, "probability"), flights.frame, flights.late)
    assert next(folds).train_rows == 60


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(800), "both classes must occur"),
        (np.r_[np.arange(400) % 2, np.zeros(400)], "both classes must occur"),
        (np.full(800, 2), "labels are 0 and 1, not 2"),
        (np.array(["late"] * 800), "labels are 0 and 1, not late"),
        (np.zeros(7), r"labels of shape \(7,\) do not fit 800 rows"),
    ],
)
def test_fit_names_unusable_labels(labels: Any, message: str, flights: Flights) -> None:
    with pytest.raises(InvalidSample, match=message):
        fit(logistic(), from_frame(flights.frame, "probability"), flights.frame, labels)


def test_fit_names_missing_columns(flights: Flights) -> None:
    signature = from_frame(flights.frame, "probability")
    with pytest.raises(InvalidSample, match="no column 'wind'"):
        fit(logistic(), signature, flights.frame.drop(columns="wind"), flights.late)


def test_fit_takes_nullable_columns_of_every_storage(flights: Flights) -> None:
    odd = flights.frame.assign(
        distance=flights.frame["distance"].astype("Int64").mask(flights.frame["weekend"]),
        weekend=flights.frame["weekend"].astype("boolean").mask(flights.frame["wind"].isna()),
        carrier=flights.frame["carrier"].astype("category"),
    )
    estimator = fit(logistic(), from_frame(odd, "probability"), odd, flights.late)
    assert np.isfinite(predictions(estimator, flights.frame)).all()
