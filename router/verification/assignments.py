"""Whether the stored first assignments of sticky experiments are what their epochs draw."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from sqlalchemy import Connection, text

from router.decision_id import FORCED
from router.verification.draws import Draws, mismatches
from router.verification.epochs import Epochs
from router.verification.experiments import Known
from router.verification.findings import Findings
from router.verification.reading import INTEGER, TEXT, Kinds, Row, of_experiment, stream

_KINDS: Kinds = {"experiment_id": INTEGER, "unit": TEXT, "epoch": INTEGER, "arm": INTEGER, "slots": INTEGER}


def check_assignments(
    connection: Connection, experiments: Mapping[int, Known], findings: Findings, only: int | None = None
) -> None:
    """Check every stored assignment, and count the sticky decisions that another one was made for."""
    epochs = Epochs(connection)
    chunks = stream(connection, f"select {', '.join(_KINDS)} from assignments{of_experiment(only, 'assignments')}")  # noqa: S608
    for rows in findings.sound("assignments", chunks, _KINDS, _subject):
        for key, group in groupby(sorted(rows, key=itemgetter(0)), key=itemgetter(0)):
            _check(key, list(group), experiments, epochs, findings)
    sticky = [key for key, known in experiments.items() if known.document.sticky and only in {None, key}]
    findings.unlike_first = sum(_unlike_first(connection, key) for key in sticky)


def _unlike_first(connection: Connection, experiment_id: int) -> int:
    statement = text(
        "select count(*) from decisions left join assignments on assignments.experiment_id = decisions.experiment_id "
        "and assignments.unit = decisions.unit where decisions.experiment_id = :experiment_id "
        "and decisions.epoch <> :forced and (assignments.epoch is null or assignments.epoch <> decisions.epoch)"
    )
    values = {"experiment_id": experiment_id, "forced": FORCED}
    count: int = connection.execute(statement, values).scalar_one()
    return count


def _check(key: int, rows: Sequence[Row], experiments: Mapping[int, Known], epochs: Epochs, findings: Findings) -> None:
    known = experiments.get(key)
    if known is None or not known.document.sticky:
        for row in rows:
            findings.fail("assignments", _subject(row), "experiment_id", "a sticky experiment of this ledger", key)
        return
    _, units, *drawn = zip(*rows, strict=True)
    numbers, arms, slots = map(np.array, drawn)
    draws = Draws(units, units, numbers, arms, slots)
    for place, what, expected, found in mismatches(known, epochs, draws):
        findings.fail("assignments", _subject(rows[place]), what, expected, found)


def _subject(row: Row) -> str:
    return f"of unit {row[1]!r} in experiment {row[0]}"
