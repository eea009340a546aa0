from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

import router.ledger
from router.errors import CannotStart
from router.ledger import schema
from router.ledger.database import HEAD, for_reading, open_database, revision, upgrade


def test_upgrade_makes_the_published_schema(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_upgrade_twice_changes_nothing(engine: Engine) -> None:
    upgrade(engine)
    assert revision(engine) == HEAD


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(router.ledger.__path__[0]) / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_upgrade_refuses_a_newer_ledger(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(CannotStart, match="newer than this router knows"):
        upgrade(engine)


def test_connections_are_durable_and_do_not_block_readers(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("pragma synchronous")).scalar() == 2
        assert connection.execute(text("pragma journal_mode")).scalar() == "wal"


def test_readers_do_not_wait_for_a_writer(engine: Engine) -> None:
    with engine.begin() as writer, for_reading(engine).connect() as reader:
        writer.execute(text("update control_version set version = 7"))
        assert reader.execute(text("select version from control_version")).scalar() == 0


def test_open_database_refuses_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(CannotStart, match=r"ledger\.db: file is not a database"):
        open_database(f"sqlite:///{tmp_path}/ledger.db")


def test_open_database_refuses_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="cannot open the ledger"):
        open_database(f"sqlite:///{tmp_path}/file/ledger.db")
