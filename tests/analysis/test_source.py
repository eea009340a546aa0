import gc
import sqlite3
import subprocess
import sys
import traceback
from pathlib import Path

import ibis
import psycopg
import pytest

from analysis.errors import SchemaMismatch, SourceError, SourceNotFound, UnreadableSource
from analysis.schema import TABLES
from analysis.source import open_source
from router.ledger import schema
from tests.analysis.ledgers import Ledger, flights, forget_versions, write_table
from tests.databases import database

_TYPES = {
    "BIGINT": "int64",
    "INTEGER": "int64",
    "FLOAT": "float64",
    "TEXT": "string",
    "BLOB": "binary",
    "BOOLEAN": "boolean",
}


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


def test_lake_in_a_folder_with_a_space_is_read(tmp_path: Path) -> None:
    opened = open_source(flights(20).write_lake(tmp_path / "a lake"))
    assert len(opened.rows(opened.tables["decisions"])) == 20


def test_spark_that_is_not_installed_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = flights(20).write_lake(tmp_path)
    monkeypatch.setitem(sys.modules, "pyspark.sql.types", None)
    with pytest.raises(SourceNotFound, match=r"^Spark needs pip install 'turnout\[spark\]'$"):
        open_source(f"spark:{lake}")


@pytest.mark.parametrize("address", ["spark:{}", "spark://{}"])
def test_missing_lake_for_spark_is_named_as_any_other(tmp_path: Path, address: str) -> None:
    with pytest.raises(SourceNotFound, match=rf"no exported logs at {tmp_path / 'logs'}; materialize"):
        open_source(address.format(tmp_path))


def test_missing_delta_table_is_named(tmp_path: Path) -> None:
    write_table(tmp_path, "experiments", [])
    with pytest.raises(SourceNotFound, match=r"logs/arms does not exist"):
        open_source(tmp_path)


def test_unknown_kind_of_source_is_refused() -> None:
    with pytest.raises(SourceNotFound, match=r"'mysql://u:\*\*\*@host/db' cannot be read; use sqlite:///PATH"):
        open_source("mysql://u:hidden@host/db")


def test_ledger_in_postgresql_has_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = flights(20)
    monkeypatch.setenv("TURNOUT_LAKE", str(tmp_path / "none"))
    with database("postgresql", tmp_path) as url:
        monkeypatch.setenv("TURNOUT_DATABASE", ledger.write(url))
        for opened in (open_source(), open_source(url.replace("+psycopg", ""))):
            for name, columns in TABLES.items():
                types = {column: dtype.copy(nullable=True) for column, dtype in opened.tables[name].schema().items()}
                assert types == {column: ibis.dtype(dtype) for column, dtype in columns.items()}
                assert len(opened.rows(opened.tables[name])) == len(getattr(ledger, name))


def test_ledger_in_postgresql_cannot_be_written_by_a_report(tmp_path: Path) -> None:
    with database("postgresql", tmp_path) as url:
        opened = open_source(flights(20).write(url))
        backend = opened.tables["arms"].get_backend()
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), backend.begin() as cursor:
            cursor.execute("delete from arms")


def test_connection_to_postgresql_ends_with_its_last_table(tmp_path: Path) -> None:
    with database("postgresql", tmp_path) as url:
        opened = open_source(flights(20).write(url))
        connection = opened.tables["arms"].get_backend().con
        assert not connection.closed
        del opened
        gc.collect()
        assert connection.closed


def test_database_in_postgresql_without_the_tables_is_refused(tmp_path: Path) -> None:
    with (
        database("postgresql", tmp_path) as url,
        pytest.raises(SchemaMismatch, match=r"no table 'arms'; create it with `turnout db upgrade`"),
    ):
        open_source(url)


def test_ledger_in_postgresql_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    with database("postgresql", tmp_path) as url:
        opened = open_source(flights(20).write(url))
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("drop table arms")
        with pytest.raises(UnreadableSource, match=r"cannot be read \(relation \"arms\" does not exist"):
            opened.rows(opened.tables["arms"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:hidden@127.0.0.1:1/db", r"postgresql://me:\*\*\*@127.0.0.1:1/db does not answer"),
        ("postgresql+psycopg://me:x@hidden@127.0.0.1:1/db", r"me:\*\*\*@127.0.0.1:1/db' cannot be understood"),
        ("postgresql://127.0.0.1:1/db?user=me&password=hidden", r"password=\*\*\* does not answer"),
        ("postgresql://me:hidden@127.0.0.1:no/db", r"me:\*\*\*@127.0.0.1:no/db"),
        (
            "postgresql://me:%dehidden@127.0.0.1/db",
            r"me:\*\*\*@127.0.0.1/db' cannot be understood; write it as postgresql:",
        ),
        ("postgresql://me:hidden@[::1/db", r"me:\*\*\*@\[::1/db' cannot be understood"),
    ],
)
def test_password_of_a_ledger_that_does_not_answer_is_not_shown(url: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_source(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert "hidden" not in shown


def test_ledger_in_postgresql_without_its_driver_names_the_remedy() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\nfrom analysis.errors import SourceNotFound\nimport analysis\n"
        "try: analysis.load('x', 'postgresql://127.0.0.1/db')\nexcept SourceNotFound as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "a ledger in PostgreSQL needs pip install 'turnout[postgresql]'\n"


def test_days_exported_before_outcomes_had_versions_are_read(tmp_path: Path) -> None:
    lake = flights(20).write_lake(tmp_path)
    forget_versions(lake)
    opened = open_source(lake)
    rows = opened.rows(opened.tables["outcomes"])
    assert [(row["version"], row["counted"]) for row in rows] == [(0, True)] * 20


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
