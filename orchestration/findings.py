"""What the demo prints of bandits and mixed lists: the tables and notes of their reports, under a title."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console

from analysis.commands import printed
from analysis.report import Report
from analysis.tables import Table, arms, changes, rankings


class Finding(NamedTuple):
    """A title, tables and the sentences below them."""

    title: str
    tables: Sequence[Table]
    notes: Sequence[str]


def show(console: Console, finding: Finding) -> None:
    """Print it."""
    console.print(finding.title, style="bold", markup=False)
    for table in finding.tables:
        console.print(printed(table), "")
    for note in finding.notes:
        console.print(f"- {note}", markup=False)


def bandit(report: Report) -> Finding:
    """Where the traffic of a bandit went, what it found, and what it has cost beside equal shares."""
    epochs = f"{len(report.experiment.epochs)} epochs published"
    return Finding(f"{_place(report)}: {epochs}", [arms(report), changes(report)], report.notes)


def lists(report: Report, metrics: Iterable[str], notes: Sequence[str] = ()) -> Finding:
    """Whose flights did outcomes prefer, in lists that mixed two rankings."""
    return Finding(_place(report), [rankings(report, metrics)], [*notes, *report.notes])


def _place(report: Report) -> str:
    return f"{report.experiment.name} on endpoint {report.experiment.endpoint}"
