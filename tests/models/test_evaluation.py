from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from models.errors import InvalidSample
from models.evaluation import differences, evaluate, reliability, scores

ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1)), min_size=2
).filter(lambda rows: len({label for label, _ in rows}) == 2)


def test_scores_by_hand() -> None:
    found = scores(np.array([0, 1, 1, 0]), np.array([0.5, 0.5, 1.0, 0.25]))
    assert found["brier"] == (0.25 + 0.25 + 0 + 0.0625) / 4
    assert found["log_loss"] == pytest.approx((2 * np.log(2) + np.log(4 / 3)) / 4)
    assert found["roc_auc"] == 3.5 / 4


@given(ROWS)
def test_scores_agree_with_scikit_learn(rows: list[tuple[int, float]]) -> None:
    labels, probabilities = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = scores(labels, probabilities)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, probabilities))
    clipped = np.clip(probabilities, 1e-15, 1 - 1e-15)
    assert found["log_loss"] == pytest.approx(log_loss(labels, np.c_[1 - clipped, clipped]), rel=1e-6)


def simulated(generator: np.random.Generator, rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    probabilities = generator.uniform(0.05, 0.95, rows)
    return (generator.random(rows) < probabilities).astype(int), probabilities


def test_intervals_cover_the_true_score_as_often_as_they_promise() -> None:
    generator = np.random.default_rng(1)
    # The Brier score of a calibrated p is p (1 - p); its mean over U(0.05, 0.95) follows by integration.
    truth = 0.25 - 0.9**2 / 12
    runs, covered = 200, 0
    for run in range(runs):
        found = evaluate(*simulated(generator, 200), resamples=100, confidence=0.9, seed=run)["brier"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    # Three standard errors of a simulated share.
    assert covered / runs == pytest.approx(0.9, abs=3 * np.sqrt(0.9 * 0.1 / runs))


def test_intervals_widen_when_rows_that_share_a_cause_are_drawn_together() -> None:
    generator = np.random.default_rng(2)
    days = np.repeat(np.arange(50), 20)
    stormy = generator.random(50)[days] < 0.3
    labels = (generator.random(1000) < np.where(stormy, 0.8, 0.1)).astype(int)
    probabilities = np.clip(generator.normal(0.3, 0.05, 1000), 0.01, 0.99)
    alone, together = (evaluate(labels, probabilities, groups=groups) for groups in (None, days))
    for name in alone:
        assert alone[name].value == together[name].value
    widths = [found["brier"].high - found["brier"].low for found in (alone, together)]  # type: ignore[operator]
    assert widths[1] > 2 * widths[0]


def test_difference_on_the_same_rows_is_known_better_than_either_score() -> None:
    generator = np.random.default_rng(5)
    labels, probabilities = simulated(generator, 2000)
    days = np.arange(2000) // 50
    blurred = np.clip(probabilities + generator.normal(0, 0.08, 2000), 0.04, 0.96)
    found = differences(labels, blurred, probabilities, groups=days)
    ours, theirs = (evaluate(labels, each, groups=days) for each in (blurred, probabilities))
    for name, difference in found.items():
        assert difference.value == pytest.approx(ours[name].value - theirs[name].value)
        assert difference.high - difference.low < 0.6 * (theirs[name].high - theirs[name].low)  # type: ignore[operator]
    assert found["brier"].low > 0  # type: ignore[operator]
    assert all(each.value == each.low == each.high == 0 for each in differences(labels, blurred, blurred).values())


def test_evaluate_is_the_same_for_the_same_seed() -> None:
    rows = simulated(np.random.default_rng(3), 100)
    assert evaluate(*rows, resamples=50, seed=4) == evaluate(*rows, resamples=50, seed=4)
    assert evaluate(*rows, resamples=50, seed=4) != evaluate(*rows, resamples=50, seed=5)


def test_evaluate_survives_resamples_of_one_label() -> None:
    found = evaluate(np.array([0, 0, 1]), np.array([0.1, 0.2, 0.3]))["roc_auc"]
    assert (found.value, found.low, found.high, found.confidence) == (1, 1, 1, 0.95)


def test_reliability_by_hand() -> None:
    found = reliability(np.array([1, 0, 0, 1]), np.array([0.9, 0.1, 0.3, 0.7]), bins=2)
    np.testing.assert_allclose(found.predicted, [0.2, 0.8])
    np.testing.assert_allclose(found.observed, [0, 1])
    np.testing.assert_array_equal(found.rows, [2, 2])
    # Wilson's interval of 0 in 2 reaches from 0 to z² / (2 + z²).
    z2 = 1.959963984540054**2
    np.testing.assert_allclose(found.low, [0, 1 - z2 / (2 + z2)], atol=1e-12)
    np.testing.assert_allclose(found.high, [z2 / (2 + z2), 1], atol=1e-12)


def test_reliability_covers_calibrated_predictions() -> None:
    found = reliability(*simulated(np.random.default_rng(5), 20_000), bins=20, confidence=0.999)
    assert found.rows.sum() == 20_000
    assert ((found.low <= found.predicted) & (found.predicted <= found.high)).all()
    assert (np.diff(found.predicted) > 0).all()


def test_reliability_has_no_more_bins_than_rows() -> None:
    assert len(reliability(np.array([0, 1]), np.array([0.2, 0.8])).rows) == 2


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [0.5], r"\(2,\) labels do not fit \(1,\) probabilities"),
        ([], [], "do not fit"),
        ([0, 2], [0.5, 0.5], "labels are 0 and 1 only"),
        ([0, 1], [0.5, 1.5], "probabilities lie between 0 and 1"),
        ([0, 1], [0.5, np.nan], "probabilities lie between 0 and 1"),
        ([1, 1], [0.5, 0.5], "rows of both labels"),
    ],
)
def test_scores_name_unusable_rows(labels: list[int], probabilities: list[float], message: str) -> None:
    with pytest.raises(InvalidSample, match=message):
        scores(np.array(labels), np.array(probabilities))
