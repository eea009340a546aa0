"""What a process tells Prometheus about itself. Every process, also each of `--workers`, speaks for itself alone."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.ledger.failover import LedgerState
from router.serving.breaker import STATES
from router.serving.running import ModelReading
from router.shadowing.counting import ShadowCounts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COMMIT_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_PROPAGATION_SECONDS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class Reading(NamedTuple):
    """What is read off the running service when somebody asks."""

    ledger: LedgerState
    queued_rows: int
    control_age_s: float
    """Since this process last looked for control writes of others."""
    broken_models: int
    models: Sequence[ModelReading] = ()


class Metrics:
    """Counts what happens between two looks; `read` is asked for the rest at each look."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Readings(read, self))
        self.decisions: Counter[tuple[str, str | None, str | None]] = Counter()
        """Predict requests answered, by endpoint, experiment and arm."""
        self.fallbacks: Counter[str] = Counter()
        """Predict requests that the champion answered because the arm could not, by endpoint."""
        self.outcomes: Counter[str] = Counter()
        """Outcomes by what became of them."""
        self.breaker_openings: Counter[str] = Counter()
        """How often a model version's circuit breaker opened."""
        self.rejected_calls: Counter[tuple[str, str]] = Counter()
        """Calls that were not made, by model version and why: breaker, concurrency, or busy with others."""
        self.shadows = ShadowCounts(self._registry)
        """What became of shadow calls."""
        self._commit_seconds = self._histogram(
            "turnout_ledger_commit_seconds", "How long a batch took to become durable.", _COMMIT_SECONDS
        )
        self._batch_rows = self._histogram(
            "turnout_ledger_batch_rows", "How many rows became durable together.", _BATCH_ROWS
        )
        self._gathered_rows = self._histogram(
            "turnout_micro_batch_rows", "How many rows of waiting requests went into one call of a model.", _BATCH_ROWS
        )
        self._propagation = self._histogram(
            "turnout_control_propagation_seconds",
            "From a control write, in whichever process, to this process serving by it.",
            _PROPAGATION_SECONDS,
        )

    def committed(self, seconds: float, rows: int) -> None:
        """Count a batch that became durable."""
        self._commit_seconds.observe(seconds)
        self._batch_rows.observe(rows)

    def gathered(self, rows: int) -> None:
        """Count a call of a model for which requests are gathered."""
        self._gathered_rows.observe(rows)

    def propagated(self, seconds: float) -> None:
        """Count a control write that this process serves by from now on."""
        self._propagation.observe(max(0.0, seconds))

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, documentation, buckets=buckets, registry=self._registry)


class _Readings(Collector):
    def __init__(self, read: Callable[[], Reading], metrics: Metrics) -> None:
        self._read = read
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        for name, documentation, value in (
            ("turnout_ledger_away", "1 while the database is away.", float(reading.ledger.problem is not None)),
            ("turnout_spool_jobs", "Jobs acknowledged from the spool that the ledger lacks.", reading.ledger.spooled),
            ("turnout_ledger_queue_rows", "Rows that wait for their commit.", reading.queued_rows),
            (
                "turnout_control_age_seconds",
                "Since this process last looked for control writes of others.",
                reading.control_age_s,
            ),
            ("turnout_broken_models", "Model versions that could not be loaded.", reading.broken_models),
        ):
            yield GaugeMetricFamily(name, documentation, value)
        yield self._decisions()
        fallbacks = "Answers of the champion for an arm that failed."
        yield _counted("turnout_fallbacks", fallbacks, "endpoint", self._metrics.fallbacks)
        yield _counted("turnout_outcomes", "Outcomes by what became of them.", "status", self._metrics.outcomes)
        openings = "Openings of a model version's circuit breaker."
        yield _counted("turnout_breaker_openings", openings, "model", self._metrics.breaker_openings)
        yield self._rejected_calls()
        yield from _models(reading.models)

    def _decisions(self) -> CounterMetricFamily:
        labels = ("endpoint", "experiment", "arm")
        family = CounterMetricFamily("turnout_decisions", "Predict requests answered.", labels=labels)
        for (endpoint, experiment, arm), count in sorted(self._metrics.decisions.items(), key=str):
            family.add_metric((endpoint, experiment or "", arm or ""), count)
        return family

    def _rejected_calls(self) -> CounterMetricFamily:
        documentation = "Calls of a model version that were not made."
        family = CounterMetricFamily("turnout_rejected_calls", documentation, labels=("model", "reason"))
        for labels, count in sorted(self._metrics.rejected_calls.items()):
            family.add_metric(labels, count)
        return family


def _models(readings: Sequence[ModelReading]) -> Iterator[GaugeMetricFamily]:
    breaker = GaugeMetricFamily("turnout_breaker_state", "0 closed, 1 half-open, 2 open.", labels=("model",))
    calls = GaugeMetricFamily("turnout_model_calls", "Calls of a model version under way.", labels=("model",))
    for reading in readings:
        breaker.add_metric((reading.reference,), STATES.index(reading.breaker))
        calls.add_metric((reading.reference,), reading.calls)
    return iter((breaker, calls))


def _counted(name: str, documentation: str, label: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=(label,))
    for value, count in sorted(counts.items()):
        family.add_metric((value,), count)
    return family
