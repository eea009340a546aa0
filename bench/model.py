"""The model that every server of a benchmark serves: 30 real numeric features, scaled, logistic regression.

Peers train it again in environments of their own, which have scikit-learn and nothing of ours.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    import msgspec

FEATURES = tuple(f"f{number}" for number in range(30))


def features() -> NDArray[np.float64]:
    """Return the 569 rows of 30 features."""
    return np.asarray(load_breast_cancer().data, dtype=np.float64)


def fitted() -> Pipeline:
    """Return the fitted pipeline."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
        features(), load_breast_cancer().target
    )


def input_type() -> "type[msgspec.Struct]":
    """Return the type of one row: f0 to f29."""
    import msgspec

    return msgspec.defstruct("Features", [(name, float) for name in FEATURES], frozen=True)


def example() -> dict[str, float]:
    """Return one row as a request has it."""
    return dict(zip(FEATURES, features()[0].tolist(), strict=True))
