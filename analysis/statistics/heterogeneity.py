"""Do several independent effects differ at all, or only by chance?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Heterogeneity(NamedTuple):
    """Evidence that effects differ, and the part of their spread that chance does not explain."""

    effects: int
    q: float
    p_value: float
    i_squared: float


def heterogeneity(effects: ArrayLike, errors: ArrayLike, degrees: ArrayLike = np.inf) -> Heterogeneity:
    """Test whether K independent effects are equal, from their standard errors and the degrees of freedom of these.

    Cochran's (1954) Q is the sum of squared distances from the weighted mean effect in standard errors. With errors
    that are estimates themselves Q is too large, the more so the fewer units they rest on, so it is judged by Welch's
    (1951) F; with infinite degrees that is the chi-square test. I squared is that of Higgins and Thompson (2002).
    ValueError for fewer than two effects, or errors that are not positive.
    """
    x, error = np.asarray(effects, dtype=np.float64).reshape(-1), np.asarray(errors, dtype=np.float64).reshape(-1)
    if x.size < 2:
        raise ValueError(f"whether effects differ takes two of them; there are {x.size}")
    if not (np.isfinite(x).all() and (error > 0).all() and np.isfinite(error).all()):
        raise ValueError("effects and standard errors must be finite, and errors positive")
    weights = 1 / error**2
    shares = weights / weights.sum()
    q, between = float(weights @ (x - shares @ x) ** 2), x.size - 1
    spread = float(((1 - shares) ** 2 / np.asarray(degrees, dtype=np.float64)).sum())
    squares = x.size**2 - 1
    f = q / between / (1 + 2 * (x.size - 2) * spread / squares)
    within = squares / (3 * spread) if spread > 0 else np.inf
    p_value = stats.f.sf(f, between, within) if np.isfinite(within) else stats.chi2.sf(q, between)
    return Heterogeneity(x.size, q, float(p_value), max(1 - between / q, 0.0) if q > 0 else 0.0)
