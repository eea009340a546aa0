import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from analysis.commands import report
from tests.analysis.ledgers import START_MS, Ledger, everything, flights
from tests.analysis.test_allocations import interleaved
from tests.analysis.test_hindsight import bandit
from tests.analysis.test_shadowed import SHADOW, shadowed
from tests.metrics import BRIER

NAME = "boosting-vs-logistic"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(report, list(arguments))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return flights(1500).write_sqlite(tmp_path_factory.mktemp("commands") / "turnout.db")


def test_report_prints_table_verdict_and_source(url: str) -> None:
    ran = _run(NAME, "--source", url)
    assert ran.exit_code == 0
    lines = ran.output.splitlines()
    assert max(len(line) for line in lines) <= 80
    (row,) = (line.split() for line in lines if line.split()[:2] == ["brier", "boosting"])
    assert row[2] == "750"
    assert row[-1] == "better"
    assert "advance: boosting" in lines
    assert f"- read from ledger {url.removeprefix('sqlite:///')}" in ran.output.replace("\n", "")


def test_report_reads_the_configured_source(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_LAKE", str(tmp_path / "none"))
    monkeypatch.setenv("TURNOUT_DATABASE", url)
    assert _run(NAME).exit_code == 0


def test_experiment_that_was_not_exported_is_read_from_the_ledger(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = Ledger()
    exported.add_experiment([BRIER], name="other")
    exported.decide(1, 0, "u", START_MS)
    monkeypatch.setenv("TURNOUT_LAKE", str(exported.write_lake(tmp_path / "lake")))
    monkeypatch.setenv("TURNOUT_DATABASE", url)
    assert "read from lake" in _run("other").output
    ran = _run(NAME)
    assert (ran.exit_code, "read from ledger" in ran.output) == (0, True)
    nowhere = _run("nope")
    assert nowhere.exit_code == 1
    for place in (f"lake {tmp_path / 'lake' / 'logs'}", f"ledger {url.removeprefix('sqlite:///')}"):
        assert f"{place} has no experiment 'nope'; it has: " in nowhere.stderr
    monkeypatch.setenv("TURNOUT_DATABASE", f"sqlite:///{tmp_path / 'none.db'}")
    lost = _run(NAME)
    assert lost.exit_code == 1
    assert f"has no experiment '{NAME}'; it has: other; there is no ledger at {tmp_path / 'none.db'}" in lost.stderr


def test_shadows_are_part_of_the_report(tmp_path: Path) -> None:
    url = shadowed().write_sqlite(tmp_path / "turnout.db")
    ran = _run(NAME, "--source", url, "--html", str(tmp_path / "result.html"))
    (row,) = (line.split() for line in ran.output.splitlines() if line.startswith(SHADOW))
    assert row[1:] == ["9", "of", "10", "1", "insufficient"]
    assert f"<td>{SHADOW}</td><td class=number>9 of 10</td>" in (tmp_path / "result.html").read_text()
    assert json.loads(_run(NAME, "--source", url, "--json").stdout)["shadows"][0]["decisions"] == 9


def test_json_of_mixed_lists_and_bandits_has_what_the_text_has(tmp_path: Path) -> None:
    def printed(name: str, ledger: Ledger) -> Any:
        url = ledger.write_sqlite(tmp_path / f"{name}.db")
        return json.loads(_run(NAME, "--json", "--source", url).stdout)

    lists = printed("lists", interleaved())
    assert [(pair["metric"], pair["second"], pair["impressions"]) for pair in lists["pairs"]] == [
        ("click", "arm-1", 200)
    ]
    assert "hindsight" not in lists
    adaptive = printed("bandit", bandit())
    assert [arm["share"] for arm in adaptive["hindsight"]["brier"]["arms"]] == [0.1, 0.9]
    assert "pairs" not in adaptive


@pytest.mark.parametrize("ledger", [interleaved(lists=4106), bandit(), flights(200)], ids=["lists", "bandit", "split"])
def test_text_fits_a_narrow_terminal_and_says_nothing_twice(tmp_path: Path, ledger: Ledger) -> None:
    for row in ledger.arms:
        row["name"] = row["name"].replace("arm-0", "base-rate").replace("arm-1", "boosting")
    ran = _run(NAME, "--source", ledger.write_sqlite(tmp_path / "turnout.db"))
    assert "boosting" in ran.output.split()
    lines = [line.rstrip() for line in ran.output.splitlines()]
    assert max(map(len, lines)) <= 80
    long = [line for line in lines if len(line) > 30 and "──" not in line]
    assert len(long) == len(set(long))


def test_json_has_every_number_and_null_for_the_unknown(tmp_path: Path) -> None:
    ran = _run(NAME, "--json", "--source", everything(only=("brier", "click")).write_sqlite(tmp_path / "turnout.db"))
    assert ran.exit_code == 0
    printed = json.loads(ran.output)
    assert printed["experiment"] == NAME
    assert printed["verdict"]["decision"] == "insufficient"
    assert printed["sample_ratio"]["mismatch"] is False
    assert len(printed["results"]) == 8
    assert printed["results"][0]["difference"] is None
    assert printed["results"][1]["difference_low"] < printed["results"][1]["difference_high"]


def test_alpha_is_passed_on(url: str) -> None:
    assert json.loads(_run(NAME, "--json", "--alpha", "0.2", "--source", url).output)["results"][1]["confidence"] == 0.8
    assert _run(NAME, "--alpha", "2", "--source", url).exit_code == 1


def test_html_is_written(url: str, tmp_path: Path) -> None:
    ran = _run(NAME, "--json", "--source", url, "--html", str(tmp_path / "result.html"))
    assert ran.exit_code == 0
    assert json.loads(ran.stdout)["state"] == "concluded"
    assert (tmp_path / "result.html").read_text().startswith("<!doctype html>")


def test_html_that_cannot_be_written_fails(url: str, tmp_path: Path) -> None:
    ran = _run(NAME, "--source", url, "--html", str(tmp_path / "none" / "result.html"))
    assert ran.exit_code == 1
    assert "result.html cannot be written: No such file or directory; choose another file" in ran.stderr


def test_refusal_is_an_exit_status_and_a_message(url: str) -> None:
    ran = _run("nope", "--source", url)
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert "has no experiment 'nope'; it has: boosting-vs-logistic" in ran.stderr


def test_refusal_in_json_is_json(tmp_path: Path) -> None:
    ran = _run("nope", "--json", "--source", str(tmp_path))
    assert ran.exit_code == 1
    refusal = json.loads(ran.stdout)
    assert refusal["error"] == "SourceNotFound"
    assert str(tmp_path / "logs") in refusal["message"]
