"""What a process tells Prometheus about itself. Every process, also each of `--workers`, speaks for itself alone."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.ledger.failover import LedgerState

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
        self._commit_seconds = self._histogram(
            "turnout_ledger_commit_seconds", "How long a batch took to become durable.", _COMMIT_SECONDS
        )
        self._batch_rows = self._histogram(
            "turnout_ledger_batch_rows", "How many rows became durable together.", _BATCH_ROWS
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

    def _decisions(self) -> CounterMetricFamily:
        labels = ("endpoint", "experiment", "arm")
        family = CounterMetricFamily("turnout_decisions", "Predict requests answered.", labels=labels)
        for (endpoint, experiment, arm), count in sorted(self._metrics.decisions.items(), key=str):
            family.add_metric((endpoint, experiment or "", arm or ""), count)
        return family


def _counted(name: str, documentation: str, label: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=(label,))
    for value, count in sorted(counts.items()):
        family.add_metric((value,), count)
    return family
