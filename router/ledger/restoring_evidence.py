"""Adding up anew what a blunder left of evidence, which has one sum for all the minutes of an experiment."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

from sqlalchemy import ColumnElement, Connection, func, select

from analysis.statistics.unit_groups import Sums
from router.decision_id import unpack
from router.ledger import schema
from router.ledger.contributions import ITEMS, Fold, contribution
from router.ledger.counted import Counted, Range, first_minute, read_counted
from router.ledger.decided import credited_arms
from router.ledger.evidence import ANY_MINUTE, Evidence, Key, Whose, add_evidence, read_rows, remove_rows
from router.ledger.restoring import LOSS, Taken
from router.ledger.statistics import MS_PER_MINUTE, OUTCOMES_SHARD, Statistic
from router.ledger.weights import Weights

MOST_VALUES = 100_000
"""Reading more would keep everybody waiting for longer than a database may take to answer."""

PASSED = 0.05
"""How much of such a value an outcome costs that is passed by: one of another name, or experiment."""

_AT_ONCE = 4096

_Lost = dict[Whose, Fold]


def restore_evidence(connection: Connection, taken: Mapping[Statistic, Taken], weights: Weights) -> None:
    """Add up again the evidence that has lost digits; the caller holds the lock of the outcomes.

    It reads every outcome of that name in the experiment. Where these are too many, or a month of them is gone, what
    is left stays: values seem to vary more than they do, so that less is concluded from them.
    """
    lost: dict[tuple[int, str], _Lost] = defaultdict(dict)
    minutes: dict[Whose, set[int]] = {}
    for whose, one in sorted(_largest(taken).items(), key=lambda each: each[0]):
        stored = read_rows(connection, whose)
        left = sum((sums for _, sums in stored), Sums())
        # Not true of what is no number.
        if left.vector.any() and not one.squares <= LOSS * abs(left.squares):
            lost[whose.experiment_id, one.outcome][whose] = one.fold
            minutes[whose] = {minute for minute, _ in stored}
    for (experiment_id, outcome), folds in lost.items():
        wanted = _range(connection, experiment_id, outcome, folds)
        if wanted is not None:
            added = _added(connection, read_counted(connection, wanted), folds, minutes, weights)
            remove_rows(connection, folds)
            add_evidence(connection, added, OUTCOMES_SHARD)


def _largest(taken: Mapping[Statistic, Taken]) -> dict[Whose, Taken]:
    largest: dict[Whose, Taken] = {}
    for statistic, one in taken.items():
        whose = Whose(*statistic[:3])
        if whose not in largest or one.squares > largest[whose].squares:
            largest[whose] = one
    return largest


def _range(connection: Connection, experiment_id: int, outcome: str, folds: Iterable[Whose]) -> Range | None:
    """Return where the values are that these statistics add up; None if they are too many, or not all there."""
    table = schema.statistics
    mine = (table.c.experiment_id == experiment_id, table.c.metric.in_(sorted({whose.metric for whose in folds})))
    ends = (func.min(table.c.minute), func.min(table.c.minute + table.c.span), func.max(table.c.minute + table.c.span))
    (first, oldest, end), known = connection.execute(select(*ends).where(*mine)).one(), first_minute(connection)
    if known is None or first is None or oldest <= known:
        return None
    passed = _values(connection, table.c.metric != ITEMS, table.c.minute >= first, table.c.minute < end)
    few = _values(connection, *mine) + PASSED * passed <= MOST_VALUES
    return Range(experiment_id, outcome, first, end) if few else None


def _values(connection: Connection, *these: ColumnElement[bool]) -> int:
    return int(connection.scalar(select(func.sum(schema.statistics.c.count)).where(*these)) or 0)


def _added(
    connection: Connection,
    items: Iterator[Counted],
    folds: _Lost,
    minutes: Mapping[Whose, Collection[int]],
    weights: Weights,
) -> dict[Key, Sums]:
    """Return what the items add to the evidence, in minutes that are not closed or in that of all others."""
    total: dict[Key, Sums] = defaultdict(Sums)
    while chunk := list(islice(items, _AT_ONCE)):
        evidence = Evidence()
        for each in chunk:
            _add(evidence, each, folds, weights.weigh(connection, *_drawn(each)))
        for key, sums in evidence.sums().items():
            key = key if key.minute in minutes[Whose(*key[:3])] else key._replace(minute=ANY_MINUTE)
            total[key] = total[key] + sums
    return total


def _drawn(each: Counted) -> tuple[int, int, int, float]:
    said = unpack(each.about.decision_id)
    return said.experiment_id, said.epoch, each.arm, each.decided.propensity


def _add(evidence: Evidence, each: Counted, folds: _Lost, weight: float | None) -> None:
    if weight is None:
        return
    about, arm, decided, statements = each
    said, prediction = unpack(about.decision_id), decided.prediction(about.item)
    for number, credit in credited_arms(arm, about.item, decided).items():
        for whose, fold in folds.items():
            if whose.arm == number:
                moments = contribution(fold.metric, statements, prediction, said.decided_ms).scaled(credit)
                statistic = Statistic(*whose, said.decided_ms // MS_PER_MINUTE)
                evidence.observed(statistic, fold.metric, decided.unit, weight, moments)
