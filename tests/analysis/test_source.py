import sqlite3
import subprocess
import sys
from pathlib import Path

import ibis
import pytest

from analysis.errors import SchemaMismatch, SourceError, SourceNotFound, UnreadableSource
from analysis.source import TABLES, open_source
from router.ledger import schema
from tests.analysis.ledgers import Ledger, flights, write_table

_TYPES = {"BIGINT": "int64", "INTEGER": "int64", "FLOAT": "float64", "TEXT": "string", "BLOB": "binary"}


def test_expected_columns_are_those_of_the_ledger() -> None:
    written = {
        name: {column.name: _TYPES[str(column.type)] for column in schema.metadata.tables[name].columns}
        for name in TABLES
    }
    assert written == {name: dict(columns) for name, columns in TABLES.items()}


def test_importing_analysis_is_cheap() -> None:
    code = "import sys, analysis; print(sorted({'pandas', 'ibis', 'altair', 'click', 'numpy'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_both_sources_have_the_same_tables(tmp_path: Path) -> None:
    ledger = flights(20)
    for source in (ledger.write_sqlite(tmp_path / "turnout.db"), ledger.write_lake(tmp_path / "lake")):
        opened = open_source(source)
        for name, columns in TABLES.items():
            types = {column: dtype.copy(nullable=True) for column, dtype in opened.tables[name].schema().items()}
            assert types == {column: ibis.dtype(dtype) for column, dtype in columns.items()}
            assert len(opened.rows(opened.tables[name])) == len(getattr(ledger, name))


def test_lake_without_rows_reads_as_empty_tables(tmp_path: Path) -> None:
    opened = open_source(Ledger().write_lake(tmp_path))
    assert [opened.rows(table) for table in opened.tables.values()] == [[]] * len(TABLES)


def test_default_source_is_the_lake_once_logs_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = flights(20)
    monkeypatch.setenv("TURNOUT_DATABASE", ledger.write_sqlite(tmp_path / "turnout.db"))
    monkeypatch.setenv("TURNOUT_LAKE", str(tmp_path / "lake"))
    assert open_source().name == f"ledger {tmp_path / 'turnout.db'}"
    ledger.write_lake(tmp_path / "lake")
    assert open_source().name == f"lake {tmp_path / 'lake' / 'logs'}"


def test_default_source_is_read_from_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNOUT_DATABASE", raising=False)
    monkeypatch.delenv("TURNOUT_LAKE", raising=False)
    monkeypatch.chdir(tmp_path)
    url = flights(20).write_sqlite(tmp_path / "elsewhere.db")
    Path("turnout.toml").write_text(f'database = "{url}"\n')
    assert open_source().name == f"ledger {tmp_path / 'elsewhere.db'}"
    Path("turnout.toml").write_text("database = ")
    with pytest.raises(UnreadableSource, match=r"turnout\.toml cannot be read"):
        open_source()


def test_missing_ledger_names_the_path_and_creates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(SourceNotFound, match=rf"no ledger at {path}; start the router"):
        open_source(f"sqlite:///{path}")
    assert not path.exists()


def test_missing_lake_names_the_folder_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=rf"no exported logs at {tmp_path / 'logs'}; materialize"):
        open_source(tmp_path)


def test_missing_delta_table_is_named(tmp_path: Path) -> None:
    write_table(tmp_path, "experiments", [])
    with pytest.raises(SourceNotFound, match=r"logs/arms does not exist"):
        open_source(tmp_path)


def test_unknown_kind_of_source_is_refused() -> None:
    with pytest.raises(SourceNotFound, match=r"'postgresql://host/db' cannot be read; use sqlite:///PATH"):
        open_source("postgresql://host/db")


def test_file_that_is_no_database_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"not a database, " * 1000)
    with pytest.raises(UnreadableSource, match=r"bad\.db cannot be read \(file is not a database\)"):
        open_source(f"sqlite:///{tmp_path / 'bad.db'}")


def test_database_without_the_tables_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE arms (experiment_id INTEGER, arm INTEGER, name TEXT, model TEXT)")
    connection.close()
    with pytest.raises(SchemaMismatch, match=r"no table 'decisions'; create it with `turnout db upgrade`"):
        open_source(f"sqlite:///{tmp_path / 'other.db'}")


def test_missing_column_is_named(tmp_path: Path) -> None:
    url = flights(20).write_sqlite(tmp_path / "old.db")
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute("ALTER TABLE outcomes DROP COLUMN prediction")
    connection.close()
    with pytest.raises(SchemaMismatch, match=r"no column 'prediction' in 'outcomes'"):
        open_source(url)


def test_corrupted_delta_log_is_a_clear_error(tmp_path: Path) -> None:
    lake = flights(20).write_lake(tmp_path)
    next((lake / "logs" / "outcomes" / "_delta_log").glob("*.json")).write_text("{nonsense")
    with pytest.raises(UnreadableSource, match=r"logs/outcomes cannot be read .*export the logs again") as caught:
        open_source(lake)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SourceError)


@pytest.mark.parametrize("damage", [b"", b"garbage" * 50])
def test_corrupted_delta_file_is_a_clear_error(tmp_path: Path, damage: bytes) -> None:
    lake = flights(20).write_lake(tmp_path)
    next((lake / "logs" / "decisions").rglob("*.parquet")).write_bytes(damage)
    with pytest.raises(UnreadableSource, match=r"logs/decisions cannot be read"):
        open_source(lake)


def test_file_that_is_cut_in_the_middle_is_found_when_it_is_read(tmp_path: Path) -> None:
    lake = flights(2000).write_lake(tmp_path)
    path = next((lake / "logs" / "decisions").rglob("*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:200] + b"\xff" * (len(content) // 2) + content[200 + len(content) // 2 :])
    opened = open_source(lake)
    with pytest.raises(UnreadableSource, match=r"cannot be read"):
        opened.rows(opened.tables["decisions"])


def test_ledger_is_read_while_it_is_written(tmp_path: Path) -> None:
    url = flights(20).write_sqlite(tmp_path / "turnout.db")
    writer = sqlite3.connect(tmp_path / "turnout.db", isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    opened = open_source(url)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM decisions")
    assert len(opened.rows(opened.tables["decisions"])) == 20
    writer.execute("COMMIT")
    assert opened.rows(opened.tables["decisions"]) == []
    writer.close()
