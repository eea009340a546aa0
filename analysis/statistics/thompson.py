"""Thompson sampling: every arm gets traffic in proportion to the probability that it is the best one.

Thompson (1933); Chapelle and Li (2011), "An empirical evaluation of Thompson sampling", with which it came back.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.best_arm import best_arm_probabilities, top_two_probabilities
from analysis.statistics.posteriors import AnyPosterior, beta_posteriors, student_posteriors

Direction = Literal["increase", "decrease"]
Best = Callable[[Sequence[int]], NDArray[np.float64]]
"""From places of arms to the probability of each to be the best one among them."""


class Sharing(Protocol):
    """How the traffic is shared out, once it is known how probably each arm is the best one."""

    @property
    def floor(self) -> float:
        """The least share of every arm."""

    @property
    def control_share(self) -> float | None:
        """A share that the first arm keeps whatever is known."""

    @property
    def min_matured(self) -> int:
        """An arm with fewer matured decisions gets an equal share."""


class TopTwoSharing(Sharing, Protocol):
    """The same, and which arms are played for their own sake."""

    @property
    def top_two(self) -> bool:
        """Whether half of the traffic goes to the best of the others."""


class Evidence(NamedTuple):
    """Values of one arm: their number, sum and sum of squares, where older ones may count less.

    `matured` is how many there are, whatever they count.
    """

    n: float
    total: float
    squares: float
    matured: int


def probabilities(
    allocation: TopTwoSharing, kind: str, direction: Direction, evidence: Sequence[Evidence]
) -> tuple[float, ...]:
    """Return the share of each live arm, from their evidence in the same order; the first is the control.

    `kind` and `direction` are the metric's. A binary one has beta posteriors, any other Student's t.
    """
    rule = top_two_probabilities if allocation.top_two else best_arm_probabilities

    def best(arms: Sequence[int]) -> NDArray[np.float64]:
        return rule(posteriors(kind, [evidence[arm] for arm in arms]), direction)

    return shares(allocation, [arm.matured for arm in evidence], best)


def posteriors(kind: str, evidence: Sequence[Evidence]) -> tuple[AnyPosterior, ...]:
    """Return what is believed of the metric's mean for each arm."""
    n, total, squares, _ = zip(*evidence, strict=True)
    return beta_posteriors(n, total) if kind == "binary" else student_posteriors(n, total, squares)


def shares(allocation: Sharing, matured: Sequence[int], best: Best) -> tuple[float, ...]:
    """Return each live arm's share of the traffic, which sum to 1, from how many decisions of each have matured.

    An arm with fewer than `min_matured` gets an equal share, and the others divide what is left by `best`; so all begin
    alike, and one that comes later does not set the others back. The floor is added to the smaller rest, which keeps
    order and ratios: floor + (1 - arms * floor) * probability. The control's own share comes before all that.
    """
    arms = range(len(matured))
    own = allocation.control_share
    if own is None or len(matured) == 1:
        return _divided(allocation, allocation.floor, matured, arms, best)
    others = _divided(allocation, allocation.floor / (1 - own), matured, arms[1:], best)
    return (own, *((1 - own) * share for share in others))


def _divided(
    allocation: Sharing, floor: float, matured: Sequence[int], arms: Sequence[int], best: Best
) -> tuple[float, ...]:
    count = len(arms)
    ready = [arm for arm in arms if matured[arm] >= allocation.min_matured]
    probability = dict.fromkeys(arms, 1 / count)
    if ready:
        found = best(ready).tolist()
        scale = len(ready) / count / math.fsum(found)
        probability.update((arm, scale * each) for arm, each in zip(ready, found, strict=True))
    least = min(floor, 1 / count)
    return tuple(least + (1 - count * least) * probability[arm] for arm in arms)
