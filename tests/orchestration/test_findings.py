"""What the demo prints: numbers that follow from the ledger, and none that the data do not carry."""

import io
from pathlib import Path

from rich.console import Console

from analysis.report import load
from analysis.tables import changes, rankings
from orchestration import findings
from tests.analysis.test_allocations import interleaved
from tests.analysis.test_hindsight import bandit

NAME = "boosting-vs-logistic"


def printed(finding: findings.Finding) -> str:
    console = Console(file=io.StringIO(), width=200)
    findings.show(console, finding)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_bandit_shows_shares_changes_and_regret(tmp_path: Path) -> None:
    report = load(NAME, bandit().write_sqlite(tmp_path / "turnout.db"))
    found, hindsight = findings.bandit(report), report.hindsight()
    assert found.title.endswith("2 epochs published")
    arms, found_changes = found.tables
    assert [(row[0], row[-1]) for row in arms.rows] == [("control", "10.0 %"), ("boosting", "90.0 %")]
    assert found_changes == changes(report)
    text = " ".join(printed(found).split())
    best = hindsight.best
    assert (
        f"{best} has the best weighted mean: by these means, this traffic cost {hindsight.regret:,.1f} more brier"
        in text
    )
    assert f"equal shares would have cost {hindsight.uniform_regret:,.1f} more than {best} alone" in text
    assert "last share" in text


def test_bandit_without_labels_says_so(tmp_path: Path) -> None:
    ledger = bandit()
    ledger.outcomes.clear()
    found = findings.bandit(load(NAME, ledger.write_sqlite(tmp_path / "turnout.db")))
    assert any("cannot be said" in note for note in found.notes)
    assert [row[-1] for row in found.tables[1].rows] == ["", "insufficient"]


def test_lists_are_those_of_the_report(tmp_path: Path) -> None:
    report = load(NAME, interleaved(lists=200).write_sqlite(tmp_path / "turnout.db"))
    found = findings.lists(report, ["click"], ["simulated"])
    assert found.tables == [rankings(report)]
    assert found.notes == ["simulated", *report.notes]
    assert "arm-1" in printed(found)


def test_lists_that_nobody_saw_have_no_interval(tmp_path: Path) -> None:
    found = findings.lists(load(NAME, interleaved(lists=1).write_sqlite(tmp_path / "turnout.db")), ["click"])
    [row] = found.tables[0].rows
    assert "(" not in row[7]
