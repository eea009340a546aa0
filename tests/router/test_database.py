import re
import sqlite3
import threading
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, make_url, select, text

import router.ledger
import router.ledger.database
from router.assignment.epochs import HOLDOUT
from router.decision_id import DecisionId
from router.errors import CannotStart
from router.ledger import schema
from router.ledger.database import HEAD, for_reading, open_database, revision, shown, upgrade
from router.ledger.evidence import BEFORE, read_evidence
from router.ledger.partitions import ensure_partitions
from router.ledger.writing import insert_decisions
from tests.databases import BACKENDS, database
from tests.router.ledgers import SIGNER, decision


def is_published(_: object, name: str | None, kind: str, *__: object) -> bool:
    return kind != "table" or not re.search(r"_(rest|\d{4}_\d{2})$", name or "")


def test_upgrade_makes_the_published_schema(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_published})
        assert compare_metadata(context, schema.metadata) == []


def at_0001(engine: Engine) -> None:
    """Make a ledger of the first revision, with a row in every table that the next one changes."""
    config = Config()
    config.set_main_option("script_location", str(Path(router.ledger.__path__[0]) / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in (
            "insert into experiments values (1, 'first', 'delay', 'running', 1, '{\"traffic\": 0.25}', 5, 6, null)",
            "insert into epochs values (1, 1, '[[10000,0]]', 'start', 6)",
            "insert into epochs values (1, 2, '[[10000,1]]', 'new weights', 7)",
        ):
            connection.execute(text(statement))
        key = DecisionId(1_700_000_000_000, 1, 1, 0, 5000, bytes(8))
        insert = (
            "insert into decisions values (:id, 5, 'delay', 1, 1, 0, 0.5, 'u', 'a@1', 'a@1', null, null, '[]', '[]')"
        )
        connection.execute(text(insert), {"id": SIGNER.sign(key)})
        insert = "insert into outcomes values (:id, 'late', 0, '', 1.0, 0.25, 1, 0, 8, 9)"
        connection.execute(text(insert), {"id": SIGNER.sign(key)})


@pytest.mark.parametrize("backend", BACKENDS)
def test_upgrade_from_the_first_revision_keeps_every_row(backend: str, tmp_path: Path) -> None:
    with database(backend, tmp_path) as url:
        engine = open_database(url)
        at_0001(engine)
        upgrade(engine)
        upgrade(engine)
        assert revision(engine) == HEAD
        with engine.connect() as connection:
            [decision] = connection.execute(select(schema.decisions)).mappings()
            [outcome] = connection.execute(select(schema.outcomes)).mappings()
            begun = read_evidence(connection, 1, [BEFORE], before_minute=1)
            epochs = connection.execute(select(schema.epochs).order_by(schema.epochs.c.epoch)).mappings().all()
            context = MigrationContext.configure(connection, opts={"include_object": is_published})
            assert compare_metadata(context, schema.metadata) == []
        engine.dispose()
    assert decision["unit"] == "u"
    assert outcome["decision_id"] == decision["id"]
    assert (outcome["version"], outcome["value"], outcome["counted"]) == (0, 1.0, True)
    assert [epoch["traffic"] for epoch in epochs] == [10_000, 2500]
    assert begun.keys() == {(HOLDOUT, BEFORE)}


def test_every_month_gets_its_partition_ahead_of_time(tmp_path: Path) -> None:
    december_ms = 1_765_000_000_000
    with database("postgresql", tmp_path) as url:
        engine = open_database(url)
        upgrade(engine)
        row = decision()._replace(id=december_ms.to_bytes(6) + decision().id[6:])
        with engine.begin() as connection:
            insert_decisions(connection, [decision()._replace(id=bytes(33))])
        for _ in range(2):
            ensure_partitions(engine, december_ms)
        with engine.begin() as connection:
            insert_decisions(connection, [row])
            where = select(func.count(), text("tableoid::regclass::text")).select_from(schema.decisions)
            counts = {name: n for n, name in connection.execute(where.group_by(text("2")))}
            assert connection.execute(text("select to_regclass('outcomes_2026_02')")).scalar() is not None
        engine.dispose()
    assert counts == {"decisions_2025_12": 1, "decisions_rest": 1}


def test_a_month_with_rows_in_the_rest_stays_there(tmp_path: Path) -> None:
    december_ms = 1_765_000_000_000
    with database("postgresql", tmp_path) as url:
        engine = open_database(url)
        upgrade(engine)
        row = decision()._replace(id=december_ms.to_bytes(6) + decision().id[6:])
        with engine.begin() as connection:
            insert_decisions(connection, [row])
        ensure_partitions(engine, december_ms)
        with engine.connect() as connection:
            assert connection.execute(text("select count(*) from decisions_rest")).scalar() == 1
            assert connection.execute(text("select to_regclass('decisions_2025_12')")).scalar() is None
        engine.dispose()


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


def test_connections_are_durable_and_do_not_block_readers(sqlite_engine: Engine) -> None:
    with sqlite_engine.connect() as connection:
        assert connection.execute(text("pragma synchronous")).scalar() == 2
        assert connection.execute(text("pragma journal_mode")).scalar() == "wal"


def test_open_database_waits_for_another_process_that_makes_the_same_ledger(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("create table t (x)")
        # The file is in rollback mode still, and being written: two replicas that start on a new ledger meet like this.
        other.execute("begin immediate")
        threading.Timer(0.3, other.execute, ("commit",)).start()
        engine = open_database(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert connection.execute(text("pragma journal_mode")).scalar() == "wal"
    engine.dispose()


def test_open_database_gives_up_on_a_ledger_that_stays_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.ledger.database, "BUSY_S", 0.2)
    path = tmp_path / "held.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("create table t (x)")
        other.execute("begin immediate")
        with pytest.raises(CannotStart, match=r"held\.db: database is locked"):
            open_database(f"sqlite:///{path}")


def test_readers_do_not_wait_for_a_writer(engine: Engine) -> None:
    with engine.begin() as writer, for_reading(engine).connect() as reader:
        before = reader.execute(text("select version from control_version")).scalar()
        writer.execute(text("update control_version set version = 77"))
        assert reader.execute(text("select version from control_version")).scalar() == before != 77


def test_an_address_is_shown_without_its_password() -> None:
    assert shown("postgresql://me:secret@host/turnout") == "postgresql://me:***@host/turnout"


def test_open_database_refuses_a_server_that_is_not_there() -> None:
    with pytest.raises(
        CannotStart, match=r"cannot open the ledger postgresql://me:\*\*\*@127\.0\.0\.1:1/turnout"
    ) as refusal:
        open_database("postgresql://me:secret@127.0.0.1:1/turnout")
    assert "secret" not in str(refusal.value)


def test_open_database_refuses_what_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(CannotStart, match=r"ledger\.db: file is not a database"):
        open_database(f"sqlite:///{tmp_path}/ledger.db")


def test_open_database_refuses_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="cannot open the ledger"):
        open_database(f"sqlite:///{tmp_path}/file/ledger.db")


def test_a_role_that_may_not_create_tables_is_served_by_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"turnout_test_{uuid.uuid4().hex}"
    with database("postgresql", tmp_path) as url:
        owner = open_database(url)
        upgrade(owner)
        with owner.begin() as connection:
            connection.execute(text(f"create role {role} login"))
            connection.execute(text(f"grant select, insert, update on all tables in schema public to {role}"))
        guest = open_database(make_url(url).set(username=role).render_as_string(hide_password=False))
        ensure_partitions(guest, 1_765_000_000_000)
        with guest.begin() as connection:
            insert_decisions(connection, [decision()])
        guest.dispose()
        assert "rows go to the partitions .._rest" in caplog.text
        with owner.begin() as connection:
            connection.execute(text(f"drop owned by {role}"))
            connection.execute(text(f"drop role {role}"))
        owner.dispose()


def test_upgrade_by_a_role_that_may_not_create_tables_says_so(tmp_path: Path) -> None:
    role = f"turnout_test_{uuid.uuid4().hex}"
    with database("postgresql", tmp_path) as url:
        owner = open_database(url)
        with owner.begin() as connection:
            connection.execute(text(f"create role {role} login"))
        guest = open_database(make_url(url).set(username=role).render_as_string(hide_password=False))
        with pytest.raises(CannotStart, match="permission denied for schema public"):
            upgrade(guest)
        guest.dispose()
        with owner.begin() as connection:
            connection.execute(text(f"drop role {role}"))
        owner.dispose()
