"""Whether the evidence that rollouts go by is what decisions and outcomes add up to, all minutes together."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from analysis.statistics.unit_groups import GROUPS, SCALARS, SIZE, Floats, Sums, group_of, sums_of
from router.decision_id import DecisionId
from router.ledger.contributions import ITEMS, Moments, statistics_of
from router.ledger.evidence import (
    ANY_MINUTE,
    BEFORE,
    FAILED,
    SLOW,
    Whose,
    has_default,
    longest_window_s,
    read_evidence_sums,
)
from router.ledger.statistics import MS_PER_MINUTE
from router.ledger.weights import shares_of, weight_of
from router.verification.epochs import Epochs
from router.verification.experiments import Known
from router.verification.findings import Findings
from router.verification.ids import Said
from router.verification.reading import BYTES, INTEGER, TEXT, Kinds, of_experiment, stream
from router.verification.statistics import TOLERANCE

_AT_ONCE = 8192
_REMEMBERED = 1 << 16
_KINDS: Kinds = {"experiment_id": INTEGER, "arm": INTEGER, "metric": TEXT, "minute": INTEGER, "sums": BYTES}


class Counts(NamedTuple):
    """A chunk of drawn decisions of one experiment, column by column."""

    units: Sequence[str]
    items: Sequence[int]
    failed: Sequence[bool]
    slow: Sequence[bool]


class _Row(NamedTuple):
    """What an item adds, and how much was ever added or taken away on its behalf."""

    group: int
    weight: float
    n: float
    total: float
    squares: float
    statements: float
    scale: float
    squared_scale: float


class _Sums:
    """What is added up, and how large the numbers were on the way."""

    __slots__ = ("scale", "sums")

    def __init__(self) -> None:
        self.sums, self.scale = Sums(), Sums()

    def add(self, sums: Sums, scale: Sums) -> None:
        self.sums, self.scale = self.sums + sums, self.scale + scale


class Evidence:
    """Adds up decisions and outcomes again, in any order, and compares at the end: these sums are few."""

    def __init__(self, experiments: Mapping[int, Known], epochs: Epochs) -> None:
        self._experiments = experiments
        self._epochs = epochs
        self._by_minute = {key: _counted_by_minute(known) for key, known in experiments.items()}
        self._weights: dict[tuple[int, int, int, int], float | None] = {}
        self._waiting: dict[Whose, list[_Row]] = defaultdict(list)
        self._number_waiting = 0
        self._rebuilt: dict[Whose, _Sums] = defaultdict(_Sums)
        self._newest: dict[int, int] = {}

    def decided(self, known: Known, said: Said, counts: Counts) -> None:
        """Add decisions that the experiment drew, and whether their arms failed or were slow."""
        if not len(said.arm):
            return
        minute = int(said.decided_ms.max()) // MS_PER_MINUTE
        self._newest[known.id] = max(minute, self._newest.get(known.id, minute))
        weights = self._weigh_all(known.id, said)
        groups = np.fromiter(map(group_of, counts.units), np.intp, len(counts.units))
        columns = [(ITEMS, counts.items), (FAILED, counts.failed), (SLOW, counts.slow)]
        values = {metric: np.asarray(column, np.float64) for metric, column in columns}
        for arm in np.unique(said.arm).tolist():
            counted = (said.arm == arm) & (weights > 0)
            for metric, each in values.items():
                if len(where := np.flatnonzero(counted & (each > 0))):
                    v = each[where]
                    sums = sums_of(groups[where], weights[where], np.ones(len(v)), v, v * v)  # type: ignore[arg-type]
                    self._rebuilt[Whose(known.id, arm, metric)].add(sums, sums)

    def weigh(self, said: DecisionId) -> float | None:
        """Return what a decision counts, None where it says nothing of how arms compare."""
        return self._weigh(said.experiment_id, said.epoch, said.arm, said.slots)

    def observed(self, whose: Whose, unit: str, weight: float, moments: Moments, scale: float, statements: int) -> None:
        """Add what an item contributes; `scale` is how much `statements` ever added or took away on its behalf."""
        row = _Row(group_of(unit), weight, *moments, statements, scale, scale * scale)
        self._waiting[whose].append(row)
        self._number_waiting += 1
        if self._number_waiting >= _AT_ONCE:
            self._add_waiting()

    def complete(
        self, connection: Connection, findings: Findings, forgotten: Collection[int], only: int | None
    ) -> None:
        """Compare with what is stored; of `forgotten` experiments the ledger has no longer all decisions."""
        self._add_waiting()
        statement = f"select {', '.join(_KINDS)} from evidence{of_experiment(only, 'evidence')}"  # noqa: S608
        chunks = findings.sound("evidence", stream(connection, statement), _KINDS, lambda row: str(row[:4]))
        stored: dict[Whose, Sums] = defaultdict(Sums)
        rows: dict[Whose, int] = defaultdict(int)
        for *key, minute, content in chain.from_iterable(chunks):
            whose = Whose(*key)
            if len(content) != Sums().vector.nbytes:
                findings.fail("evidence", _subject(whose), "sums", f"{SIZE} numbers", f"{len(content)} bytes")
                continue
            sums = read_evidence_sums(content)
            rows[whose] += 1
            stored[whose] = stored[whose] + sums
            if sums.vector.any() and whose.experiment_id not in forgotten:
                self._check_minute(findings, whose, minute)
        partial = {*forgotten, *(whose.experiment_id for whose in rows if whose.metric == BEFORE)}
        for whose in sorted({*stored, *self._rebuilt}):
            if whose.experiment_id in partial:
                findings.partial += rows[whose]
            else:
                _compare(findings, whose, stored[whose].vector, self._rebuilt[whose])

    def _check_minute(self, findings: Findings, whose: Whose, minute: int) -> None:
        """Check that it counts from when on it may: a verdict leaves out the minutes whose windows are open."""
        newest = self._newest.get(whose.experiment_id, ANY_MINUTE)
        latest = newest if whose.metric in self._by_minute.get(whose.experiment_id, ()) else ANY_MINUTE
        if not ANY_MINUTE <= minute <= latest:
            expected = f"0 to {latest}, when its last decision was made" if latest else "0, since it counts at once"
            findings.fail("evidence", _subject(whose), "minute", expected, minute)

    def _weigh_all(self, experiment_id: int, said: Said) -> npt.NDArray[np.float64]:
        codes = (said.epoch << 24) | (said.arm << 16) | said.slots
        _, first, places = np.unique(codes, return_index=True, return_inverse=True)
        drawn = zip(*(column[first].tolist() for column in (said.epoch, said.arm, said.slots)), strict=True)
        found = [self._weigh(experiment_id, *each) or 0.0 for each in drawn]
        return np.array(found)[places]

    def _weigh(self, experiment_id: int, number: int, arm: int, slots: int) -> float | None:
        key = (experiment_id, number, arm, slots)
        if key not in self._weights:
            if len(self._weights) >= _REMEMBERED:
                self._weights.clear()
            epoch = self._epochs.find(experiment_id, number)
            shares = None if epoch is None else shares_of(dict(enumerate(epoch.counts.tolist())))
            self._weights[key] = None if shares is None else weight_of(shares, arm, slots)
        return self._weights[key]

    def _add_waiting(self) -> None:
        for whose, rows in self._waiting.items():
            groups, weights, n, total, squares, *ever = zip(*rows, strict=True)
            added, scale = sums_of(groups, weights, n, total, squares), sums_of(groups, weights, *ever)
            self._rebuilt[whose].add(added, scale)
        self._waiting.clear()
        self._number_waiting = 0


def _counted_by_minute(known: Known) -> frozenset[str]:
    """Return the statistics whose rows belong to a minute until windows have closed."""
    if not longest_window_s(known.document):
        return frozenset()
    with_default = (statistics_of(metric) for metric in known.document.metrics if has_default(metric))
    return frozenset({ITEMS, *chain.from_iterable(with_default)})


def _compare(findings: Findings, whose: Whose, there: Floats, rebuilt: _Sums) -> None:
    expected, scale = rebuilt.sums.vector, np.abs(rebuilt.scale.vector)
    # What was corrected leaves a residue of rounding, but in a count. Nothing is near to what is no number.
    near = np.abs(there - expected) <= TOLERANCE * scale
    near[0] = there[0] == expected[0]
    if not near.all():
        place = int(np.argmin(near))
        findings.fail("evidence", _subject(whose), _name(place), f"{expected[place]:.12g}", f"{there[place]:.12g}")


def _name(place: int) -> str:
    if place < len(SCALARS):
        return SCALARS[place]
    of_values, group = divmod(place - len(SCALARS), GROUPS)
    return f"{'weighted' if of_values else 'weight'} of group {group}"


def _subject(whose: Whose) -> str:
    return f"of experiment {whose.experiment_id} arm {whose.arm} metric {whose.metric}"
