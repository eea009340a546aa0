import json
from pathlib import Path

from click.testing import CliRunner, Result
from sqlalchemy import Engine, text

from router import cli
from router.ledger.database import HEAD, shown
from tests.router.logged import SECRET, UNITS


def run(database: Engine | str, *options: str, secret: str | None = SECRET) -> Result:
    url = database if isinstance(database, str) else database.url.render_as_string(hide_password=False)
    environment = {"TURNOUT_SECRET": secret, "TURNOUT_DATABASE": None}
    return CliRunner().invoke(cli.main, ["verify-log", "--database", url, *options], env=environment)


def execute(ledger: Engine, statement: str) -> None:
    with ledger.begin() as connection:
        connection.execute(text(statement))


def test_a_sound_ledger_exits_with_0_and_says_what_was_checked(ledger: Engine) -> None:
    result = run(ledger)
    assert result.exit_code == 0, result.output
    first, waiting, last = result.output.splitlines()
    assert first.startswith("checked in ")
    assert f"{UNITS} decisions" in first
    assert waiting == "outcomes that wait for their decision, which another router has yet to hand in: 1"
    assert last == "failures: none, every row follows"


def test_every_failure_is_a_line_and_the_exit_status_is_1(ledger: Engine) -> None:
    execute(ledger, "update decisions set propensity = 0.123")
    execute(ledger, "delete from assignments")
    result = run(ledger)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert sum(line.startswith("decisions ") and "found 0.123" in line for line in lines) == UNITS
    assert f"failures: {UNITS}" in lines
    assert any(line.startswith("sticky decisions made while") for line in lines)


def test_altered_evidence_is_a_line_and_what_cannot_be_derived_is_counted(ledger: Engine) -> None:
    execute(ledger, "update evidence set arm = 9 where experiment_id = 3 and metric = 'decisions/failed'")
    lines = run(ledger).output.splitlines()
    assert lines[0].startswith("evidence of experiment 3 arm 1 metric decisions/failed: count: expected ")
    assert lines[1].startswith("evidence of experiment 3 arm 9 metric decisions/failed: count: expected 0, found ")
    assert lines[-1] == "failures: 2"
    execute(ledger, "insert into evidence select 3, 255, 'decisions/before', 0, 0, sums from evidence limit 1")
    result = run(ledger)
    assert result.exit_code == 0, result.output
    assert "evidence of experiments whose first decisions it lacks, which cannot be rebuilt: " in result.output


def test_a_limit_bounds_the_lines_and_0_is_none(ledger: Engine) -> None:
    execute(ledger, "update decisions set propensity = 0.123")
    limited = run(ledger, "--limit", "2").output.splitlines()
    assert sum(line.startswith("decisions ") for line in limited) == 2
    assert f"... and {UNITS - 2} more; --limit 0 prints all" in limited
    assert sum(line.startswith("decisions ") for line in run(ledger, "--limit", "0").output.splitlines()) == UNITS


def test_json_has_failures_counts_and_time(ledger: Engine) -> None:
    execute(ledger, "update statistics set count = count + 1")
    result = run(ledger, "--json", "--limit", "1")
    assert result.exit_code == 1
    content = json.loads(result.output)
    assert content["failures"] == content["checked"]["statistics"]
    assert [failure["table"] for failure in content["shown"]] == ["statistics"]
    assert content["waiting"] == 1
    assert content["seconds"] > 0


def test_one_experiment_is_named(ledger: Engine) -> None:
    execute(ledger, "update decisions set propensity = 0.123 where experiment_id = 1")
    assert run(ledger, "--experiment", "by-unit").exit_code == 0
    assert run(ledger, "--experiment", "sticky").exit_code == 1
    missing = run(ledger, "--experiment", "elsewhere")
    assert missing.exit_code == 1
    assert "there is no experiment 'elsewhere'; known experiments: sticky, by-request, by-unit, draft" in missing.output


def test_another_secret_finds_every_decision_unsigned(ledger: Engine) -> None:
    result = run(ledger, secret="a secret of nobody")
    assert result.exit_code == 1
    assert result.output.count("signature: expected one of our secrets, found none of them") == UNITS + 1


def test_an_older_ledger_is_not_upgraded(ledger: Engine) -> None:
    execute(ledger, "update alembic_version set version_num = '0001'")
    result = run(ledger)
    execute(ledger, f"update alembic_version set version_num = '{HEAD}'")  # noqa: S608 (our own constant)
    assert result.exit_code == 1
    assert f"the ledger {shown(ledger.url)} is at revision 0001, but this command reads {HEAD}" in result.output


def test_neither_a_database_nor_a_secret_is_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/ledger.db"
    assert f"there is no ledger at {url}; name it with --database" in run(url).output
    (tmp_path / "ledger.db").touch()
    without = run(f"sqlite:///{tmp_path}/ledger.db", secret=None)
    assert without.exit_code == 1
    assert f"the signing secret is not at {tmp_path}/ledger.secret; set TURNOUT_SECRET" in without.output
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]
