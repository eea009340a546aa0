import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.cli import main
from tests.router.simulations import even, plan

BRIEF = ("--days", "0.2", "--runs", "3", "--processes", "1")
QUICK = (*BRIEF, "--step", "20")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return _written(tmp_path, plan())


def _written(folder: Path, content: Any) -> Path:
    path = folder / "plan.json"
    path.write_text(json.dumps(content))
    return path


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def test_a_table_has_a_column_for_each_allocation(file: Path) -> None:
    ran = _run(file, *QUICK, "--against", "split", "--against", "top-two")
    assert ran.exit_code == 0
    lines = ran.stdout.splitlines()
    assert lines[0] == "rehearsed: click (higher is better) over 0.2 days, 3 runs, seed 1"
    assert lines[1] == "true values: control 0.1, new 0.12; best at the end: new"
    assert "thompson even split top-two (defaults)" in " ".join(ran.stdout.split())
    rows = {line[: line.index("  ", 4)].strip(): line for line in lines if line.count("±") == 3}
    assert {"decisions", "regret against the best arm", "the best arm (power)", "saved of that"} <= set(rows)
    assert "decisions for power 0.8" in ran.stdout
    assert "new from control" in ran.stdout
    assert lines[-1].startswith("- posterior probabilities above 0.95 are looked for again")


def test_equal_arms_have_a_table_of_their_own(file: Path) -> None:
    assert "false calls: all arms equal" in _run(file, *QUICK, "--aa").stdout
    assert "false calls" not in _run(file, *QUICK).stdout


def test_json_is_the_whole_result_and_nothing_else(file: Path) -> None:
    ran = _run(file, *QUICK, "--json", "--aa", "--against", "split", "--alpha", "0.1", "--seed", "7")
    assert ran.exit_code == 0
    found = json.loads(ran.stdout)
    assert (found["experiment"], found["runs"], found["seed"], found["alpha"]) == ("rehearsed", 3, 7, 0.1)
    assert [each["allocation"] for each in found["allocations"]] == ["thompson", "even split"]
    assert [each["allocation"] for each in found["all_equal"]] == ["thompson", "even split"]
    assert found["allocations"][0]["plan"] is None
    assert found["allocations"][1]["plan"]["best"] == "new"
    assert "alpha 0.1" in found["allocations"][1]["call"]["rule"]


def test_a_page_and_a_picture_are_written(file: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "charts.png"
    ran = _run(file, *QUICK, "--aa", "--html", page, "--png", picture)
    assert ran.exit_code == 0
    assert f"written to {page}" in ran.stderr
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert all(title in ran.stdout and title in text for title in ("regret against", "false calls: all arms equal"))
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--html", "--png"])
def test_nothing_is_played_for_a_file_that_cannot_be_written(file: Path, tmp_path: Path, option: str) -> None:
    ran = _run(file, "--runs", "100000", option, tmp_path / "none" / "page")
    assert ran.exit_code == 1
    assert "page cannot be written: " in ran.stderr
    assert "is no folder; choose another file" in ran.stderr
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    assert _run(file, *QUICK, option, occupied).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--days", "nan"), "nan is not finite; give a number of days"),
        (("--days", "0"), "0.0 is not in the range"),
        (
            ("--days", "1", "--step", "1441"),
            "1441 is longer than the rehearsal, 1440 minutes",
        ),
        (("--step", "0"), "0 is not in the range"),
        (("--runs", "0"), "0 is not in the range"),
        (("--against", "luck"), "'luck' is not one of 'split', 'thompson', 'top-two'"),
    ],
    ids=["nan", "no-time", "long-step", "no-step", "no-runs", "rule"],
)
def test_a_bad_option_is_refused(file: Path, arguments: tuple[str, ...], message: str) -> None:
    ran = _run(file, *arguments)
    assert ran.exit_code == 2
    assert message in " ".join(ran.stderr.split())


def test_a_step_is_no_shorter_than_the_experiments_updates(tmp_path: Path) -> None:
    slow = {"kind": "thompson", "metric": "click", "update_every_s": 600}
    path = _written(tmp_path, plan(allocation=slow))
    assert "9 is shorter than the experiment's own update_every_s, 10 minutes" in _run(path, "--step", "9").stderr
    assert "played in 29 steps of 8 to 10 minutes" in _run(path, *BRIEF, "--step", "10").stdout


def test_a_bad_plan_is_refused_in_words(tmp_path: Path) -> None:
    ran = _run(_written(tmp_path, plan(requests_per_hour=-5)), *QUICK)
    assert ran.exit_code == 1
    assert ran.stderr == "Error: world.requests_per_hour: here stands -5; give a number > 0.0\n"
    (tmp_path / "broken.json").write_text("{")
    ran = _run(tmp_path / "broken.json")
    assert ran.exit_code == 1
    assert "broken.json is not JSON" in ran.stderr


def test_a_plan_from_standard_input() -> None:
    command = [sys.executable, "-m", "router", "simulate", "-", *QUICK, "--json"]
    content = json.dumps(plan(allocation=even("control", "new")))
    done = subprocess.run(command, input=content, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["allocations"][0]["allocation"] == "split"
    assert done.stderr == ""


def test_values_of_a_file_beside_the_plan(tmp_path: Path) -> None:
    content = plan()
    content["world"] = {"requests_per_hour": 1000, "logged": {"csv": "values.csv"}}
    (tmp_path / "values.csv").write_text("arm,value\ncontrol,0\ncontrol,1\nnew,1\nnew,1\nnew,0\nnew,1\n")
    ran = _run(_written(tmp_path, content), *QUICK)
    assert ran.exit_code == 0
    assert "true values: control 0.5, new 0.75; best at the end: new" in ran.stdout
