"""Publishing the epochs of bandits: any replica may, and the ledger lets one win."""

import logging
import math
import time
from collections.abc import Callable, Iterable

from router.allocation.bandit import Known, bandit_epoch, is_worth_publishing
from router.allocation.evidence import fold
from router.allocation.regressions import fold_regressions
from router.documents import Bandit, Contextual
from router.errors import LedgerUnavailable
from router.ledger.contributions import ITEMS
from router.ledger.control import ControlTables
from router.ledger.control_writing import ExperimentRecord

REASON = "new evidence"

_logger = logging.getLogger(__name__)


class BanditPublisher:
    """Looks at the evidence of every running bandit as often as its document says.

    `publish` blocks on the database, so call it from a thread.
    """

    def __init__(self, tables: ControlTables, clock: Callable[[], int]) -> None:
        self._tables = tables
        self._clock = clock
        self._looked_s: dict[int, float] = {}

    def due(self, records: Iterable[ExperimentRecord]) -> list[ExperimentRecord]:
        """Return the running bandits whose evidence has not been looked at for as long as their documents say."""
        return [record for record in records if self._is_due(record)]

    def publish(self, records: Iterable[ExperimentRecord]) -> bool:
        """Publish the epochs that differ; return whether there is a new one, from here or from another replica."""
        published = [self._published(record) for record in records]
        return any(published)

    def _is_due(self, record: ExperimentRecord) -> bool:
        bandit, now_s = record.document.allocation, time.monotonic()
        if record.state != "running" or not isinstance(bandit, Bandit):
            self._looked_s.pop(record.id, None)
            return False
        if now_s - self._looked_s.get(record.id, -math.inf) < bandit.update_every_s:
            return False
        self._looked_s[record.id] = now_s
        return True

    def _published(self, record: ExperimentRecord) -> bool:
        try:
            return self._publish(record)
        except LedgerUnavailable:
            raise
        except Exception:
            # Whatever is wrong with one bandit, the others go on; it keeps its shares.
            _logger.exception("cannot publish an epoch of experiment %r", record.document.name)
            return False

    def _publish(self, record: ExperimentRecord) -> bool:
        if record.epoch is None:
            raise AssertionError(f"experiment {record.document.name!r} runs but has no epoch")
        now_ms = self._clock()
        following = bandit_epoch(record.document, record.epoch, what_is_known(self._tables, record, now_ms), now_ms)
        if not is_worth_publishing(record.epoch, following):
            return False
        self._tables.publish(record, following, REASON, now_ms)
        return True


def what_is_known(tables: ControlTables, record: ExperimentRecord, now_ms: int) -> Known:
    """Return what the ledger knows of the live arms of a bandit."""
    document, bandit = record.document, record.document.allocation
    if not isinstance(bandit, Bandit):
        raise AssertionError(f"{document.name!r} is no bandit")
    metric, arms = document.metric(bandit.metric), document.live
    minutes = tables.minutes(record.id, [metric.name, ITEMS])
    items = [(row.arm, row.minute, row.span, row.total) for row in minutes[ITEMS]]
    evidence = fold(minutes[metric.name], items, arms=arms, metric=metric, allocation=bandit, now_ms=now_ms)
    if not isinstance(bandit, Contextual):
        return Known(evidence)
    answered, decided = (tables.regressions(record.id, name) for name in (metric.name, ITEMS))
    return Known(
        evidence, fold_regressions(answered, decided, arms=arms, metric=metric, allocation=bandit, now_ms=now_ms)
    )
