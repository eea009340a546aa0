"""Scores of one prediction against its later label; smaller is better for all of them but `correct`."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis.errors import UnknownScore

Values = TypeVar("Values", float, NDArray[np.float64])

SMALLEST_PROBABILITY = 1e-15
"""Log loss takes what happened as at least this probable, so that one certain mistake stays finite."""


class Score(Protocol):
    """Scores predictions against labels, both floats or both arrays of one shape."""

    def __call__(self, prediction: Values, label: Values, /) -> Values:
        """The score, in the shape of its arguments."""
        ...


def brier(prediction: Values, label: Values) -> Values:
    """Squared error of a probability against a 0/1 label (Brier 1950)."""
    error = prediction - label
    return error * error


def log_loss(prediction: Values, label: Values) -> Values:
    """Negative natural logarithm of the probability given to what happened (Good 1952), in nats."""
    # label - 1 comes first: it is exact, and so a small probability keeps all its digits.
    happened = abs(label - 1 + prediction)
    if isinstance(happened, float):
        return -math.log(max(happened, SMALLEST_PROBABILITY))
    return -np.log(np.maximum(happened, SMALLEST_PROBABILITY))


def absolute_error(prediction: Values, label: Values) -> Values:
    """Distance between a predicted number and the number that came true, in the label's unit."""
    return abs(prediction - label)


def correct(prediction: Values, label: Values) -> Values:
    """1 where a probability of at least one half met the label 1, or a smaller one the label 0; else 0."""
    agreement: Values = 1.0 * ((prediction >= 0.5) == (label == 1))
    return agreement


SCORES: Mapping[str, Score] = MappingProxyType(
    {"brier": brier, "log_loss": log_loss, "absolute_error": absolute_error, "correct": correct}
)
"""Every score by the name that a metric uses for it."""

PROBABILITY_SCORES = frozenset({"brier", "log_loss", "correct"})
"""Scores that need a prediction between 0 and 1 and a label that is 0 or 1."""


def score(name: str, prediction: Values, label: Values) -> Values:
    """The named score, for floats or arrays; UnknownScore if there is none of that name.

    Values are not checked here: a score of PROBABILITY_SCORES means nothing outside its domain.
    """
    try:
        function = SCORES[name]
    except KeyError:
        known = ", ".join(sorted(SCORES))
        raise UnknownScore(f"score {name!r} does not exist; use one of: {known}") from None
    return function(prediction, label)
