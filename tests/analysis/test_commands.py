import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from analysis.commands import report
from tests.analysis.ledgers import everything, flights

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


def test_json_has_every_number_and_null_for_the_unknown(tmp_path: Path) -> None:
    ran = _run(NAME, "--json", "--source", everything().write_sqlite(tmp_path / "turnout.db"))
    assert ran.exit_code == 0
    printed = json.loads(ran.output)
    assert printed["experiment"] == NAME
    assert printed["verdict"]["decision"] == "insufficient"
    assert printed["sample_ratio"]["mismatch"] is False
    assert len(printed["results"]) == 44
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
