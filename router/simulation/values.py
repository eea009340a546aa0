"""What an arm's values are: how sums of many are drawn at once, without drawing each where that can be helped."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class Sums(NamedTuple):
    """Sums of values and of their squares; both as many as there were counts."""

    total: Floats
    squares: Floats


class Ones(NamedTuple):
    """Values that are 1 with a probability, else 0."""

    probability: float

    @property
    def mean(self) -> float:
        """The expected value."""
        return self.probability

    @property
    def sd(self) -> float:
        """The standard deviation of a value."""
        return math.sqrt(self.probability * (1 - self.probability))

    def draw(self, generator: np.random.Generator, counts: Counts) -> Sums:
        """Return the sums of so many values."""
        ones = generator.binomial(counts, self.probability).astype(np.float64)
        return Sums(ones, ones)


class Normals(NamedTuple):
    """Normal values."""

    mean: float
    sd: float

    def draw(self, generator: np.random.Generator, counts: Counts) -> Sums:
        """Return the sums of so many values.

        The sum of n and the squared distances from their mean are independent, normal and chi-squared (Cochran 1934).
        """
        n = np.maximum(counts, 1)
        mean = self.mean + self.sd / np.sqrt(n) * generator.standard_normal(n.shape)
        around = np.where(n > 1, self.sd**2 * generator.chisquare(np.maximum(n - 1, 1)), 0.0)
        some = counts > 0
        return Sums(np.where(some, n * mean, 0.0), np.where(some, n * mean * mean + around, 0.0))


class Resampled(NamedTuple):
    """Values drawn with replacement from those that were observed [values]."""

    observed: Floats

    @property
    def mean(self) -> float:
        """The mean of what was observed."""
        return float(self.observed.mean())

    @property
    def sd(self) -> float:
        """The standard deviation of what was observed, which is all that there is."""
        return float(self.observed.std())

    def draw(self, generator: np.random.Generator, counts: Counts) -> Sums:
        """Return the sums of so many values, each drawn by itself."""
        picked = self.observed[generator.integers(len(self.observed), size=int(counts.sum()))]
        place = np.repeat(np.arange(len(counts)), counts)
        total, squares = (np.bincount(place, each, minlength=len(counts)) for each in (picked, picked * picked))
        return Sums(total.astype(np.float64), squares.astype(np.float64))


AnyValues = Ones | Normals | Resampled
