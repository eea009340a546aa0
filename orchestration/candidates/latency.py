"""How long the serving runtime takes for one row."""

import time
from typing import NamedTuple

import numpy as np

from models.runtime import Model
from models.signature import Batch

_ROWS = 300
_ROUNDS = 3


class Latency(NamedTuple):
    """Milliseconds per single-row prediction, over the rows that were asked."""

    median_ms: float
    p99_ms: float
    rows: int


def measure(model: Model, batch: Batch) -> Latency:
    """Ask rows one at a time, evenly spread over the batch.

    The fastest of three rounds counts for each row: what other processes take from this one is not the model's.
    """
    chosen = np.unique(np.linspace(0, len(batch.numbers) - 1, _ROWS).astype(np.intp))
    rows = [batch.take(np.array([row])) for row in chosen]
    seconds = np.min([[_seconds(model, row) for row in rows] for _ in range(_ROUNDS)], axis=0)
    median, p99 = 1000 * np.quantile(seconds, (0.5, 0.99))
    return Latency(float(median), float(p99), len(rows))


def _seconds(model: Model, row: Batch) -> float:
    started = time.perf_counter()
    model.predict(row)
    return time.perf_counter() - started
