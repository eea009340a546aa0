"""How good probabilities are: proper scores with bootstrap intervals, and reliability."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidSample
from models.manifest import Metric

Floats = NDArray[np.float64]
CLIP = 1e-15


def scores(labels: NDArray[Any], probabilities: Floats) -> dict[str, float]:
    """Log loss (natural), Brier score and area under the ROC curve of probabilities for labels 0 and 1."""
    rows = _Rows(labels, probabilities)
    return rows.scores(np.ones(len(probabilities)))


def evaluate(
    labels: NDArray[Any],
    probabilities: Floats,
    *,
    groups: NDArray[Any] | None = None,
    resamples: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Metric]:
    """The scores with percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13).

    Rows that share a cause, such as the flights of one day, are resampled together when `groups` names it; taken one
    by one they would make the intervals too narrow. Raises InvalidSample.
    """
    rows = _Rows(labels, probabilities)
    drawn = [rows.scores(draw) for draw in _draws(len(probabilities), groups, resamples, seed)]
    return _metrics(rows.scores(np.ones(len(probabilities))), drawn, confidence)


def differences(
    labels: NDArray[Any],
    probabilities: Floats,
    baseline: Floats,
    *,
    groups: NDArray[Any] | None = None,
    resamples: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Metric]:
    """Each score of the probabilities less that of the baseline's for the same rows, with intervals as `evaluate` has.

    Both are scored on the same resamples: what makes rows hard for both says nothing about their difference, so that
    its interval is narrower than either score's. Raises InvalidSample.
    """
    ours, theirs = _Rows(labels, probabilities), _Rows(labels, baseline)

    def difference(weights: Floats) -> dict[str, float]:
        reference = theirs.scores(weights)
        return {name: value - reference[name] for name, value in ours.scores(weights).items()}

    drawn = [difference(draw) for draw in _draws(len(probabilities), groups, resamples, seed)]
    return _metrics(difference(np.ones(len(probabilities))), drawn, confidence)


def _draws(rows: int, groups: NDArray[Any] | None, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each row is in each resample; rows of one group are drawn together."""
    group = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    generator, size = np.random.default_rng(seed), int(group.max()) + 1
    for _ in range(resamples):
        yield np.bincount(generator.integers(size, size=size), minlength=size)[group].astype(np.float64)


def _metrics(values: Mapping[str, float], drawn: Sequence[Mapping[str, float]], confidence: float) -> dict[str, Metric]:
    tail = (1 - confidence) / 2
    return {
        name: Metric(value, *_interval([scores[name] for scores in drawn], tail), confidence)
        for name, value in values.items()
    }


class Reliability(NamedTuple):
    """Bins of equally many rows by rising probability, all arrays of shape [bins]."""

    predicted: Floats
    """Mean probability."""
    observed: Floats
    """Share of label 1."""
    low: Floats
    high: Floats
    """Wilson (1927) interval of the share."""
    rows: NDArray[np.int64]


def reliability(
    labels: NDArray[Any], probabilities: Floats, *, bins: int = 10, confidence: float = 0.95
) -> Reliability:
    """What was predicted against what happened; a calibrated model's intervals cover its predictions."""
    from scipy.special import ndtri

    label, probability = _checked(labels, probabilities)
    order = np.array_split(np.argsort(probability, kind="stable"), min(bins, len(label)))
    rows = np.array([len(part) for part in order], dtype=np.int64)
    observed = np.array([label[part].mean() for part in order])
    z = float(ndtri((1 + confidence) / 2))
    centre = (observed + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(observed * (1 - observed) / rows + z**2 / (4 * rows**2))
    predicted = np.array([probability[part].mean() for part in order])
    return Reliability(predicted, observed, centre - half, centre + half, rows)


class _Rows:
    """Everything about the rows that does not change from one resample to the next."""

    def __init__(self, labels: NDArray[Any], probabilities: Floats) -> None:
        self._label, probability = _checked(labels, probabilities)
        if not 0 < self._label.mean() < 1:
            raise InvalidSample("scores need rows of both labels, 0 and 1")
        certain = np.clip(probability, CLIP, 1 - CLIP)
        self._log_loss = -np.log(np.where(self._label == 1, certain, 1 - certain))
        self._brier = (probability - self._label) ** 2
        self._rank = np.unique(probability, return_inverse=True)[1]

    def scores(self, weights: Floats) -> dict[str, float]:
        """The scores of the rows, each counted as often as its weight says."""
        return {
            "log_loss": float(np.average(self._log_loss, weights=weights)),
            "brier": float(np.average(self._brier, weights=weights)),
            "roc_auc": self._roc_auc(weights),
        }

    def _roc_auc(self, weights: Floats) -> float:
        """Probability that a row of label 1 outranks one of label 0, ties counting half (Mann and Whitney 1947)."""
        positive = np.bincount(self._rank, weights * self._label)
        negative = np.bincount(self._rank, weights * (1 - self._label))
        pairs = positive.sum() * negative.sum()
        return float(positive @ (np.cumsum(negative) - negative / 2) / pairs) if pairs else float("nan")


def _checked(labels: NDArray[Any], probabilities: Floats) -> tuple[Floats, Floats]:
    label, probability = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if label.shape != probability.shape or label.ndim != 1 or not label.size:
        raise InvalidSample(f"{label.shape} labels do not fit {probability.shape} probabilities")
    if not np.isin(label, (0, 1)).all():
        raise InvalidSample("labels are 0 and 1 only")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise InvalidSample("probabilities lie between 0 and 1")
    return label, probability


def _interval(values: list[float], tail: float) -> tuple[float, float]:
    low, high = np.nanquantile(values, (tail, 1 - tail))
    return float(low), float(high)
