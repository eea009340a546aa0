"""Fitting recipes on rows in order of time: nothing is ever trained or calibrated on its own future."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.edges import settle_edges
from models.errors import InvalidSample
from models.estimator import predictions
from models.evaluation import scores
from models.recipe import Recipe
from models.signature import Signature

if TYPE_CHECKING:
    import pandas as pd


_CALIBRATION_SHARE = 0.2
"""Of the rows, the last ones."""


class Fold(NamedTuple):
    """One step of a time-series cross-validation: rows trained on, the rows after them, and the scores on those."""

    train_rows: int
    test_rows: int
    scores: dict[str, float]


def fit(
    recipe: Recipe,
    signature: Signature,
    frame: "pd.DataFrame",
    labels: NDArray[Any],
    *,
    calibration_share: float = _CALIBRATION_SHARE,
) -> Any:
    """A fitted and calibrated pipeline that takes frames with the signature's columns.

    Rows are in order of time and labels are 0 or 1. The recipe is fitted on the earlier rows; on the share that comes
    last, its scores are turned into probabilities by a sigmoid (Platt 1999), which unlike isotonic regression has no
    steps at which float32 and float64 would part. Raises InvalidSample.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline

    columns, classes = _features(frame, signature), _checked(labels, frame)
    start = int(len(columns) * (1 - calibration_share))
    if empty := _without_values(columns, calibration_share):
        names = ", ".join(map(repr, empty))
        raise InvalidSample(
            f"feature {names} has no value in the first {start:,} of {len(columns):,} rows, which are learned from: "
            "leave it out, or begin where it has values"
        )
    if len(set(classes[:start])) < 2 or len(set(classes[start:])) < 2:
        raise InvalidSample("both classes must occur in the rows to fit on and in those to calibrate on")
    fitted = settle_edges(recipe.build(signature).fit(columns[:start], classes[:start]))
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted[-1]), method="sigmoid")
    calibrated.fit(fitted[:-1].transform(columns[start:]), classes[start:])
    return Pipeline([*fitted.steps[:-1], ("model", calibrated)])


def cross_validate(
    recipe: Recipe, signature: Signature, frame: "pd.DataFrame", labels: NDArray[Any], *, folds: int = 4
) -> Iterator[Fold]:
    """Fit on the past and score on the rows that follow, `folds` times with ever more past; lazily, one at a time.

    A past in which a feature has no value yet, as one that came up later, is left out.
    """
    from sklearn.model_selection import TimeSeriesSplit

    for past, future in TimeSeriesSplit(folds).split(frame):
        if _without_values(_features(frame.iloc[past], signature), _CALIBRATION_SHARE):
            continue
        estimator = fit(recipe, signature, frame.iloc[past], labels[past])
        found = predictions(estimator, frame.iloc[future])
        yield Fold(len(past), len(future), scores(labels[future], found))


def _without_values(columns: "pd.DataFrame", calibration_share: float) -> list[str]:
    """Features that are empty in all rows that a model would be fitted on."""
    fitted_on = columns.iloc[: int(len(columns) * (1 - calibration_share))]
    return [str(name) for name, empty in fitted_on.isna().all().items() if empty]


def _features(frame: "pd.DataFrame", signature: Signature) -> "pd.DataFrame":
    names = [feature.name for feature in signature.features]
    if missing := [name for name in names if name not in frame.columns]:
        raise InvalidSample(f"the frame has no column {', '.join(map(repr, missing))}")
    return frame[names]


def _checked(labels: NDArray[Any], frame: "pd.DataFrame") -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.shape != (len(frame),):
        raise InvalidSample(f"labels of shape {array.shape} do not fit {len(frame)} rows")
    if odd := sorted(set(array.tolist()) - {0, 1})[:3]:
        raise InvalidSample(f"labels are 0 and 1, not {', '.join(map(str, odd))}")
    return array.astype(np.int64)
