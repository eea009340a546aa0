import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from analysis.errors import AnalysisError, UnknownScore
from analysis.statistics.scores import PROBABILITY_SCORES, SCORES, Score, brier, correct, log_loss, score

probabilities = st.floats(0, 1)
labels = st.sampled_from([0.0, 1.0])


@pytest.mark.parametrize(
    ("name", "prediction", "label", "expected"),
    [
        ("brier", 0.75, 1.0, 0.0625),
        ("brier", 0.75, 0.0, 0.5625),
        ("log_loss", 0.25, 1.0, math.log(4)),
        ("log_loss", 0.25, 0.0, math.log(4 / 3)),
        ("log_loss", 0.0, 1.0, -math.log(1e-15)),
        ("log_loss", 1.0, 1.0, 0.0),
        ("absolute_error", 12.5, 10.0, 2.5),
        ("absolute_error", -1.0, 1.0, 2.0),
        ("correct", 0.5, 1.0, 1.0),
        ("correct", 0.5, 0.0, 0.0),
        ("correct", 0.49, 0.0, 1.0),
    ],
)
def test_score_by_hand(name: str, prediction: float, label: float, expected: float) -> None:
    assert score(name, prediction, label) == pytest.approx(expected, abs=1e-15)


def test_log_loss_keeps_the_digits_of_a_small_probability() -> None:
    assert log_loss(3e-14, 1.0) == -math.log(3e-14)


@given(st.sampled_from(sorted(SCORES)), st.lists(st.tuples(probabilities, labels), min_size=1))
def test_score_of_an_array_is_the_score_of_each(name: str, rows: list[tuple[float, float]]) -> None:
    values = np.array(rows, dtype=np.float64)
    scored = score(name, values[:, 0], values[:, 1])
    assert scored.shape == (len(rows),)
    assert scored == pytest.approx([score(name, p, y) for p, y in rows], rel=1e-12, abs=1e-15)


def test_scores_agree_with_sklearn() -> None:
    generator = np.random.default_rng(11)
    prediction = generator.uniform(0.001, 0.999, 500)
    label = (generator.uniform(size=500) < 0.3).astype(np.float64)
    assert brier(prediction, label).mean() == pytest.approx(metrics.brier_score_loss(label, prediction))
    assert log_loss(prediction, label).mean() == pytest.approx(metrics.log_loss(label, y_proba=prediction))
    assert correct(prediction, label).mean() == metrics.accuracy_score(label, prediction >= 0.5)


def test_scores_of_python_floats_stay_clear_of_numpy() -> None:
    # numpy would answer with its own scalars, ten times slower, which the router's JSON refuses.
    for function in SCORES.values():
        assert type(function(0.2, 1.0)) is float


@given(probabilities)
def test_proper_scores_prefer_the_true_probability(truth: float) -> None:
    def expected(function: Score, prediction: float) -> float:
        return truth * function(prediction, 1.0) + (1 - truth) * function(prediction, 0.0)

    for function in (brier, log_loss):
        for other in (0.0, 0.1, 0.5, 0.9, 1.0):
            assert expected(function, truth) <= expected(function, other) + 1e-9


def test_probability_scores_are_scores() -> None:
    assert set(SCORES) - {"absolute_error"} == PROBABILITY_SCORES


def test_unknown_score_names_the_known_ones() -> None:
    with pytest.raises(UnknownScore, match=r"'mse'.*absolute_error, brier, correct, log_loss") as caught:
        score("mse", 0.5, 1.0)
    assert isinstance(caught.value, AnalysisError)


def test_scores_import_nothing_heavy() -> None:
    code = (
        "import sys, analysis.statistics.scores;print(sorted({'pandas', 'ibis', 'scipy', 'click'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
