"""The whole ledger, re-derived from what it says itself and the signing secrets."""

import time
from collections.abc import Callable

from sqlalchemy import Engine

from router.decision_id import Signer
from router.errors import UnknownExperiment
from router.verification.assignments import check_assignments
from router.verification.decisions import Decisions
from router.verification.epochs import check_epochs
from router.verification.experiments import Known, read_experiments
from router.verification.findings import Failure, Findings, Summary
from router.verification.outcomes import Outcomes
from router.verification.reading import count_rows, snapshot
from router.verification.regressions import Regressions

LONG_TABLES = ("assignments", "decisions", "outcomes")
"""The tables with most of the rows."""


def verify(
    engine: Engine,
    signer: Signer,
    *,
    experiment: str | None = None,
    report: Callable[[Failure], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Summary:
    """Check every row of the ledger, or those of one experiment, as they are at one moment; writes nothing.

    `report` is told of each failure as it is found, `progress` of every chunk of rows.

    Raises:
        UnknownExperiment: There is no experiment of that name.
        LedgerUnavailable: The database does not answer.
    """
    start, findings = time.perf_counter(), Findings(report, progress)
    with snapshot(engine) as connection:
        experiments = read_experiments(connection, findings)
        only = _key(experiments, experiment)
        check_epochs(connection, experiments, findings, only)
        check_assignments(connection, experiments, findings, only)
        regressions = Regressions(experiments)
        decisions = Decisions(connection, signer, experiments, findings, regressions)
        decisions.check(only)
        evidence = decisions.evidence
        Outcomes(connection, signer, experiments, findings, decisions.decided, regressions, evidence).check(only)
    return findings.summary(time.perf_counter() - start)


def rows_to_check(engine: Engine) -> int:
    """Return about how many rows a verification of everything will read."""
    with snapshot(engine) as connection:
        return count_rows(connection, LONG_TABLES)


def _key(experiments: dict[int, Known], name: str | None) -> int | None:
    if name is None:
        return None
    for known in experiments.values():
        if known.document.name == name:
            return known.id
    raise UnknownExperiment(name, [known.document.name for known in experiments.values()])
