import time

import msgspec
import pytest
from sqlalchemy import Engine, select, text

from router.errors import UnknownKey
from router.keys import ApiKey, hash_of, new_key
from router.ledger import schema
from router.ledger.audit import AuditTables
from router.ledger.control import ControlTables
from router.ledger.keys import KeyTables
from tests.router.keyrings import make_key


def test_a_key_comes_back_as_it_was_made_and_its_text_is_nowhere(engine: Engine) -> None:
    key, shown = new_key("shop", frozenset({"predict", "outcome"}), 2.5, 17)
    tables = KeyTables(engine)
    tables.create(key, actor="somebody")
    assert tables.read_all() == [key]
    with engine.connect() as connection:
        row = connection.execute(select(schema.api_keys)).mappings().one()
    assert row["hash"] == hash_of(shown)
    assert shown.split("_")[2] not in str(dict(row))


def test_keys_are_listed_oldest_first_revoked_ones_too(engine: Engine) -> None:
    ids = [make_key(engine, "read", now_ms=at)[0] for at in (3, 1, 2)]
    tables = KeyTables(engine)
    tables.revoke(ids[0], 9, actor="somebody")
    assert [(key.id, key.revoked_ms) for key in tables.read_all()] == [(ids[1], None), (ids[2], None), (ids[0], 9)]


def test_revoking_again_changes_nothing(engine: Engine) -> None:
    key_id, _ = make_key(engine, "read")
    tables = KeyTables(engine)
    assert tables.revoke(key_id, 5, actor="somebody").revoked_ms is None
    version = ControlTables(engine).version()
    entries = len(AuditTables(engine).page(100, None))
    assert tables.revoke(key_id, 6, actor="somebody else").revoked_ms == 5
    assert tables.read_all()[0].revoked_ms == 5
    assert ControlTables(engine).version() == version
    assert len(AuditTables(engine).page(100, None)) == entries


def test_revoking_an_unknown_key_says_so(engine: Engine) -> None:
    with pytest.raises(UnknownKey, match="there is no API key 'nobody'; see: turnout key list"):
        KeyTables(engine).revoke("nobody", 5, actor="somebody")


def test_making_and_revoking_raise_the_control_version_but_using_does_not(engine: Engine) -> None:
    control, tables = ControlTables(engine), KeyTables(engine)
    before = control.version()
    key_id, _ = make_key(engine, "read")
    assert control.version() == before + 1
    tables.record_uses({key_id: 7})
    assert control.version() == before + 1
    tables.revoke(key_id, 8, actor="somebody")
    assert control.version() == before + 2


def test_the_latest_use_stays_whoever_records_it_last(engine: Engine) -> None:
    one, other = make_key(engine, "read", now_ms=1)[0], make_key(engine, "read", now_ms=2)[0]
    tables = KeyTables(engine)
    tables.record_uses({one: 100, other: 50, "gone": 1})
    tables.record_uses({one: 90, other: 60})
    assert [key.last_used_ms for key in tables.read_all()] == [100, 60]


def test_making_and_revoking_are_audited_without_hash_or_text(engine: Engine) -> None:
    key, shown = new_key("shop", frozenset({"predict", "outcome"}), 2.5, 17)
    tables = KeyTables(engine)
    tables.create(key, actor="command line (ann)")
    tables.revoke(key.id, 18, actor="command line (bob)")
    revoked, made = AuditTables(engine).page(2, None)
    published = {"name": "shop", "scopes": ["outcome", "predict"], "rate_per_s": 2.5, "revoked": False}
    assert made[1:5] == (17, "command line (ann)", "create", f"key {key.id}")
    assert made.before is None
    assert msgspec.json.decode(made.after or "") == published
    assert revoked[1:5] == (18, "command line (bob)", "revoke", f"key {key.id}")
    assert msgspec.json.decode(revoked.before or "") == published
    assert msgspec.json.decode(revoked.after or "") == {**published, "revoked": True}
    everything = str([made, revoked])
    assert key.hash.hex() not in everything
    assert shown.split("_")[2] not in everything


def test_a_key_whose_audit_cannot_be_written_is_not_made(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("alter table audit rename to elsewhere"))
    with pytest.raises(Exception, match="audit"):
        make_key(engine, "admin")
    assert KeyTables(engine).read_all() == []


def test_a_key_of_another_time_keeps_its_fields(engine: Engine) -> None:
    key = ApiKey("a", "b", frozenset({"admin"}), bytes(32), None, time.time_ns() // 1_000_000, 5, 6)
    KeyTables(engine).create(key, actor="somebody")
    assert KeyTables(engine).read_all() == [key]
