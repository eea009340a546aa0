"""Linear Thompson sampling: the share of each arm is the probability that it is the best one for a request's context.

Agrawal and Goyal (2013), "Thompson sampling for contextual bandits with linear payoffs". The probabilities are exact
where they sample, so that every decision's propensity is known; what an epoch stores is enough to compute them again.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import msgspec
import numpy as np
from numpy.typing import NDArray

from analysis.statistics.best_arm import normal_best_probabilities
from analysis.statistics.linear import Weights
from analysis.statistics.thompson import Direction, shares
from router.documents import AnyFeature, Contextual, NumberFeature, shown
from router.errors import InvalidRequest

Floats = NDArray[np.float64]


class ArmPosterior(msgspec.Struct, frozen=True):
    """What an epoch stores of a live arm.

    The mean of the weights [d], the rows of the lower Cholesky factor of their covariance up to the diagonal, one after
    the other [d * (d + 1) / 2], and how many decisions have matured.
    """

    mean: list[float]
    factor: list[float]
    matured: int


def arm_posterior(weights: Weights, matured: int) -> ArmPosterior:
    """Return what an epoch stores of an arm."""
    rows = np.tril_indices(len(weights.mean))
    return ArmPosterior(weights.mean.tolist(), weights.factor[rows].tolist(), matured)


def encode(features: Sequence[AnyFeature], context: Mapping[str, Any]) -> Floats:
    """Return the context's row [d]: 1, and the columns of each feature.

    A number is scaled so that `low` is -1 and `high` 1, and clipped; what is missing or no number is in the middle, 0.
    A category has a column for each of its values; what is missing or none of them is 0 in all.
    """
    row = [1.0]
    for feature in features:
        row.extend(_encoded(feature, context.get(feature.name)))
    return np.array(row)


def check_context(features: Sequence[AnyFeature], context: Mapping[str, Any]) -> None:
    """Check that what a client sends can be what the features say; what is missing or unknown is no mistake.

    Raises:
        InvalidRequest: With the first attribute of another type, its value and the remedy.
    """
    for feature in features:
        value = context.get(feature.name)
        if value is not None and not _fits(feature, value):
            give = "a number" if isinstance(feature, NumberFeature) else f"a text, such as {shown(feature.values[0])}"
            field = f"context.{feature.name}"
            raise InvalidRequest(f"{field}: here stands {shown(value)}; give {give}, or leave it out", field=field)


class Policy:
    """The posterior of an epoch, made ready for requests."""

    def __init__(self, allocation: Contextual, direction: Direction, arms: Sequence[ArmPosterior]) -> None:
        sign = 1.0 if direction == "increase" else -1.0
        self._allocation = allocation
        self._matured = [arm.matured for arm in arms]
        means = np.array([arm.mean for arm in arms]).T * sign
        # A factor's column for every arm, and then the next column, so that scores are summed in a fixed order.
        factors = np.stack([_factor(arm) for arm in arms], axis=2)
        self._table = np.concatenate([means, factors.reshape(len(means), -1)], axis=1)

    def probabilities(self, context: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the share of each live arm for a request with this context; they sum to 1."""

        def best(arms: Sequence[int]) -> Floats:
            mean, sd = self.scores(context)
            return normal_best_probabilities(mean[arms], sd[arms])

        return shares(self._allocation, self._matured, best)

    def scores(self, context: Mapping[str, Any]) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of each arm's score [arms], larger being better.

        Sums run over one entry after the other, not through a linear-algebra library, and so are the same to the last
        bit on every machine.
        """
        row = encode(self._allocation.features, context)
        products = (row[:, np.newaxis] * self._table).sum(axis=0)
        arms = len(self._matured)
        spread = products[arms:].reshape(-1, arms)
        return products[:arms], np.sqrt((spread * spread).sum(axis=0))


def _encoded(feature: AnyFeature, value: object) -> Iterator[float]:
    if isinstance(feature, NumberFeature):
        yield _scaled(value, feature.low, feature.high)
    else:
        yield from (float(value == each) for each in feature.values)


def _fits(feature: AnyFeature, value: object) -> bool:
    return _is_number(value) if isinstance(feature, NumberFeature) else isinstance(value, str)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scaled(value: object, low: float, high: float) -> float:
    if not _is_number(value) or (isinstance(value, float) and math.isnan(value)):
        return 0.0
    clipped = min(max(value, low), high)
    # Halves, because the distance between two floats can be too large for a float.
    return 2.0 * ((clipped / 2 - low / 2) / (high / 2 - low / 2)) - 1.0


def _factor(arm: ArmPosterior) -> Floats:
    size = len(arm.mean)
    factor = np.zeros((size, size))
    factor[np.tril_indices(size)] = arm.factor
    return factor
