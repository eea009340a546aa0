"""Evidence of a whole family of tests: e-values that may be combined, and p-values that must be corrected.

An e-value is at least 0 and has a mean of at most 1 under the null hypothesis, so that 20 is as rare as p = 0.05.
It stays one under averaging whatever depends on what, and under multiplication of independent ones.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

# Nearer to 1 the calibrator's closed form loses all digits, and its series needs three terms.
_NEAR_ONE = 1e-3


def average(e_values: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the e-value of the hypothesis that all nulls are true, however they depend on each other.

    Takes e-values [K] and weights [K] that were fixed before the data, by default equal. Vovk and Wang (2021), who show
    that nothing better is symmetric. ValueError for what is no e-value or no weight.
    """
    values = _checked(e_values)
    shares = np.ones(values.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
        raise ValueError("weights must be finite, none negative and not all 0")
    used = shares > 0
    return float(values[used] @ shares[used] / shares.sum())


def product(e_values: ArrayLike) -> float:
    """Return the e-value of all nulls together from independent ones, or such of which each is valid given the earlier.

    Takes e-values [K]. A single 0 refutes all others' evidence for good, even an infinite one. Vovk and Wang (2021).
    """
    values = _checked(e_values)
    return 0.0 if (values == 0).any() else float(np.exp(np.log(values).sum()))


def from_p_values(p_values: ArrayLike, kappa: float | None = None) -> Floats:
    """Return e-values for p-values, both [K]; infinite for 0.

    With kappa in (0, 1) kappa * p^(kappa - 1), else the mean of these over all kappa: (1 - p + p ln p) / (p (ln p)^2)
    (Vovk and Wang 2021). Calibration costs evidence: 0.01 gives 8 with the best kappa, and 4.5 with their mean.
    """
    p = _checked_p(p_values)
    if kappa is not None:
        if not 0 < kappa < 1:
            raise ValueError(f"kappa must be between 0 and 1; it is {kappa}")
        with np.errstate(divide="ignore"):
            return np.asarray(kappa * p ** (kappa - 1))
    minus_log = -np.log(np.clip(p, np.finfo(np.float64).tiny, 1 - _NEAR_ONE))
    closed = (special.expm1(minus_log) - minus_log) / minus_log**2
    small = -np.log(np.maximum(p, 1 - _NEAR_ONE))
    series = 0.5 + small / 6 + small**2 / 24
    return np.where(np.isnan(p), np.nan, np.where(p == 0, np.inf, np.where(p > 1 - _NEAR_ONE, series, closed)))


def to_p_values(e_values: ArrayLike) -> Floats:
    """Return min(1, 1 / e), the only admissible p-values of e-values [K] (Vovk and Wang 2021)."""
    values = _checked(e_values)
    return np.asarray(1.0 / np.maximum(values, 1.0))


def e_benjamini_hochberg(e_values: ArrayLike) -> Floats:
    """Return the smallest false-discovery rate at which each null is rejected [K], from e-values [K].

    Wang and Ramdas (2022): the k largest are rejected if all of them are at least K / (k * rate). Unlike its
    counterpart for p-values, it holds under any dependence.
    """
    return benjamini_hochberg(to_p_values(e_values))


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Return the smallest false-discovery rate at which each null is rejected [K], from p-values [K].

    Benjamini and Hochberg (1995); for independent tests, or positively dependent ones. What is nan was not tested: it
    stays nan and does not count. The same holds for the functions below.
    """
    p = _checked_p(p_values)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    tested = order.size
    steps = p[order] * tested / np.arange(1, tested + 1)
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return adjusted


def holm(p_values: ArrayLike) -> Floats:
    """Return the smallest probability of any false rejection at which each null is rejected [K], from p-values [K].

    Holm (1979): as valid as Bonferroni under any dependence, and never weaker.
    """
    p = _checked_p(p_values)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    steps = p[order] * np.arange(order.size, 0, -1)
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def bonferroni(p_values: ArrayLike) -> Floats:
    """Return p-values [K] times the number of tests, at most 1; Dunn (1961)."""
    p = _checked_p(p_values)
    return np.asarray(np.minimum(p * np.count_nonzero(~np.isnan(p)), 1.0))


def _checked(e_values: ArrayLike) -> Floats:
    values = np.asarray(e_values, dtype=np.float64).reshape(-1)
    if values.size == 0 or not (values >= 0).all():
        raise ValueError("e-values must be at least 0, and there must be one")
    return values


def _checked_p(p_values: ArrayLike) -> Floats:
    p = np.asarray(p_values, dtype=np.float64).reshape(-1)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p-values must be between 0 and 1, or nan where nothing was tested")
    return p
