"""What became of every call of a shadow, for Prometheus."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.shadowing.messages import Problem
from router.shadowing.pool import Dropped

_LATENCY_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ShadowCounts(Collector):
    """Counts calls by model; what was offered is answered, failed, dropped or still under way."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.offered: Counter[str] = Counter()
        self.results: Counter[tuple[str, str, str]] = Counter()
        """By model, result and reason."""
        self.restarts = 0
        self._latency = Histogram(
            "turnout_shadow_latency_seconds",
            "How long shadows computed for a prediction.",
            ("model",),
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        registry.register(self)

    def answered(self, model: str, seconds: float) -> None:
        """Count a prediction that is in the ledger."""
        self.results[model, "answered", ""] += 1
        self._latency.labels(model).observe(seconds)

    def failed(self, model: str, problem: Problem) -> None:
        """Count a failure that is in the ledger."""
        self.results[model, "failed", problem] += 1

    def dropped(self, model: str, reason: Dropped, number: int = 1) -> None:
        """Count calls that left nothing in the ledger."""
        self.results[model, "dropped", reason] += number

    def restarted(self) -> None:
        """Count a worker that took the place of another."""
        self.restarts += 1

    def collect(self) -> Iterator[Metric]:
        """Yield everything but the latencies."""
        offers = CounterMetricFamily("turnout_shadow_offers", "Decisions that shadows should see.", labels=("model",))
        for model, number in sorted(self.offered.items()):
            offers.add_metric((model,), number)
        yield offers
        labels = ("model", "result", "reason")
        calls = CounterMetricFamily("turnout_shadow_calls", "What became of them.", labels=labels)
        for key, number in sorted(self.results.items()):
            calls.add_metric(key, number)
        yield calls
        waiting = self.offered.total() - self.results.total()
        yield GaugeMetricFamily("turnout_shadow_waiting", "Those of which nothing became yet.", waiting)
        restarts = "Workers that took the place of one that ended or had to be ended."
        yield CounterMetricFamily("turnout_shadow_worker_restarts", restarts, self.restarts)
