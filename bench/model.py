"""The model that every server of a benchmark serves: 30 real numeric features, scaled, logistic regression."""

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def features() -> NDArray[np.float64]:
    """Return the 569 rows of 30 features."""
    return np.asarray(load_breast_cancer().data, dtype=np.float64)


def fitted() -> Pipeline:
    """Return the fitted pipeline."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
        features(), load_breast_cancer().target
    )


def input_type() -> type[msgspec.Struct]:
    """Return the type of one row: f0 to f29."""
    return msgspec.defstruct("Features", [(f"f{number}", float) for number in range(30)], frozen=True)


def example() -> dict[str, float]:
    """Return one row as a request has it."""
    return {f"f{number}": value for number, value in enumerate(features()[0].tolist())}
