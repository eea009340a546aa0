"""Additive statistics of values and the contexts of their decisions, for contextual bandits."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from router.ledger import schema
from router.ledger.statements import insert_into
from router.ledger.statistics import Statistic

Sums = NDArray[np.float64]
"""The number of values, the sum of y * y, the sums of y * x [d], and those of x * x' below and on the diagonal, row by
row [d * (d + 1) / 2]."""

_read = msgspec.json.Decoder(list[float]).decode


class RegressionMinute(NamedTuple):
    """Sums over values of decisions that an arm made from `minute` on, `span` minutes long."""

    arm: int
    minute: int
    span: int
    sums: Sums


def sums_of(row: Sums, n: float, total: float, squares: float) -> Sums:
    """Return what `n` values with this sum and sum of squares add to the sums, all with the context row x [d]."""
    products = np.outer(row, row)[np.tril_indices(len(row))]
    return np.concatenate([[n, squares], total * row, n * products])


def add_regressions(connection: Connection, changes: Mapping[Statistic, Sums], span: int = 1) -> None:
    """Add to the sums; the caller holds the lock of the outcomes, since they are read before they are written."""
    changes = {key: sums for key, sums in changes.items() if sums.any()}
    if not changes:
        return
    known = _stored(connection, changes, span)
    rows = []
    for key, sums in sorted(changes.items(), key=lambda item: item[0]):
        added = sums + known[key] if key in known else sums
        rows.append({**key._asdict(), "span": span, "count": round(added[0]), "sums": _text(added)})
    statement = insert_into(connection, schema.regressions)
    replaced = {name: statement.excluded[name] for name in ("count", "sums")}
    keys = list(schema.regressions.primary_key)
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced), rows)


def read_regressions(connection: Connection, experiment_id: int, metric: str) -> list[RegressionMinute]:
    """Return the sums of a metric of an experiment."""
    table = schema.regressions
    columns = (table.c.arm, table.c.minute, table.c.span, table.c.count, table.c.sums)
    query = select(*columns).where(table.c.experiment_id == experiment_id, table.c.metric == metric)
    return [
        RegressionMinute(arm, minute, span, read_sums(count, sums))
        for arm, minute, span, count, sums in connection.execute(query)
    ]


def read_sums(count: int, text: str) -> Sums:
    """Return the sums that a row holds."""
    return np.array([count, *_read(text)])


def _text(sums: Sums) -> str:
    return msgspec.json.encode(sums[1:].tolist()).decode()


def _stored(connection: Connection, keys: Collection[Statistic], span: int) -> dict[Statistic, Sums]:
    table = schema.regressions
    columns = [table.c[name] for name in Statistic._fields]
    found: dict[Statistic, Sums] = {}
    for experiment_id, minutes in _minutes(keys).items():
        query = select(*columns, table.c.count, table.c.sums).where(
            table.c.experiment_id == experiment_id, table.c.minute.in_(sorted(minutes)), table.c.span == span
        )
        for *key, count, sums in connection.execute(query):
            found[Statistic(*key)] = read_sums(count, sums)
    return found


def _minutes(keys: Iterable[Statistic]) -> dict[int, set[int]]:
    minutes: dict[int, set[int]] = {}
    for key in keys:
        minutes.setdefault(key.experiment_id, set()).add(key.minute)
    return minutes
