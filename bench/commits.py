"""How many commits a router made, how many rows they had and how long they took, by its own metrics."""

from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.harness import Server

_BATCHES, _SECONDS = "turnout_ledger_batch_rows", "turnout_ledger_commit_seconds"


class Commits(NamedTuple):
    """Commits, rows and seconds since a process began; a difference of two readings is what was committed between."""

    commits: float
    rows: float
    seconds: float

    def since(self, before: "Commits") -> "Commits":
        """Return what was committed after an earlier reading."""
        return Commits(self.commits - before.commits, self.rows - before.rows, self.seconds - before.seconds)

    @property
    def rows_per_commit(self) -> float:
        """The mean, 0 without any commit."""
        return self.rows / self.commits if self.commits else 0.0


def commits_of(server: Server) -> Commits:
    """Read the metrics of a router; of several processes one answers, for itself."""
    text = httpx.get(server.ready.replace("/health/ready", "/metrics"), timeout=30).text
    families = text_string_to_metric_families(text)
    samples = {sample.name: sample.value for family in families for sample in family.samples}
    return Commits(samples[f"{_BATCHES}_count"], samples[f"{_BATCHES}_sum"], samples[f"{_SECONDS}_sum"])
