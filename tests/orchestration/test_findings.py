"""What the demo prints: numbers that follow from the ledger, and none that the data do not carry."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from analysis.report import load
from orchestration import findings
from tests.analysis.ledgers import BRIER, CLICK, START_MS, Ledger
from tests.analysis.test_allocations import interleaved
from tests.analysis.test_hindsight import bandit
from tests.analysis.test_shadowed import SHADOW, shadowed

NAME = "boosting-vs-logistic"


def printed(finding: findings.Finding) -> str:
    console = Console(file=io.StringIO(), width=200)
    findings.show(console, finding)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_bandit_shows_shares_means_and_regret_but_no_interval(tmp_path: Path) -> None:
    report = load(NAME, bandit().write_sqlite(tmp_path / "turnout.db"))
    found, hindsight = findings.bandit(report), report.hindsight()
    assert found.title.endswith("2 epochs published")
    assert [row[:2] for row in found.rows[1:]] == [("control", "10.0%"), ("boosting", "90.0%")]
    assert [row[5] for row in found.rows[1:]] == [f"{each.weighted_mean:.4f}" for each in hindsight.arms]
    assert f"{hindsight.best} has the best weighted mean" in found.notes[0]
    assert f"cost {hindsight.regret:,.1f} more brier" in found.notes[0]
    assert f"would have cost {hindsight.uniform_regret:,.1f} more" in found.notes[0]
    text = printed(found)
    assert "last share" in text
    assert "intervals for such traffic are still to come" in text
    assert " to " not in "".join(cell for row in found.rows for cell in row)


def test_bandit_without_labels_says_so(tmp_path: Path) -> None:
    ledger = bandit()
    ledger.outcomes.clear()
    found = findings.bandit(load(NAME, ledger.write_sqlite(tmp_path / "turnout.db")))
    assert "cannot be said" in found.notes[0]
    assert [row[4:] for row in found.rows[1:]] == [("", ""), ("", "")]


def test_lists_show_the_share_of_the_second_ranker_with_its_interval(tmp_path: Path) -> None:
    report = load(NAME, interleaved(lists=200).write_sqlite(tmp_path / "turnout.db"))
    [pair] = report.interleaving().to_dict("records")
    found = findings.lists(report, ["click"], ["simulated"])
    [row] = found.rows[1:]
    assert row[:5] == ("click", "200", str(pair["wins"]), str(pair["losses"]), str(pair["ties"]))
    share, low, high = 0.5 - pair["delta"], 0.5 - pair["high"], 0.5 - pair["low"]
    assert share == pytest.approx((pair["losses"] + pair["ties"] / 2) / 200)
    assert low < share < high
    assert row[5] == f"{share:.1%} ({low:.1%} to {high:.1%})"
    assert found.notes[0] == "simulated"
    assert found.rows[0][5] == "share of arm-1 (interval)"
    assert "share of arm-1" in printed(found)


def test_lists_that_nobody_saw_have_no_interval(tmp_path: Path) -> None:
    found = findings.lists(load(NAME, interleaved(lists=1).write_sqlite(tmp_path / "turnout.db")), ["click"])
    assert "(" not in found.rows[1][5]


def test_shadow_lines_compare_the_same_labels(tmp_path: Path) -> None:
    [line] = findings.shadows(load(NAME, shadowed().write_sqlite(tmp_path / "turnout.db")))
    expected = math.fsum((1 - number / 10) ** 2 for number in range(8)) / 8
    assert f"{SHADOW} saw 9 of 10 decisions (1 errors): mean brier {expected:.4f}" in line
    assert line.endswith("served 0.2500, on the same 8 labels")


def test_no_shadow_makes_no_line(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER])
    ledger.decide(experiment, 0, "u", START_MS)
    assert findings.shadows(load(NAME, ledger.write_sqlite(tmp_path / "a.db"))) == []
    (tmp_path / "clicks").mkdir()
    clicks = Ledger()
    clicks.add_experiment([CLICK])
    assert findings.shadows(load(NAME, clicks.write_sqlite(tmp_path / "clicks" / "a.db"))) == []
