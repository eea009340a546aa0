"""Did arms get the traffic that their probabilities promise? At every look, and with probabilities that move.

If the split is broken, an arm gets a multiple of what it should get: its tilt. For a fixed tilt theta, the product over
decisions of theta[arm drawn] / sum over arms of p[arm] theta[arm] has mean 1 under the promise whatever moves p, since
each factor has given the past. A mixture of such products over tilts is an e-process (Ville 1939): 1 / its largest
value so far is a p-value at every look. It needs the counts of each period in order, no rows.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from analysis.statistics.sample_ratio import THRESHOLD
from analysis.statistics.sequences import always_valid_p_values

Floats = NDArray[np.float64]

LOG_TILTS = 0.005 * 2.0 ** np.arange(10)
"""An arm that gets 0.5 % less or more, 1 %, 2 % and so on, up to 13 times less or more."""

CONCENTRATION = 10_000.0
"""With constant shares: deviations are looked for that this many decisions would make by chance."""

# A bandit may have millions of periods, and each takes a number per tilt.
_BLOCK = 10_000


class SequentialRatio(NamedTuple):
    """Evidence against the promised split after each period [periods]; above 0 it speaks against, below 0 for it."""

    log_e_values: Floats
    """Natural logarithms; infinite once an arm without share was drawn."""
    p_values: Floats
    """Valid at all looks together, and so never rising."""

    @property
    def p_value(self) -> float:
        """The p-value after all periods; 1 without any."""
        return float(self.p_values[-1]) if self.p_values.size else 1.0

    @property
    def mismatch(self) -> bool:
        """Whether the split is broken."""
        return self.p_value < THRESHOLD


def sequential_ratio(draws: ArrayLike, shares: ArrayLike) -> SequentialRatio:
    """Test draws [periods, arms] in order of time against the shares [periods, arms] with which they were made.

    Shares sum to 1, or to 0 in a period without arms, and may follow from all that was before the period. The evidence
    is the mean of `tilted_evidence` and, as long as shares are constant, the sharper `dirichlet_evidence`; so nothing
    need be known about the shares in advance. ValueError for shares that are none.
    """
    counts, promised = _checked(draws, shares)
    both = np.stack([tilted_evidence(counts, promised), dirichlet_evidence(counts, promised)])
    combined = np.logaddexp.reduce(both, axis=0) - np.log(2.0)
    return SequentialRatio(combined, always_valid_p_values(combined))


def tilted_evidence(draws: ArrayLike, shares: ArrayLike, tilts: ArrayLike | None = None) -> Floats:
    """Return the logarithm of the mean over tilts of the product over decisions, after each period [periods].

    Takes draws and shares as `sequential_ratio`, and the logarithms of tilts [tilts, arms] that are fixed in advance;
    by default those of one arm after the other, less or more by `LOG_TILTS`. The finite mixture keeps the
    logarithm of their number from the best of them.
    """
    counts, promised = _checked(draws, shares)
    chosen = single_arm_tilts(counts.shape[1]) if tilts is None else np.asarray(tilts, dtype=np.float64)
    multiples = np.exp(chosen)
    found, so_far = np.empty(len(counts)), np.zeros(len(chosen))
    for start in range(0, len(counts), _BLOCK):
        here = slice(start, start + _BLOCK)
        expected = promised[here] @ multiples.T
        # In a period without arms nothing is expected, and nothing may be drawn.
        expected[promised[here].sum(axis=1) == 0] = 1.0
        steps = counts[here] @ chosen.T - counts[here].sum(axis=1, keepdims=True) * np.log(expected)
        sums = so_far + np.cumsum(steps, axis=0)
        found[here], so_far = special.logsumexp(sums, axis=1) - np.log(len(chosen)), sums[-1]
    return np.where(_impossible(counts, promised), np.inf, found)


def dirichlet_evidence(draws: ArrayLike, shares: ArrayLike, concentration: float = CONCENTRATION) -> Floats:
    """Return the logarithm of the Dirichlet-multinomial Bayes factor, after each period [periods].

    B(a + S) / B(a) / product of share^S with a = concentration * shares (Lindon and Malek 2022). It holds for constant
    shares only: from the first period with others on, its evidence is what it was before.
    """
    counts, promised = _checked(draws, shares)
    if len(counts) == 0:
        return np.zeros(0)
    first = promised[np.argmax(promised.sum(axis=1) > 0)]
    there = promised.sum(axis=1) > 0
    constant = np.logical_and.accumulate(~there | (promised == first).all(axis=1))
    possible = first > 0
    total = np.cumsum(np.where(constant[:, np.newaxis], counts, 0.0), axis=0)[:, possible]
    prior = concentration * first[possible]
    found = (
        (special.gammaln(prior + total) - special.gammaln(prior)).sum(axis=1)
        - special.gammaln(concentration + total.sum(axis=1))
        + special.gammaln(concentration)
        - total @ np.log(first[possible])
    )
    return np.where(_impossible(counts, promised), np.inf, found)


def single_arm_tilts(arms: int) -> Floats:
    """Return logarithms of tilts [tilts, arms] of one arm each; of two arms only the first, which tilts the other."""
    levels = np.concatenate([-LOG_TILTS, LOG_TILTS])
    tilted = np.eye(arms)[: 1 if arms == 2 else arms]
    return np.asarray((tilted[:, np.newaxis, :] * levels[:, np.newaxis]).reshape(-1, arms))


def _impossible(counts: Floats, promised: Floats) -> NDArray[np.bool_]:
    return np.logical_or.accumulate(((counts > 0) & (promised == 0)).any(axis=1))


def _checked(draws: ArrayLike, shares: ArrayLike) -> tuple[Floats, Floats]:
    counts, promised = np.asarray(draws, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if counts.ndim != 2 or counts.shape != promised.shape:
        raise ValueError(f"draws and shares must both be [periods, arms]; they are {counts.shape} and {promised.shape}")
    total = promised.sum(axis=1)
    if (promised < 0).any() or not ((np.abs(total - 1) < 1e-9) | (total == 0)).all():
        raise ValueError("the shares of a period must be at least 0 and sum to 1, or all be 0")
    return counts, promised
