import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from click.testing import CliRunner

from router import cli


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(cli.main, ["--help"])
    assert result.exit_code == 0
    for name in ("serve", "endpoint", "experiment", "key", "audit", "model", "db", "report", "simulate", "demo"):
        assert f"\n  {name} " in result.output


def test_help_imports_nothing_heavy_before_a_command_is_named() -> None:
    code = "import sys; import router.cli; print([m for m in ('numpy', 'sqlalchemy', 'litestar') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_names_what_is_installed_without_importing_it() -> None:
    heavy = ("numpy", "pandas", "sqlalchemy", "litestar", "dagster", "ibis")
    code = (
        "import sys; from click.testing import CliRunner; from router.cli import main;"
        f"print(CliRunner().invoke(main, ['--help']).output, [m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "  deploy       Bring endpoint NAME and its newest models to a running router." in done.stdout
    assert "  experiment   Create, look" in done.stdout
    assert done.stdout.endswith(" []\n")


def test_a_command_of_a_missing_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("explore", "analysis_of_mars.commands:explore", cli.GROUP)
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])
    listed = CliRunner().invoke(cli.main, ["--help"])
    assert "(needs pip install 'turnout[analysis_of_mars]')" in " ".join(listed.output.split())
    result = CliRunner().invoke(cli.main, ["explore", "--deep"])
    assert result.exit_code == 1
    assert "No module named 'analysis_of_mars'" in result.output


def test_an_unknown_command_is_refused() -> None:
    result = CliRunner().invoke(cli.main, ["explode"])
    assert result.exit_code == 2
    assert "No such command 'explode'" in result.output


def test_the_router_loads_without_pandas_dagster_and_plots() -> None:
    unwanted = ("pandas", "dagster", "altair", "ibis", "sklearn", "skops", "pyarrow", "deltalake")
    code = f"import sys, router.http.app; print([m for m in {unwanted!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
