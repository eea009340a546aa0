from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, text

from models.registry import Registry
from router.assignment.audience import Condition
from router.control import Control
from router.documents import Endpoint, Experiment
from router.errors import AlreadyExists, RevisionMismatch, UnknownEndpoint
from router.ledger.audit import AuditTables
from router.ledger.control import ControlTables
from router.ledger.rollouts import RolloutTables
from tests.router.documents import experiment

NOW_MS = 1_700_000_000_000


@pytest.fixture
def control(engine: Engine, registry: Registry) -> Control:
    """Control over an otherwise empty ledger."""
    return Control(ControlTables(engine), RolloutTables(engine), registry, lambda: NOW_MS)


def entries(engine: Engine) -> list[tuple[str, str, str, Any, Any]]:
    """Return actor, action, subject, before and after, oldest first, without those of the fixture."""
    found = AuditTables(engine).page(1000, None)[::-1]
    decode = msgspec.json.decode
    return [
        (each.actor, each.action, each.subject, each.before and decode(each.before), each.after and decode(each.after))
        for each in found
        if each.subject != "experiment first"
    ]


def document(**changes: Any) -> Experiment:
    return msgspec.convert(experiment(**{"endpoint": "arrival", **changes}), Experiment)


def test_every_control_write_is_on_record(engine: Engine, control: Control) -> None:
    control.create_endpoint(Endpoint(name="arrival", champion="sum@1"), actor="ann")
    control.replace_endpoint(Endpoint(name="arrival", champion="sum-too@1"), "1", actor="bob")
    control.create_experiment(document(), actor="ann")
    control.replace_experiment(document(traffic=0.5), "1", actor="ann")
    control.start("too-vs-sum", "2", actor="cyd")
    weights = {"kind": "split", "weights": {"control": 0.2, "too": 0.8}}
    control.replace_experiment(document(traffic=0.5, allocation=weights), "3", actor="ann")
    control.pause("too-vs-sum", "*", actor="dan")
    control.resume("too-vs-sum", "*", actor="dan")
    control.conclude("too-vs-sum", "*", actor="eve")
    found = entries(engine)
    assert [(actor, action, subject) for actor, action, subject, _, _ in found] == [
        ("ann", "create", "endpoint arrival"),
        ("bob", "replace", "endpoint arrival"),
        ("ann", "create", "experiment too-vs-sum"),
        ("ann", "replace", "experiment too-vs-sum"),
        ("cyd", "start", "experiment too-vs-sum"),
        ("ann", "replace", "experiment too-vs-sum"),
        ("dan", "pause", "experiment too-vs-sum"),
        ("dan", "resume", "experiment too-vs-sum"),
        ("eve", "conclude", "experiment too-vs-sum"),
    ]
    assert [before is None for _, _, _, before, _ in found] == [True, False, True, *[False] * 6]


def test_before_and_after_are_whole_and_follow_each_other(engine: Engine, control: Control) -> None:
    control.create_endpoint(Endpoint(name="arrival", champion="sum@1"), actor="ann")
    control.replace_endpoint(Endpoint(name="arrival", champion="sum-too@1", timeout_ms=70), "1", actor="bob")
    created, replaced = entries(engine)
    old = msgspec.to_builtins(Endpoint(name="arrival", champion="sum@1"))
    assert created[4] == replaced[3] == {"revision": 1, "document": old}
    assert replaced[4] == {"revision": 2, "document": {**old, "champion": "sum-too@1", "timeout_ms": 70}}
    control.create_experiment(document(), actor="ann")
    control.start("too-vs-sum", "1", actor="ann")
    control.pause("too-vs-sum", "2", actor="ann")
    made, started, paused = entries(engine)[2:]
    assert made[4] == started[3]
    assert started[4] == paused[3]
    states = [(each[4]["state"], each[4]["revision"], each[4]["epoch"]) for each in (made, started, paused)]
    assert states == [("draft", 1, None), ("running", 2, 1), ("paused", 3, 1)]
    assert msgspec.convert(made[4]["document"], Experiment) == document()


def test_a_write_that_fails_is_not_on_record(engine: Engine, control: Control) -> None:
    control.create_endpoint(Endpoint(name="arrival", champion="sum@1"), actor="ann")
    before = entries(engine)
    with pytest.raises(AlreadyExists):
        control.create_endpoint(Endpoint(name="arrival", champion="sum@1"), actor="ann")
    with pytest.raises(RevisionMismatch):
        control.replace_endpoint(Endpoint(name="arrival", champion="sum-too@1"), "7", actor="ann")
    with pytest.raises(RevisionMismatch):
        ControlTables(engine).replace_endpoint(Endpoint(name="arrival", champion="sum@1"), 7, NOW_MS, actor="ann")
    with pytest.raises(UnknownEndpoint):
        control.create_experiment(document(endpoint="nowhere"), actor="ann")
    assert entries(engine) == before


def test_a_write_that_cannot_be_recorded_is_not_made(engine: Engine, control: Control) -> None:
    with engine.begin() as connection:
        connection.execute(text("alter table audit rename to elsewhere"))
    with pytest.raises(Exception, match="audit"):
        control.create_endpoint(Endpoint(name="arrival", champion="sum@1"), actor="ann")
    assert control.endpoints() == []


def test_the_log_is_read_in_pages_newest_first(engine: Engine, control: Control) -> None:
    for number in range(5):
        control.create_endpoint(Endpoint(name=f"e{number}", champion="sum@1"), actor="ann")
    audit = AuditTables(engine)
    first = audit.page(2, None)
    assert [each.subject for each in first] == ["endpoint e4", "endpoint e3"]
    second = audit.page(2, first[-1].id)
    assert [each.subject for each in second] == ["endpoint e2", "endpoint e1"]
    assert audit.page(2, 1) == []


def test_documents_may_hold_what_databases_do_not(engine: Engine, control: Control) -> None:
    control.create_endpoint(Endpoint(name="arrival", champion="sum@1"), actor="ann")
    odd = Condition("a\x00b\ufffe🚂", "eq", "\x00\x7f")
    control.create_experiment(document(audience=[msgspec.to_builtins(odd)]), actor="ann")
    assert control.experiment("too-vs-sum").document.audience == [odd]
    assert entries(engine)[-1][4]["document"]["audience"][0]["value"] == "\x00\x7f"
