"""How probable is it that an arm is the best one? Exactly, by quadrature, so that equal inputs give equal answers.

P(k is best) = integral of f_k(x) * product over j != k of F_j(x) dx, where f is the density of an arm's mean and F its
distribution function. Only densities are evaluated: on each piece of the line they are interpolated at Gauss-Legendre
nodes, and the integrals of the interpolating polynomials are the distribution functions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.posteriors import AnyPosterior, Beta, Normal, Student

Floats = NDArray[np.float64]

# An arm's support ends where its log density is about this much below its mode's; what is beyond weighs about 1e-16.
_DEPTH = 36.0
_REACH = math.sqrt(2 * _DEPTH)

# A piece of the line is at most so many standard deviations long near the centre of an arm, and grows with the distance
# beyond some of them: chosen so that the interpolation errs by less than 1e-13.
_STEP, _CORE, _GROWTH = 1.5, 6.0, 0.5

_LEAST = 1e-30


def _upper_integrals(nodes: Floats, weights: Floats) -> Floats:
    """Return the integrals from each node to 1 of each node's Lagrange polynomial [of, from]."""
    count = len(nodes)
    legendre = np.polynomial.legendre.legvander(nodes, count)
    degrees = np.arange(1, count)
    coefficients = weights[:, np.newaxis] * legendre[:, :count] * (np.arange(count) + 0.5)
    above = np.empty((count, count))
    above[:, 0] = 1.0 - nodes
    above[:, 1:] = (legendre[:, degrees - 1] - legendre[:, degrees + 1]) / (2 * degrees + 1)
    return np.asarray(coefficients @ above.T)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_UPPER = _upper_integrals(_NODES, _WEIGHTS)


class _Arms(NamedTuple):
    """The arms on a line where all their densities are smooth; every field is [K].

    The supports end `below` the centres and `above` them; scale 0 is a point of mass 1.
    """

    centre: Floats
    scale: Floats
    below: Floats
    above: Floats
    parameters: Floats
    """Whatever else the density takes [K, number of parameters]."""
    density: Callable[[Floats, Floats, Floats], Floats]
    """From distances from the centre [K, nodes], scales [K, 1] and parameters [K, number of them, 1]."""


def best_arm_probabilities(
    posteriors: Sequence[AnyPosterior], direction: Literal["increase", "decrease"] = "increase"
) -> Floats:
    """Return the probability of each arm that its mean is the largest, or the smallest, of independent ones [K].

    Nothing is normalised: for up to 100 arms the sum is within 1e-9 of 1. Arms that are certainly equally good share
    their probability. ValueError for what is no distribution, TypeError for several families.
    """
    if {*map(type, posteriors)} not in ({Beta}, {Student}, {Normal}):
        raise TypeError("the posteriors must be all beta, all Student's t or all normal distributions")
    columns = np.array(posteriors, dtype=np.float64).T
    increase = direction == "increase"
    if isinstance(posteriors[0], Beta):
        if not (columns > 0).all():
            raise ValueError("the parameters of a beta distribution must be positive")
        return _best(_betas(*columns) if increase else _betas(*columns[::-1]))
    centre = columns[0] if increase else -columns[0]
    if isinstance(posteriors[0], Student):
        return _best(_students(centre, columns[1], columns[2]))
    return _best(_normals(centre, columns[1]))


def normal_best_probabilities(means: ArrayLike, sds: ArrayLike) -> Floats:
    """Return the probability of each arm that its score is the largest of independent normal ones [K].

    As `best_arm_probabilities`, but quick enough for every request. ValueError for what is no distribution.
    """
    return _best(_normals(np.asarray(means, dtype=np.float64), np.asarray(sds, dtype=np.float64)))


def top_two_probabilities(
    posteriors: Sequence[AnyPosterior], direction: Literal["increase", "decrease"] = "increase"
) -> Floats:
    """Return the probability with which top-two Thompson sampling plays each arm [K], with the coin 1/2 (Russo 2016).

    Half of the time it plays the arm that a draw from the posterior says is best, else the first other arm that further
    draws say is best: p_k / 2 + sum over j != k of p_j * p_k / (1 - p_j) / 2. Where no further draw would ever say so,
    because the others together are best with less than 1e-12, the other arm is drawn as the best one among them.
    """
    raw = best_arm_probabilities(posteriors, direction)
    best = raw / math.fsum(raw)
    if len(best) == 1:
        return best
    leader = int(np.argmax(best))
    others = [arm for arm in range(len(best)) if arm != leader]
    rest = 1.0 - best
    rest[leader] = math.fsum(best[others])
    decided = rest[leader] < _DECIDED
    odds = best / np.maximum(rest, _DECIDED)
    if decided:
        odds[leader] = 0.0
    played = best / 2 * (1.0 + (odds * ~np.eye(len(best), dtype=np.bool_)).sum(axis=1))
    if decided:
        second = best_arm_probabilities([posteriors[arm] for arm in others], direction)
        played[others] += best[leader] / 2 * second / math.fsum(second)
    return np.asarray(played)


_DECIDED = 1e-12


def _normals(mean: Floats, sd: Floats) -> _Arms:
    reach = _REACH * sd
    return _Arms(mean, sd, reach, reach, np.empty((len(mean), 0)), _normal_density)


def _students(location: Floats, scale: Floats, freedom: Floats) -> _Arms:
    reach = scale * np.sqrt(freedom * np.expm1(2 * _DEPTH / freedom))
    half = freedom / 2
    # Gamma((v + 1) / 2) / Gamma(v / 2) / sqrt(v / 2), without the difference of two large logarithms.
    above, below = _stirling_rest(np.stack([half + 0.5, half]))
    ratio = half * np.log1p(0.5 / half) - 0.5 + above - below
    peak = np.exp(ratio) / math.sqrt(2 * math.pi)
    return _Arms(location, scale, reach, reach, np.stack([freedom, peak], axis=1), _student_density)


def _betas(successes: Floats, failures: Floats) -> _Arms:
    """Return beta posteriors on the line of log odds, where they are smooth at both ends and no odds are too small."""
    variance = 1 / successes + 1 / failures
    scale = np.sqrt(variance)
    mirrored = successes > failures
    fewer, more = np.minimum(successes, failures), np.maximum(successes, failures)
    first, second, both = _stirling_rest(np.stack([successes, failures, successes + failures]))
    peak = np.exp(both - first - second) / scale / math.sqrt(2 * math.pi)
    sign = np.where(mirrored, -1.0, 1.0)
    return _Arms(
        centre=np.log(successes / failures),
        scale=scale,
        below=_REACH * scale + _DEPTH / successes,
        above=_REACH * scale + _DEPTH / failures,
        parameters=np.stack([sign, fewer, fewer + more, fewer / (fewer + more), peak], axis=1),
        density=_log_odds_density,
    )


def _normal_density(distance: Floats, scale: Floats, _: Floats) -> Floats:
    z = distance / scale
    return np.asarray(np.exp(z * z * -0.5) / (scale * math.sqrt(2 * math.pi)))


def _student_density(distance: Floats, scale: Floats, parameters: Floats) -> Floats:
    freedom, peak = parameters[:, 0], parameters[:, 1]
    z = distance / scale
    return np.exp(np.log1p(z * z / freedom) * ((freedom + 1) * -0.5)) * (peak / scale)


def _log_odds_density(distance: Floats, _: Floats, parameters: Floats) -> Floats:
    """Return beta densities relative to their mode, where the two large terms of the logarithm cancel exactly."""
    sign, fewer, both, share, peak = parameters.transpose(1, 0, 2)
    odds = distance * sign
    return np.asarray(np.exp(fewer * odds - both * np.log1p(share * np.expm1(odds))) * peak)


def _stirling_rest(x: Floats) -> Floats:
    """Return log Gamma(x) less Stirling's (x - 1/2) log x - x + log(2 pi) / 2, for positive x (Loader 2000)."""
    inverse = 1 / np.maximum(x, _ASYMPTOTIC)
    squared = inverse * inverse
    series = np.full_like(x, _STIRLING[-1])
    for coefficient in _STIRLING[-2::-1]:
        series = series * squared + coefficient
    series *= inverse
    small = x < _ASYMPTOTIC
    for place in np.flatnonzero(small):
        few = float(x.flat[place])
        series.flat[place] = math.lgamma(few) - ((few - 0.5) * math.log(few) - few + math.log(2 * math.pi) / 2)
    return series


_ASYMPTOTIC = 10.0
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def _best(arms: _Arms) -> Floats:
    """Return the probability of each arm to be the largest.

    All is integrated from where the highest support begins, since some arm is certainly above that point; an arm whose
    support ends below it has no chance. Places are distances from that arm's centre, so that no scale is too small for
    its centre.
    """
    lowest = arms.centre - arms.below
    if not np.isfinite(lowest).all() or (arms.scale < 0).any():
        raise ValueError("every posterior must be finite, and no scale negative")
    first = int(np.argmax(lowest))
    start = -float(arms.below[first])
    offset = arms.centre[first] - arms.centre
    end = arms.above - offset
    points = (arms.scale == 0) & (end >= start)
    chances = np.flatnonzero((arms.scale > 0) & (end > start))
    best = np.zeros(len(offset))
    none_above = 1.0
    if len(chances) == 1 and not points.any():
        best[chances] = 1.0
    elif len(chances) > 0:
        edges = _edges(start, offset[chances].tolist(), arms.scale[chances].tolist(), end[chances].tolist())
        best[chances], none_above = _integrate(edges, chances, offset, arms)
    if points.any():
        best[points] = none_above / np.count_nonzero(points)
    return best


def _edges(start: float, offset: Sequence[float], scale: Sequence[float], end: Sequence[float]) -> Floats:
    """Return the ends of pieces, on each of which every arm's density is nearly a polynomial."""
    x, last = start, max(end)
    edges = [x]
    arms = [(shift, _STEP * s, _CORE * s, until) for shift, s, until in zip(offset, scale, end, strict=True)]
    while x < last:
        longest = math.inf
        # Comparisons take half the time of min and max, and this loop much of the time of a request.
        for shift, least, core, until in arms:
            if x < until:
                allowed = _GROWTH * (abs(x + shift) - core)
                if allowed < least:
                    allowed = least
                if allowed < longest:
                    longest = allowed
        x = max(x + longest, math.nextafter(x, last))
        edges.append(min(x, last))
    return np.array(edges)


def _integrate(edges: Floats, chances: NDArray[np.intp], offset: Floats, arms: _Arms) -> tuple[Floats, float]:
    """Return the arms' probabilities to be the largest [K], and the one that all are below the first edge."""
    half = (edges[1:] - edges[:-1]) / 2
    x = ((edges[:-1] + half)[:, np.newaxis] + half[:, np.newaxis] * _NODES).reshape(-1)
    with np.errstate(over="ignore"):
        density = arms.density(
            x + offset[chances, np.newaxis], arms.scale[chances, np.newaxis], arms.parameters[chances, :, np.newaxis]
        )
    pieces = density.reshape(len(chances), len(half), -1) * half[:, np.newaxis]
    mass = pieces @ _WEIGHTS
    above = np.cumsum(mass[:, ::-1], axis=1)[:, ::-1]
    distribution = np.maximum(1.0 - (pieces @ _UPPER + (above - mass)[:, :, np.newaxis]), _LEAST)
    together = distribution.prod(axis=0) * _WEIGHTS
    return (pieces / distribution * together).sum(axis=(1, 2)), float(np.maximum(1.0 - above[:, 0], 0.0).prod())
