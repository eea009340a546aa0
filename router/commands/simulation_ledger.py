"""What a rehearsal takes from the ledger: an experiment's document, and what was observed of its arms."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from router.allocation.evidence import fold
from router.documents import AnyMetric, Experiment, Thompson
from router.errors import CannotStart, InvalidDocument
from router.ledger.contributions import ITEMS
from router.ledger.control import ControlTables
from router.ledger.control_writing import ExperimentRecord
from router.ledger.database import HEAD, for_reading, open_database, revision, shown
from router.settings import load
from router.simulation.logged import FIELD, Observed, from_statistics
from router.simulation.values import AnyValues


def stored_experiment(name: str) -> Experiment:
    """Return an experiment's document, or raise UnknownExperiment."""
    with _tables() as tables:
        return tables.experiment(name).document


def logged_values(name: str, metric: AnyMetric, arms: Sequence[str]) -> Mapping[str, AnyValues]:
    """Return what was observed of each arm in an experiment of the ledger, with defaults for what did not come.

    Raises:
        UnknownExperiment: There is no such experiment.
        InvalidDocument: It has no such metric or arm, or too few values.
    """
    with _tables() as tables:
        record = tables.experiment(name)
        measured = _same_metric(record, metric)
        numbers = _numbers(record, arms)
        minutes = tables.minutes(record.id, [measured.name, ITEMS])
    found = fold(
        minutes[measured.name],
        [(row.arm, row.minute, row.span, row.total) for row in minutes[ITEMS]],
        arms=numbers,
        metric=measured,
        allocation=Thompson(metric=measured.name),
        now_ms=time.time_ns() // 1_000_000,
    )
    observed = {arm: Observed(each.n, each.total, each.squares) for arm, each in zip(arms, found, strict=True)}
    return from_statistics(observed, metric, f"experiment {name!r}")


def _same_metric(record: ExperimentRecord, metric: AnyMetric) -> AnyMetric:
    named = {each.name: each for each in record.document.metrics}
    if type(named.get(metric.name)) is not type(metric):
        known = ", ".join(named)
        raise _refused(
            f"experiment {record.document.name!r} has no metric {metric.name!r} of that kind; its metrics: {known}"
        )
    return named[metric.name]


def _numbers(record: ExperimentRecord, arms: Sequence[str]) -> list[int]:
    names = [arm.name for arm in record.document.arms]
    for arm in arms:
        if arm not in names:
            raise _refused(f"experiment {record.document.name!r} has no arm {arm!r}; its arms: {', '.join(names)}")
    return [names.index(arm) for arm in arms]


@contextmanager
def _tables() -> Iterator[ControlTables]:
    """Open the ledger as it is, to read: nothing is made or upgraded."""
    url = make_url(load().database)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise CannotStart(f"there is no ledger at {shown(url)}; name it with TURNOUT_DATABASE")
    engine = open_database(load().database)
    try:
        if (current := revision(engine)) != HEAD:
            raise CannotStart(
                f"the ledger {shown(url)} is at revision {current or 'none'}, but this command reads {HEAD}: "
                "run turnout db upgrade"
            )
        yield ControlTables(for_reading(engine))
    finally:
        engine.dispose()


def _refused(message: str) -> InvalidDocument:
    return InvalidDocument(f"{FIELD}: {message}", field=FIELD)
