import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.edges import _edges, settle_edges

# Two decimals and many ties: scikit-learn puts splits on such values, which float32 does not have.
TIED = np.random.default_rng(0).normal(10, 3, 5000).round(2)[:, None]
BOOSTED = HistGradientBoostingRegressor(max_iter=30).fit(TIED, np.sin(TIED[:, 0]) * 100)
UNSETTLED = HistGradientBoostingRegressor(max_iter=30).fit(TIED, np.sin(TIED[:, 0]) * 100)
SETTLED = settle_edges(BOOSTED)


def test_splits_on_tied_values_are_what_float32_breaks() -> None:
    rounded = TIED.astype(np.float32).astype(float)
    assert (UNSETTLED.predict(TIED) != UNSETTLED.predict(rounded)).any()


def test_settled_splits_treat_rows_like_the_original() -> None:
    np.testing.assert_array_equal(SETTLED.predict(TIED), UNSETTLED.predict(TIED))


def test_settled_splits_fall_alike_around_every_training_value() -> None:
    values = np.unique(TIED).astype(np.float32)
    around = [values, np.nextafter(values, np.float32(np.inf)), np.nextafter(values, np.float32(-np.inf))]
    numbers = np.concatenate(around).astype(float)
    wobble = np.concatenate([np.nextafter(numbers, np.inf), np.nextafter(numbers, -np.inf)])[:, None]
    np.testing.assert_array_equal(SETTLED.predict(wobble), SETTLED.predict(wobble.astype(np.float32).astype(float)))


@given(st.floats(-1e30, 1e30), st.floats(-3e-7, 3e-7) | st.floats(-1, 1))
def test_edge_lies_where_rounding_carries_nothing_across(threshold: float, distance: float) -> None:
    (edge,) = _edges(np.array([threshold]))
    number = threshold * (1 + distance)
    assert (number <= edge) == (float(np.float32(number)) <= edge)
    assert abs(edge - threshold) <= max(abs(threshold) * 1.2e-7, 1e-44)


def test_edge_at_infinity_and_halfway_between_neighbours_stays() -> None:
    halfway = (1 + float(np.nextafter(np.float32(1), np.float32(2)))) / 2
    assert _edges(np.array([np.inf, halfway, 1.0])).tolist() == [np.inf, halfway, halfway]


def test_estimators_without_histogram_boosting_stay_as_they_are() -> None:
    estimator = make_pipeline(StandardScaler(), LinearRegression()).fit(TIED, TIED[:, 0])
    expected = estimator.predict(TIED)
    np.testing.assert_array_equal(settle_edges(estimator).predict(TIED), expected)
