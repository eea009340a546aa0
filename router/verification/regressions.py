"""Whether the sums that contextual bandits learn from are what decisions and outcomes add up to."""

import math
from collections.abc import Mapping

import msgspec
import numpy as np
from sqlalchemy import Connection, select

from router.allocation.contextual import encode
from router.ledger import schema
from router.ledger.contributions import ITEMS, Fold, Moments, counted_features
from router.ledger.decided import read_context
from router.ledger.regressions import Sums, read_sums, sums_of
from router.verification.experiments import Known
from router.verification.findings import Findings
from router.verification.statistics import TOLERANCE, Spans, Statistic


class Regressions:
    """Adds up contexts and values again, in any order, and compares at the end: these sums are few."""

    def __init__(self, experiments: Mapping[int, Known]) -> None:
        self._counted = {key: counted_features(known.document) for key, known in experiments.items()}
        self._rebuilt: dict[Statistic, tuple[Sums, Sums]] = {}
        """The sums, and how large the numbers were on the way."""

    def count(self, experiment_id: int) -> bool:
        """Return whether decisions of the experiment count, though nothing came of them."""
        return bool(self._counted.get(experiment_id))

    def decided(self, statistic: Statistic, items: int, context: str | None) -> None:
        """Add a decision, if those that nothing came of count too."""
        if features := self._counted.get(statistic.experiment_id):
            added = sums_of(encode(features, _read(context)), items, 0.0, 0.0)
            self._add(statistic._replace(metric=ITEMS), added, np.abs(added))

    def observed(self, statistic: Statistic, fold: Fold, moments: Moments, scale: float, context: str | None) -> None:
        """Add what an item contributes; `scale` is how much was ever added or taken away on its behalf."""
        if fold.features:
            row = encode(fold.features, _read(context))
            ever = sums_of(np.abs(row), max(moments.n, 1), scale, scale * scale)
            self._add(statistic, sums_of(row, *moments), ever)

    def complete(self, connection: Connection, findings: Findings, first_minute: float, only: int | None) -> None:
        """Compare with what is stored."""
        spans = Spans(connection, schema.regressions)
        first = first_minute if math.isinf(first_minute) else spans.start(int(first_minute))
        stored: dict[Statistic, Sums] = {}
        table = schema.regressions
        columns = [table.c[name] for name in ("minute", "experiment_id", "arm", "metric", "count", "sums")]
        query = select(*columns) if only is None else select(*columns).where(table.c.experiment_id == only)
        for minute, *key, count, text in connection.execute(query):
            statistic = Statistic(spans.start(minute), *key)
            findings.count("regressions", 1)
            try:
                sums = read_sums(count, text)
            except (msgspec.DecodeError, TypeError) as error:
                findings.fail("regressions", str(statistic), "sums", "a list of numbers", error)
                continue
            if statistic.minute < first:
                findings.older += 1
            else:
                stored[statistic] = stored[statistic] + sums if _fits(stored.get(statistic), sums) else sums
        rebuilt: dict[Statistic, tuple[Sums, Sums]] = {}
        for statistic, (sums, scale) in self._rebuilt.items():
            key_ = statistic._replace(minute=spans.start(statistic.minute))
            before = rebuilt.get(key_)
            rebuilt[key_] = (sums, scale) if before is None else (before[0] + sums, before[1] + scale)
        for statistic in sorted({*stored, *rebuilt}):
            _compare(findings, statistic, stored.get(statistic), rebuilt.get(statistic))

    def _add(self, statistic: Statistic, sums: Sums, scale: Sums) -> None:
        before = self._rebuilt.get(statistic)
        self._rebuilt[statistic] = (sums, scale) if before is None else (before[0] + sums, before[1] + scale)


def _compare(findings: Findings, statistic: Statistic, stored: Sums | None, rebuilt: tuple[Sums, Sums] | None) -> None:
    sums, scale = (np.zeros(1), np.zeros(1)) if rebuilt is None else rebuilt
    there = np.zeros(len(sums)) if stored is None else stored
    if rebuilt is None and not there.any():
        return
    # What was corrected leaves a residue of rounding.
    if len(there) != len(sums) or not np.all(np.abs(there - sums) <= TOLERANCE * scale):
        findings.fail("regressions", str(statistic), "sums", _shown(sums), _shown(there))


def _fits(known: Sums | None, sums: Sums) -> bool:
    return known is not None and len(known) == len(sums)


def _read(context: str | None) -> Mapping[str, object]:
    try:
        return {} if context is None else read_context(context)
    except msgspec.DecodeError:
        # A failure of the decision, which is found with it.
        return {}


def _shown(sums: Sums) -> str:
    total = math.fsum(sums.tolist())
    return f"{len(sums)} sums that begin with {', '.join(f'{each:.6g}' for each in sums[:4])} and add up to {total:.9g}"
