"""Rollouts in the ledger: a step is one transaction, and of several routers one takes it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, event, select, update

import router.ledger.shadowed
from models.registry import Registry
from router.decision_id import NO_EXPERIMENT, DecisionId
from router.documents import Rollout
from router.errors import AlreadyExists, RevisionMismatch, UnknownRollout
from router.ledger import schema
from router.ledger.audit import AuditTables
from router.ledger.batch import BatchWriter, Decide, Job, Observe, Record
from router.ledger.control_writing import Author, raise_version
from router.ledger.database import open_database, transaction, upgrade
from router.ledger.records import Observation, ShadowRow
from router.ledger.rollouts import Step, TurnTaken
from router.ledger.shadowed import Calls, Pair, Pairs, Shadowed
from router.rollout.steps import Steps
from tests.databases import BACKENDS, database
from tests.router.ledgers import NOW_MS, SIGNER, decision
from tests.router.logged import restored, rows_of
from tests.router.rolling import BETTER, CANDIDATE, CHAMPION, LAST, SPLIT, Rolling, prepare, rollout

BANDIT = {"kind": "bandit", "min_decisions": 50}
ANN = Author("ann", NOW_MS, "test")


@pytest.fixture(scope="module", params=BACKENDS)
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rolling]:
    """A ledger with the endpoint `delay`, in either database."""
    folder = tmp_path_factory.mktemp("ledger")
    registry = Registry(prepare(tmp_path_factory.mktemp("prepared")) / "registry")
    with database(request.param, folder) as url:
        engine = open_database(url)
        upgrade(engine)
        play = Rolling(engine, registry)
        play.add_endpoint()
        yield play
        engine.dispose()


@pytest.fixture
def play(ledger: Rolling) -> Iterator[Rolling]:
    """The same, as it was again after the test."""
    with restored(ledger.engine):
        yield ledger.replica()


def steps_of(play: Rolling) -> Steps:
    return Steps(play.control_tables, play.rollouts.judge, play.clock)


def everything(play: Rolling) -> dict[str, Any]:
    """Return every row of the ledger."""
    return {table.name: rows_of(play.engine, table) for table in schema.metadata.sorted_tables}


class PulledOut(Exception):
    """Somebody pulled the plug."""


class Plug:
    """Pulls itself out after so many statements that write."""

    def __init__(self, engine: Engine, after: int) -> None:
        self._engine = engine
        self._left = after
        self.pulled = False

    def __enter__(self) -> "Plug":
        event.listen(self._engine, "after_cursor_execute", self._executed)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "after_cursor_execute", self._executed)

    def _executed(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().split(None, 1)[0].lower() not in {"insert", "update", "delete"}:
            return
        self._left -= 1
        if self._left < 0:
            self.pulled = True
            raise PulledOut


def begin(play: Rolling) -> Step:
    return steps_of(play).begin(play.rollout())


def advance(play: Rolling) -> Step:
    return steps_of(play).advance(play.rollout(), "shown", ({"name": "click"},))


def roll_back(play: Rolling) -> Step:
    return steps_of(play).roll_back(play.rollout(), "breached", ({"name": "click"},))


STEPS: dict[str, tuple[int, Callable[[Rolling], Step]]] = {
    "start": (0, begin),
    "reweight": (1, advance),
    "bandit to champion": (3, advance),
    "roll back the champion": (4, roll_back),
}
"""After how many steps by hand, and which step then."""


@pytest.mark.parametrize("name", STEPS)
def test_step_happens_wholly_or_not_at_all(play: Rolling, name: str) -> None:
    taken, make = STEPS[name]
    canary = {"kind": "canary", "share": 0.1}
    play.create(stages=[canary, SPLIT, BANDIT, LAST])
    for number in range(taken):
        play.tables.apply(advance(play) if number else begin(play), ANN)
    step, before = make(play), everything(play)
    statements = 0
    while True:
        with Plug(play.engine, statements) as plug:
            try:
                play.tables.apply(step, ANN)
            except PulledOut:
                assert everything(play) == before, f"after {statements} statements"
        if not plug.pulled:
            break
        statements += 1
    assert statements >= 8
    assert play.rollout().revision == taken + 2
    changed = {table for table, rows in everything(play).items() if rows != before[table]}
    assert {"rollouts", "rollout_transitions", "experiments", "audit", "control_version"} <= changed
    if name == "roll back the champion":
        assert (play.rollout().state, play.running()) == ("rolled_back", [])
        assert play.endpoint().champion == CHAMPION


def test_routers_that_step_at_once_take_every_step_once(play: Rolling) -> None:
    stages = [{"kind": "canary", "share": 0.5, "min_decisions": 20}, SPLIT, BANDIT, LAST]
    routers = [play, play.replica()]
    play.create(stages=stages)
    gate = threading.Barrier(2)

    def look(router: Rolling) -> None:
        for _ in range(3):
            gate.wait(30)
            router.rollouts.step()

    with ThreadPoolExecutor(2) as threads:
        for _ in range(5):
            assert list(threads.map(look, routers)) == [None, None]
            if play.running():
                play.send(500, BETTER)
    assert play.rollout().state == "promoted"
    steps = play.steps()
    assert [each.number for each in steps] == list(range(1, 7))
    assert [each.stage for each in steps] == [0, 0, 1, 2, 3, 3]
    assert [each.document.name for each in play.control.experiments()] == ["new-split", "new-bandit", "new-split-2"]
    audit = [each for each in AuditTables(play.engine).page(1000, None) if each.subject == "rollout new"]
    assert Counter(each.action for each in audit) == {"create": 1, "start": 1, "advance": 4}


def test_of_two_steps_from_one_state_the_second_changes_nothing(play: Rolling) -> None:
    play.start()
    first, second = roll_back(play), advance(play)
    play.tables.apply(first, ANN)
    before = everything(play)
    with pytest.raises(RevisionMismatch, match="rollout 'new' is at revision 3, not 2"):
        play.tables.apply(second, ANN)
    assert everything(play) == before


def test_step_from_an_old_endpoint_or_experiment_changes_nothing(play: Rolling) -> None:
    play.start(stages=[LAST])
    step = roll_back(play)
    play.change_endpoint(timeout_ms=77)
    before = everything(play)
    with pytest.raises(RevisionMismatch, match="endpoint 'delay'"):
        play.tables.apply(step, ANN)
    assert everything(play) == before
    assert play.rollouts.step() is False
    play.move("rollback")
    assert (play.endpoint().champion, play.endpoint().timeout_ms) == (CHAMPION, 77)


def test_two_rollouts_of_an_endpoint_cannot_both_begin(play: Rolling) -> None:
    play.create("first")
    play.create("second")
    steps = [steps_of(play).begin(play.rollout(name)) for name in ("first", "second")]
    play.tables.apply(steps[0], ANN)
    before = everything(play)
    with pytest.raises(TurnTaken, match="rollout 'first' of endpoint 'delay' has begun meanwhile"):
        play.tables.apply(steps[1], ANN)
    assert everything(play) == before


@pytest.mark.parametrize("make", [roll_back, advance])
def test_step_waits_for_an_epoch_that_is_being_published(play: Rolling, make: Callable[[Rolling], Step]) -> None:
    play.start(stages=[BANDIT, LAST])
    step, [running] = make(play), play.running()
    table = schema.experiments
    with ThreadPoolExecutor(1) as thread:
        # The order in which a bandit's publisher locks its rows.
        with transaction(play.engine) as connection:
            connection.execute(update(table).where(table.c.id == running.id).values(state="running"))
            applied = thread.submit(play.tables.apply, step, ANN)
            with pytest.raises(TimeoutError):
                applied.result(0.3)
            raise_version(connection, play.now_ms)
        applied.result(20)
    assert play.rollout().revision == 3


def test_name_of_an_experiment_that_is_taken_meanwhile_is_left_alone(play: Rolling) -> None:
    play.create()
    step = begin(play)
    document = msgspec.structs.replace(step.begun[0].document, traffic=0.5)
    play.control.create_experiment(document, actor="ann")
    with pytest.raises(AlreadyExists):
        play.tables.apply(step, ANN)
    assert play.rollouts.step()
    assert play.rollout().experiments == ("new-split-2",)


def test_rollouts_are_found_by_state_and_name(play: Rolling) -> None:
    play.create("first")
    play.create("second")
    play.rollouts.step()
    assert [each.document.name for each in play.tables.rollouts()] == ["first", "second"]
    assert [each.document.name for each in play.tables.rollouts({"waiting"})] == ["second"]
    found = play.tables.rollout("second")
    assert msgspec.convert(rollout("second"), Rollout) == found.document
    assert (found.champion, found.stage_ms, found.ended_ms, found.experiments) == (None, None, None, ())
    with pytest.raises(AlreadyExists, match="rollout 'first' exists already"):
        play.create("first")
    with pytest.raises(UnknownRollout, match="known rollouts: first, second"):
        play.tables.rollout("third")
    assert (owner := play.tables.owner("first-split")) is not None
    assert owner.document.name == "first"
    play.move("rollback", "first")
    assert play.tables.owner("first-split") is None


def test_scale_of_a_metric_is_fixed_by_who_comes_first(play: Rolling) -> None:
    assert play.tables.scale(1, "click", 0.25) == 0.25
    assert play.tables.scale(1, "click", 0.5) == 0.25
    assert play.replica().tables.scale(1, "click", 0.5) == 0.25
    assert play.tables.scale(2, "click", 0.5) == 0.5


def test_scale_is_fixed_once_by_looks(play: Rolling) -> None:
    play.start()
    play.send(100)
    play.rollouts.step()
    with play.engine.connect() as connection:
        first = connection.execute(select(schema.evidence_scales)).all()
    assert [row.metric for row in first] == ["click"]
    play.send(300, BETTER)
    play.rollouts.step()
    with play.engine.connect() as connection:
        assert connection.execute(select(schema.evidence_scales)).all() == first


def test_calls_and_pairs_of_a_shadow(play: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(at_ms: int, predictions: str = "[0.5]", endpoint: str = "delay") -> Any:
        made = decision(predictions, unit=f"u{at_ms}")
        content = DecisionId(at_ms, NO_EXPERIMENT, 0, 0, 10_000, bytes(8))
        return made._replace(
            id=SIGNER.sign(content), decided_ms=at_ms, endpoint=endpoint, experiment_id=None, epoch=None, arm=None
        )

    def seen(row: Any, predictions: str | None, model: str = CANDIDATE) -> Record:
        return Record((ShadowRow(row.id, model, predictions, None if predictions else "broken", 1.0, NOW_MS),))

    def late(row: Any, value: float | None, item: int = 0, version: int = 0) -> Observe:
        return Observe((Observation(row.id, "late", item, "", version, value, None, None, NOW_MS, dated=True),))

    since = NOW_MS + 1000
    before, good, two, corrected, retracted, broken, foreign, other = (
        row(since - 1),
        row(since),
        row(since + 1, "[0.5,0.6]"),
        row(since + 2),
        row(since + 3),
        row(since + 4),
        row(since + 5),
        row(since + 6, endpoint="other"),
    )
    jobs: list[Job] = [Decide(each, None) for each in (before, good, two, corrected, retracted, broken, foreign, other)]
    jobs += [seen(each, "[0.9]") for each in (before, good, corrected, retracted, other)]
    jobs += [seen(two, "[0.8,0.7]"), seen(broken, None), seen(foreign, "[0.1]", "sum-third@1")]
    jobs += [late(each, 1.0) for each in (before, good, corrected, retracted, broken, foreign, other)]
    jobs += [late(two, 0.0, item=1), late(corrected, 0.0, version=1), late(retracted, None, version=1)]
    with transaction(play.engine) as connection:
        BatchWriter(play.clock).write(connection, jobs)
    shadow = Shadowed("delay", CANDIDATE, good.served_model, since)
    expected = [
        Pair(good.unit, 1.0, 0.5, 0.9),
        Pair(two.unit, 0.0, 0.6, 0.7),
        Pair(corrected.unit, 0.0, 0.5, 0.9),
    ]
    assert play.tables.shadow_pairs(shadow, "late") == Pairs(expected, cut=False)
    monkeypatch.setattr(router.ledger.shadowed, "MOST_LABELS", 2)
    assert play.tables.shadow_pairs(shadow, "late") == Pairs(expected[:2], cut=True)
    assert play.tables.shadow_calls(shadow) == Calls(asked=5, failed=1)
    assert play.tables.shadow_calls(shadow._replace(endpoint="other")) == Calls(asked=1, failed=0)
    assert play.tables.shadow_calls(shadow._replace(model="sum-third@1")) == Calls(asked=1, failed=0)
    assert play.tables.shadow_calls(shadow._replace(champion="sum-third@1")) == Calls(0, 0)
    assert play.tables.shadow_calls(shadow._replace(since_ms=since + 10**6)) == Calls(0, 0)
