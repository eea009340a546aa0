"""Candidates on their way to champion and back, on real tables, with a clock of the test's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert

import router.ledger.shadowed
from router.assignment.epochs import dump_runs, fresh
from router.decision_id import FORCED
from router.documents import AnyMetric, Arm, Experiment, Split
from router.errors import Conflict, RevisionMismatch
from router.ledger import schema
from router.ledger.control_writing import Author, Change
from router.ledger.evidence import BEFORE
from router.ledger.rollouts import RolloutTables, Step
from tests.metrics import BRIER
from tests.router.rolling import (
    ALIKE,
    BETTER,
    CANDIDATE,
    CHAMPION,
    CLICK,
    LAST,
    SPLIT,
    WORSE,
    Rolling,
)

THIRD = "sum-third@1"
SHADOW = {"kind": "shadow", "min_decisions": 50}
CANARY = {"kind": "canary", "share": 0.1, "min_decisions": 20}


def state(play: Rolling, name: str = "new") -> tuple[str, int]:
    found = play.rollout(name)
    return found.state, found.stage


def assert_taken_out(play: Rolling, why: str) -> None:
    """Check that nobody gets the candidate, and that the reason and its numbers are kept."""
    assert play.rollout().state == "rolled_back"
    assert (play.endpoint().champion, play.endpoint().shadows) == (CHAMPION, [])
    assert play.running() == []
    assert play.share() == 0
    last = play.steps()[-1]
    assert why in last.reason
    assert last.actor == "controller"
    assert any(each["verdict"] in {"breached", "worse"} for each in msgspec.json.decode(last.findings))


def test_better_candidate_walks_to_champion(play: Rolling) -> None:
    play.change_endpoint(shadows=[THIRD])
    play.create(metrics=[{**BRIER, "role": "guardrail", "margin": 0.1}, CLICK], stages=[SHADOW, CANARY, SPLIT, LAST])
    assert state(play) == ("waiting", 0)
    assert not play.endpoint().shadows.count(CANDIDATE)
    assert play.rollouts.step()
    assert state(play) == ("running", 0)
    assert (play.endpoint().shadows, play.share()) == ([THIRD, CANDIDATE], 0)
    assert not play.rollouts.step()
    play.shadow(60)
    assert play.rollouts.step()
    assert (state(play), play.endpoint().shadows) == (("running", 1), [THIRD])
    assert (play.share(), play.endpoint().champion) == (0.1, CHAMPION)
    truth = {"late": ALIKE}
    play.send(400, BETTER, also=truth)
    assert play.rollouts.step()
    assert (state(play), play.share()) == (("running", 2), 0.5)
    # One experiment for all shares of a split, so that units stay where they are.
    assert [each.document.name for each in play.running()] == ["new-split"]
    play.send(500, BETTER, also=truth)
    assert play.rollouts.step()
    assert (state(play), play.share()) == (("running", 3), 0.95)
    assert play.endpoint().champion == CANDIDATE
    play.send(200, BETTER, also=truth)
    assert play.rollouts.step()
    assert (state(play), play.share()) == (("promoted", 3), 1.0)
    assert (play.endpoint().champion, play.endpoint().shadows) == (CANDIDATE, [THIRD])
    assert play.running() == []
    assert not play.rollouts.step()
    found = play.rollout()
    assert (found.ended_ms, found.champion, found.experiments) == (play.now_ms, CHAMPION, ("new-split",))
    steps = play.steps()
    assert [each.number for each in steps] == [1, 2, 3, 4, 5, 6]
    assert [each.action for each in steps] == ["create", "start", *["advance"] * 4]
    assert [each.stage for each in steps] == [0, 0, 1, 2, 3, 3]
    better = {each["name"]: each for each in msgspec.json.decode(steps[4].findings)}
    assert better["click"]["verdict"] == "better"
    assert better["click"]["low"] > 0
    assert {"brier", "click", "errors", "sample_ratio"} == set(better)


BAD: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "worse": ("click", {}, {"clicks": WORSE}),
    "failing": ("errors", {}, {"failed": {"candidate": 0.3}}),
    "slow": (
        "latency",
        {"guardrails": {"latency": {"limit_ms": 50, "margin": 0.02}}},
        {"slow": {"candidate": 0.3}},
    ),
    "lossy": ("sample ratio", {}, {"lost": {"candidate": 0.5}}),
    "harmful": (
        "spend",
        {
            "metrics": [
                CLICK,
                {"name": "spend", "kind": "numeric", "direction": "increase", "role": "guardrail", "margin": 0.05},
            ]
        },
        {"also": {"spend": WORSE}},
    ),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("stage", [SPLIT, LAST])
def test_bad_candidate_is_rolled_back(play: Rolling, kind: str, stage: dict[str, Any]) -> None:
    why, changes, traffic = BAD[kind]
    stages = [stage] if stage is LAST else [stage, LAST]
    play.start(**{"stages": [{**each, "min_decisions": 10**6} for each in stages], **changes})
    play.send(60, BETTER if kind == "worse" else ALIKE)
    assert not play.rollouts.step()
    assert play.endpoint().champion == (CANDIDATE if stage is LAST else CHAMPION)
    play.send(1500 if stage is SPLIT else 2500, **{"clicks": ALIKE, **traffic})
    assert play.rollouts.step()
    assert_taken_out(play, why)
    assert play.steps()[-1].stage == 0
    assert not play.rollouts.step()


def test_bad_shadow_answers_nobody(play: Rolling) -> None:
    play.start(metrics=[BRIER], stages=[{**SHADOW, "min_decisions": 10**6}, SPLIT, LAST])
    play.shadow(600, truth=0.9, said=0.1)
    assert play.rollouts.step()
    assert_taken_out(play, "brier")
    assert play.rollout().experiments == ()


def test_shadow_is_compared_with_what_the_champion_answered(play: Rolling) -> None:
    """Neither with the arms of other experiments nor with what somebody tests by hand."""
    play.start(metrics=[BRIER], stages=[{**SHADOW, "min_decisions": 10**6}, SPLIT, LAST])
    others: list[dict[str, Any]] = [
        {"served_model": THIRD, "experiment_id": 7, "epoch": 1, "arm": 1},
        {"served_model": CHAMPION, "experiment_id": 7, "epoch": FORCED, "arm": 0},
    ]
    for decided in others:
        play.shadow(600, truth=0.9, said=0.1, failed=0.3, **decided)
        assert not play.rollouts.step()
    found = {each.name: each.candidate_n for each in play.rollouts.judge.stage(play.rollout()).findings}
    assert (found["brier"], found["errors"]) == (0, 0)
    play.shadow(600, truth=0.9, said=0.1, experiment_id=7, epoch=1, arm=0)
    assert play.rollouts.step()
    assert_taken_out(play, "brier")


def test_shadow_whose_labels_are_all_read_waits_for_a_person(play: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.ledger.shadowed, "MOST_LABELS", 100)
    play.start(metrics=[BRIER], stages=[{**SHADOW, "advance": "better"}, LAST], guardrails={"errors": 0.3})
    play.shadow(99, truth=0.5, said=0.55)
    assert not play.rollouts.step()
    play.shadow(1, truth=0.5, said=0.55)
    for _ in range(2):
        assert play.rollouts.step()
        assert state(play) == ("held", 0)
        assert play.steps()[-1].reason.startswith("a shadow is compared on its first ")
        assert "not shown yet to be better: brier" in play.steps()[-1].reason
        play.move("resume")
    # Whoever fails is still found out.
    play.move("hold")
    play.shadow(200, failed=0.9)
    assert play.rollouts.step()
    assert_taken_out(play, "errors")


def test_shadow_that_has_shown_enough_waits_for_its_time_alone(play: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.ledger.shadowed, "MOST_LABELS", 100)
    play.start(metrics=[BRIER], stages=[{**SHADOW, "min_s": 60}, LAST])
    play.shadow(300)
    assert not play.rollouts.step()
    play.wait(60)
    assert play.rollouts.step()
    assert state(play) == ("running", 1)


def test_failing_shadow_answers_nobody(play: Rolling) -> None:
    play.start(stages=[SHADOW, SPLIT, LAST])
    play.shadow(60, failed=0.5)
    assert play.rollouts.step()
    assert_taken_out(play, "errors")


class Meanwhile:
    """Does something once, after the next step has been worked out and before it is applied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, does: Callable[[], object]) -> None:
        self._left = [does]
        apply = RolloutTables.apply

        def late(tables: RolloutTables, step: Step, author: Author) -> None:
            while self._left:
                self._left.pop()()
            apply(tables, step, author)

        monkeypatch.setattr(RolloutTables, "apply", late)


@pytest.fixture
def about_to_advance(play: Rolling, monkeypatch: pytest.MonkeyPatch) -> Rolling:
    """A rollout whose next stage another router enters while somebody moves it here."""
    play.start(stages=[CANARY, SPLIT, LAST])
    play.send(400, BETTER)
    Meanwhile(monkeypatch, play.replica().rollouts.step)
    return play


def test_rollback_of_whatever_there_is_does_not_lose_against_the_controller(about_to_advance: Rolling) -> None:
    found = about_to_advance.rollouts.move("new", "rollback", "*", actor="ann")
    assert (found.state, found.stage, about_to_advance.running()) == ("rolled_back", 1, [])


def test_rollback_of_an_experiment_does_not_lose_against_the_controller(about_to_advance: Rolling) -> None:
    found = about_to_advance.rollouts.roll_back_experiment("new-split", "*", actor="ann")
    assert (found.state, state(about_to_advance)) == ("concluded", ("rolled_back", 1))


def test_move_from_a_revision_that_is_gone_names_what_was_addressed(about_to_advance: Rolling) -> None:
    with pytest.raises(RevisionMismatch, match="rollout 'new' is at revision 3, not 2"):
        about_to_advance.rollouts.move("new", "rollback", '"2"', actor="ann")
    assert state(about_to_advance) == ("running", 1)


def test_rollback_of_an_experiment_from_a_revision_that_is_gone_names_it(about_to_advance: Rolling) -> None:
    revision = about_to_advance.running()[0].revision
    with pytest.raises(RevisionMismatch, match=f"experiment 'new-split' is at revision {revision + 1}, not {revision}"):
        about_to_advance.rollouts.roll_back_experiment("new-split", f'"{revision}"', actor="ann")
    assert state(about_to_advance) == ("running", 1)


def test_advance_of_whatever_there_is_takes_one_step_only(about_to_advance: Rolling) -> None:
    with pytest.raises(RevisionMismatch, match="rollout 'new' is at revision 3, not 2"):
        about_to_advance.rollouts.move("new", "advance", "*", actor="ann")
    assert state(about_to_advance) == ("running", 1)


def test_endpoint_that_changes_meanwhile_keeps_nobody_from_moving_a_rollout(
    play: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    play.start(stages=[LAST])
    Meanwhile(monkeypatch, lambda: play.change_endpoint(timeout_ms=77))
    found = play.rollouts.move("new", "rollback", '"2"', actor="ann")
    assert (found.state, play.endpoint().champion, play.endpoint().timeout_ms) == ("rolled_back", CHAMPION, 77)


def test_rollback_of_an_experiment_that_has_ended_leaves_its_rollout_alone(play: Rolling) -> None:
    play.start(stages=[CANARY, {"kind": "bandit"}, LAST])
    play.move("advance")
    assert play.rollout().experiments == ("new-split", "new-bandit")
    with pytest.raises(Conflict, match="cannot roll back experiment 'new-split': it is concluded"):
        play.rollouts.roll_back_experiment("new-split", "*", actor="ann")
    assert state(play) == ("running", 1)
    play.rollouts.roll_back_experiment("new-bandit", "*", actor="ann")
    assert state(play) == ("rolled_back", 1)


def test_rollback_from_the_last_stage_restores_the_champion_and_leaves_other_shadows(play: Rolling) -> None:
    play.change_endpoint(shadows=[THIRD])
    play.start(stages=[LAST])
    assert play.endpoint().champion == CANDIDATE
    play.send(1500, failed={"candidate": 0.3})
    assert play.rollouts.step()
    assert (play.endpoint().champion, play.endpoint().shadows) == (CHAMPION, [THIRD])
    assert play.rollout().state == "rolled_back"


def test_no_data_is_neither_an_advance_nor_a_rollback(play: Rolling) -> None:
    nothing = {"min_decisions": 0, "advance": "unharmed"}
    play.start(stages=[{**SPLIT, **nothing}, {**LAST, **nothing}])
    play.wait(10**6)
    assert not play.rollouts.step()
    reasons = play.rollouts.judge.stage(play.rollout()).reasons
    assert reasons == (
        "no decision of the candidate so far",
        "not judged yet: click: too few values so far, 0 and 0 values",
    )
    play.send(20, ALIKE)
    assert not play.rollouts.step()
    play.send(100, ALIKE)
    assert play.rollouts.step()
    assert state(play) == ("running", 1)


def test_stage_lasts_at_least_its_time_and_its_decisions(play: Rolling) -> None:
    play.start(stages=[{**CANARY, "min_s": 60}, {**CANARY, "share": 0.5}, LAST])
    play.send(300)
    assert not play.rollouts.step()
    assert play.rollouts.judge.stage(play.rollout()).reasons == ("0 of 60 seconds in this stage",)
    play.wait(60)
    assert play.rollouts.step()
    assert state(play) == ("running", 1)
    # Those of the stage before do not count, but what they showed does.
    assert not play.rollouts.step()
    [reason] = play.rollouts.judge.stage(play.rollout()).reasons
    assert reason == "0 of 20 decisions of the candidate in this stage"
    play.send(100)
    assert play.rollouts.step()
    assert state(play) == ("running", 2)


@pytest.mark.parametrize(("otherwise", "expected"), [("hold", "held"), ("rollback", "rolled_back")])
@pytest.mark.parametrize("first", [SHADOW, SPLIT])
def test_stage_without_a_verdict_ends(play: Rolling, first: dict[str, Any], otherwise: str, expected: str) -> None:
    play.start(stages=[{**first, "max_s": 600, "otherwise": otherwise}, LAST])
    play.wait(599)
    assert not play.rollouts.step()
    play.wait(1)
    assert play.rollouts.step()
    assert state(play) == (expected, 0)
    assert play.steps()[-1].reason.startswith("no verdict within 600 s: 0 of 50 decisions")
    assert not play.rollouts.step()
    if expected == "held":
        play.move("resume")
        assert not play.rollouts.step()
        assert state(play) == ("running", 0)


def test_held_rollout_keeps_its_share_and_still_goes_back(play: Rolling) -> None:
    play.start()
    play.move("hold")
    play.send(600, BETTER)
    assert not play.rollouts.step()
    assert (state(play), play.share()) == (("held", 0), 0.5)
    play.send(800, BETTER, failed={"candidate": 0.5})
    assert play.rollouts.step()
    assert_taken_out(play, "errors")


def test_resumed_rollout_keeps_its_evidence(play: Rolling) -> None:
    play.start()
    play.send(600, BETTER)
    play.move("hold")
    play.wait(3600)
    play.move("resume")
    assert play.rollouts.step()
    assert state(play) == ("running", 1)
    assert [each.actor for each in play.steps()[2:]] == ["ann", "ann", "controller"]


def test_resumed_shadow_keeps_its_evidence(play: Rolling) -> None:
    play.start(stages=[SHADOW, SPLIT, LAST])
    play.shadow(45)
    play.wait(10)
    play.move("hold")
    play.move("resume")
    assert not play.rollouts.step()
    play.shadow(5)
    assert play.rollouts.step()
    assert state(play) == ("running", 1)


def test_advance_by_hand_asks_for_no_evidence(play: Rolling) -> None:
    play.start(stages=[SHADOW, CANARY, LAST])
    assert state(play) == ("running", 0)
    play.move("advance")
    assert (state(play), play.share(), play.endpoint().shadows) == (("running", 1), 0.1, [])
    play.move("hold")
    play.move("advance")
    assert (state(play), play.endpoint().champion) == (("running", 2), CANDIDATE)
    play.move("advance")
    assert (state(play), play.share()) == (("promoted", 2), 1.0)


def test_rollback_by_hand(play: Rolling) -> None:
    play.start(stages=[LAST])
    play.move("rollback")
    assert (play.rollout().state, play.endpoint().champion, play.share()) == ("rolled_back", CHAMPION, 0)
    assert (play.steps()[-1].actor, play.steps()[-1].reason) == ("ann", "rollback by hand")


def test_next_rollout_waits_and_begins_beside_the_new_champion(play: Rolling) -> None:
    play.create("first", stages=[LAST])
    play.create("second", candidate=THIRD)
    play.create("third", candidate=CANDIDATE)
    play.rollouts.step()
    assert [state(play, name)[0] for name in ("first", "second", "third")] == ["running", "waiting", "waiting"]
    play.move("hold", "first")
    play.rollouts.step()
    assert state(play, "second")[0] == "waiting"
    play.move("advance", "first")
    play.rollouts.step()
    assert (play.rollout("second").state, play.rollout("second").champion) == ("running", CANDIDATE)
    assert [arm.model for arm in play.running()[0].document.arms] == [CANDIDATE, THIRD]
    play.move("rollback", "second")
    play.rollouts.step()
    # It is the champion already.
    assert play.rollout("third").state == "rolled_back"
    assert "it cannot begin any more" in play.steps("third")[-1].reason
    assert "is the champion of endpoint 'delay' already" in play.steps("third")[-1].reason
    assert play.endpoint().champion == CANDIDATE


def test_candidate_that_does_not_fit_when_its_turn_comes_changes_nothing(play: Rolling, prepared: Path) -> None:
    play.change_endpoint(shadows=[CANDIDATE])
    play.create()
    play.change_endpoint(champion=CANDIDATE)
    revision = play.control.endpoint("delay").revision
    assert play.rollouts.step()
    assert (play.rollout().state, play.rollout().champion) == ("rolled_back", None)
    assert play.control.endpoint("delay").revision == revision
    assert play.endpoint().shadows == [CANDIDATE]


def test_registry_that_is_away_ends_no_rollout(play: Rolling, prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    play.create()
    away = prepared / "away"
    (prepared / "registry").rename(away)
    try:
        for _ in range(3):
            assert not play.rollouts.step()
        (prepared / "registry").mkdir()
        assert not play.rollouts.step()
        (prepared / "registry").rmdir()
        # Once for an outage.
        [said] = caplog.records
        assert "rollout 'new' stays where it is until it can be checked: " in said.getMessage()
        assert said.exc_info is None
    finally:
        away.rename(prepared / "registry")
    assert play.rollout().state == "waiting"
    assert play.rollouts.step()
    assert play.rollout().state == "running"


def test_rollout_held_before_its_turn_steps_aside(play: Rolling) -> None:
    play.create("first")
    play.create("second", candidate=THIRD)
    play.move("hold", "first")
    play.wait(10**6)
    play.rollouts.step()
    assert [state(play, name)[0] for name in ("first", "second")] == ["held", "running"]
    assert play.rollouts.judge.stage(play.rollout("first")).verdict == "insufficient"
    with pytest.raises(Conflict, match="it has not begun"):
        play.move("advance", "first")
    play.move("resume", "first")
    play.rollouts.step()
    assert state(play, "first")[0] == "waiting"
    play.move("rollback", "second")
    play.rollouts.step()
    assert state(play, "first")[0] == "running"


def test_waiting_rollout_can_be_rolled_back(play: Rolling) -> None:
    play.create()
    play.move("rollback")
    assert not play.rollouts.step()
    assert (play.rollout().state, play.endpoint().champion) == ("rolled_back", CHAMPION)


def test_endpoints_do_not_wait_for_each_other(play: Rolling) -> None:
    play.add_endpoint("other")
    play.create("here")
    play.create("there", endpoint="other")
    play.rollouts.step()
    assert [state(play, name)[0] for name in ("here", "there")] == ["running", "running"]
    play.send(800, failed={"candidate": 0.6}, endpoint="other")
    play.rollouts.step()
    assert [state(play, name)[0] for name in ("here", "there")] == ["running", "rolled_back"]
    assert (play.share(), play.share("other")) == (0.5, 0)


def test_shadow_of_two_endpoints_is_judged_by_each_alone(play: Rolling) -> None:
    play.add_endpoint("other")
    for endpoint in ("delay", "other"):
        play.create(endpoint, endpoint=endpoint, stages=[SHADOW, LAST])
    play.rollouts.step()
    play.shadow(60, failed=0.5, endpoint="other")
    play.rollouts.step()
    assert [state(play, name) for name in ("delay", "other")] == [("running", 0), ("rolled_back", 0)]


def test_rollout_that_cannot_be_judged_does_not_stop_the_others(
    play: Rolling, caplog: pytest.LogCaptureFixture
) -> None:
    play.add_endpoint("other")
    play.create("broken")
    play.create("fine", endpoint="other")
    play.rollouts.step()
    play.send(700, BETTER, endpoint="other")
    with play.engine.begin() as connection:
        row = {"experiment_id": 1, "arm": 0, "metric": "click", "minute": 0, "shard": 0, "sums": b"short"}
        connection.execute(insert(schema.evidence).values(**row))
    assert play.rollouts.step()
    assert [state(play, name) for name in ("broken", "fine")] == [("running", 0), ("running", 1)]
    assert "cannot take the next step of rollout 'broken'" in caplog.text
    # A person still can.
    play.move("rollback", "broken")
    assert play.rollout("broken").state == "rolled_back"


@pytest.mark.parametrize("verb", ["pause", "resume", "conclude"])
def test_experiment_of_a_rollout_cannot_be_moved_by_hand(play: Rolling, verb: str) -> None:
    play.start()
    with pytest.raises(Conflict, match="is run by rollout 'new': hold, advance or roll that one back"):
        getattr(play.control, verb)("new-split", "*", actor="ann")
    document = msgspec.structs.replace(play.running()[0].document, traffic=0.5)
    with pytest.raises(Conflict, match="is run by rollout 'new'"):
        play.control.replace_experiment(document, "*", actor="ann")
    play.move("rollback")
    with pytest.raises(Conflict, match="it is concluded"):
        play.control.conclude("new-split", "*", actor="ann")


def test_rollout_whose_experiment_was_stopped_is_held_until_it_is_resumed(play: Rolling) -> None:
    play.start()
    play.send(300, BETTER)
    [record] = play.running()
    # As another program might.
    stopped = Change(record.document, "concluded", record.started_ms, play.now_ms)
    play.control_tables.change_experiment(record, stopped, play.now_ms, actor="ann", action="conclude")
    assert play.rollouts.step()
    assert state(play) == ("held", 0)
    assert "'new-split' is concluded: resume the rollout" in play.steps()[-1].reason
    assert not play.rollouts.step()
    play.move("resume")
    assert [each.document.name for each in play.running()] == ["new-split-2"]
    play.send(300, BETTER)
    # What the first one showed counts, too.
    assert play.rollouts.step()
    assert state(play) == ("running", 1)


def test_other_champion_holds_the_rollout(play: Rolling) -> None:
    play.start()
    play.send(600, BETTER)
    play.change_endpoint(champion=THIRD)
    assert play.rollouts.step()
    assert state(play) == ("held", 0)
    assert f"'{THIRD}' has become champion of endpoint 'delay'" in play.steps()[-1].reason
    for by in ("resume", "advance"):
        with pytest.raises(Conflict, match="roll this rollout back and create a new one"):
            play.move(by)
    play.send(600, failed={"candidate": 0.6})
    assert play.rollouts.step()
    assert (play.rollout().state, play.endpoint().champion, play.running()) == ("rolled_back", THIRD, [])


def test_shadow_that_was_taken_out_is_put_back_by_resume(play: Rolling) -> None:
    play.start(stages=[SHADOW, LAST])
    play.shadow(30)
    play.change_endpoint(shadows=[])
    assert play.rollouts.step()
    assert state(play) == ("held", 0)
    play.move("resume")
    assert (state(play), play.endpoint().shadows) == (("running", 0), [CANDIDATE])
    play.shadow(20)
    play.rollouts.step()
    assert state(play) == ("running", 1)


def test_nobody_is_promoted_whom_somebody_has_taken_out(play: Rolling) -> None:
    play.start(stages=[LAST])
    play.send(800, BETTER)
    play.change_endpoint(champion=CHAMPION)
    play.rollouts.step()
    assert state(play) == ("held", 0)
    with pytest.raises(Conflict, match="no longer"):
        play.move("advance")
    play.move("resume")
    assert (play.endpoint().champion, play.share()) == (CANDIDATE, 0.95)
    play.send(100, BETTER)
    play.rollouts.step()
    assert play.rollout().state == "promoted"


def test_other_router_goes_on_where_this_one_was(play: Rolling) -> None:
    play.start(stages=[CANARY, SPLIT, LAST])
    for expected in (1, 2):
        play.send(900, BETTER)
        # Nothing is kept in memory: every look may be another process's.
        assert play.replica().rollouts.step()
        assert state(play) == ("running", expected)
    assert play.rollouts.step() is False
    assert [each.number for each in play.steps()] == [1, 2, 3, 4]


def test_bandit_adds_to_what_a_split_has_shown(play: Rolling) -> None:
    bandit = {"kind": "bandit", "min_decisions": 20, "floor": 0.1}
    canary = {**CANARY, "share": 0.5}
    play.start(stages=[canary, bandit, LAST])
    play.send(240, BETTER)
    assert play.rollouts.step()
    [running] = play.running()
    assert (running.document.name, running.document.randomise) == ("new-bandit", "request")
    assert running.epoch is not None
    assert running.epoch.basis is not None
    play.send(240, BETTER)
    alone = play.rollouts.judge.experiment("new-bandit")
    both = play.rollouts.judge.stage(play.rollout())
    assert both.verdict == "advance"
    seen = [
        {each.name: each.candidate_n for each in found.findings if each.scope == "rollout"}["click"]
        for found in (alone, both)
    ]
    assert seen[1] - seen[0] > 80
    assert play.rollouts.step()
    assert play.control.experiment("new-bandit").state == "concluded"
    assert [each.document.name for each in play.running()] == ["new-split-2"]
    play.send(100, BETTER)
    assert play.rollouts.step()
    assert (play.rollout().state, play.running()) == ("promoted", [])
    assert play.rollout().experiments == ("new-split", "new-bandit", "new-split-2")


RANKED: dict[str, Any] = {"endpoint": "ranked", "stages": [{"kind": "interleave", "min_decisions": 50}, LAST]}


def test_interleaving_shows_who_earns_more(play: Rolling) -> None:
    play.add_endpoint("ranked", kind="rank")
    play.start(**RANKED)
    assert play.running("ranked")[0].document.name == "new-interleave"
    play.mix(30)
    assert not play.rollouts.step()
    play.mix(400)
    assert play.rollouts.step()
    assert state(play) == ("running", 1)
    assert play.endpoint("ranked").champion == CANDIDATE
    click = {each["name"]: each for each in msgspec.json.decode(play.steps()[-1].findings)}["click"]
    assert (click["verdict"], click["candidate"] > 0.7) == ("better", True)


def test_what_a_stage_does_not_measure_is_said(play: Rolling) -> None:
    play.add_endpoint("ranked", kind="rank")
    latency = {"guardrails": {"errors": 0.1, "latency": {"limit_ms": 50}}}
    play.start("mixed", **RANKED, **latency)
    spend = {"name": "spend", "kind": "numeric", "direction": "increase", "role": "guardrail", "margin": 1}
    play.start("shadowed", stages=[SHADOW, LAST], metrics=[BRIER, spend], **latency)
    for name, expected in (("mixed", {"latency"}), ("shadowed", {"latency", "spend"})):
        findings = play.rollouts.judge.stage(play.rollout(name)).findings
        unknown = {each.name: each for each in findings if each.verdict == "not_measured"}
        assert unknown.keys() == expected | {"sample_ratio"}
        assert all("not measured" in each.text for each in unknown.values())


@pytest.mark.parametrize(("traffic", "why"), [({"credit": WORSE}, "click"), ({"failed": 0.5}, "errors")])
def test_interleaving_finds_out_who_is_worse_or_fails(play: Rolling, traffic: dict[str, Any], why: str) -> None:
    play.add_endpoint("ranked", kind="rank")
    play.start(**RANKED)
    play.mix(400, **traffic)
    assert play.rollouts.step()
    assert (play.rollout().state, play.running("ranked")) == ("rolled_back", [])
    assert why in play.steps()[-1].reason


def test_champion_without_a_control_is_promoted_at_once(play: Rolling) -> None:
    play.start(stages=[SPLIT, {**LAST, "control_share": 0, "min_s": 3600}])
    play.send(700, BETTER)
    assert play.rollouts.step()
    assert (state(play), play.endpoint().champion, play.running()) == (("promoted", 1), CANDIDATE, [])
    # Whoever asks afterwards is answered.
    play.rollouts.judge.stage(play.rollout())


def test_nothing_is_judged_where_a_champion_never_had_a_control(play: Rolling) -> None:
    play.start(stages=[{**LAST, "control_share": 0}])
    assert play.rollout().state == "promoted"
    assert play.rollouts.judge.stage(play.rollout()).verdict == "insufficient"


def test_metric_with_a_default_counts_once_its_window_has_closed(play: Rolling) -> None:
    play.start(metrics=[{**CLICK, "default": 0, "window_s": 600}])
    play.send(600, BETTER)
    play.wait(590)
    assert not play.rollouts.step()
    [click] = [each for each in play.rollouts.judge.stage(play.rollout()).findings if each.name == "click"]
    assert (click.verdict, click.candidate_n) == ("insufficient", 0)
    play.wait(70)
    play.rollouts.judge.close_windows()
    assert play.rollouts.step()
    assert state(play) == ("running", 1)


def test_guardrail_that_is_never_touched_is_kept(play: Rolling) -> None:
    complaint = {"name": "complaint", "kind": "binary", "direction": "decrease", "role": "guardrail", "margin": 0.05}
    play.start(metrics=[CLICK, complaint])
    play.send(700, BETTER, also={"complaint": {}})
    assert play.rollouts.step()
    assert state(play) == ("running", 1)


def test_ramp_through_an_outage_of_everybody_is_no_breach(play: Rolling) -> None:
    play.start(stages=[{**CANARY, "share": 0.02}, {**SPLIT, "min_decisions": 10**6}, LAST])
    play.send(3000)
    assert play.rollouts.step()
    play.send(500, failed={"control": 0.4, "candidate": 0.4})
    assert not play.rollouts.step()
    found = [each for each in play.rollouts.judge.stage(play.rollout()).findings if each.name == "errors"]
    assert [each.scope for each in found] == ["rollout", "stage"]
    for errors in found:
        assert errors.control == pytest.approx(errors.candidate, abs=0.1)


def test_arms_that_had_no_share_at_some_time_are_not_compared(play: Rolling) -> None:
    arms = [Arm(name=name, model=CHAMPION) for name in ("control", "a", "late")]
    weights = {"control": 0.5, "a": 0.5, "late": 0.0}
    metrics = msgspec.convert([CLICK], list[AnyMetric])
    document = Experiment(name="three", endpoint="delay", arms=arms, allocation=Split(weights=weights), metrics=metrics)
    play.control.create_experiment(document, actor="ann")
    play.control.start("three", "*", actor="ann")

    def publish(numbers: range, counts: dict[int, int]) -> None:
        runs = dump_runs(fresh(counts))
        row = {"experiment_id": 1, "runs": runs, "traffic": 10_000, "reason": "look", "published_ms": play.now_ms}
        with play.engine.begin() as connection:
            connection.execute(insert(schema.epochs), [{**row, "epoch": number} for number in numbers])

    def apart(arm: str) -> bool:
        return "had no share in some epoch" in "; ".join(play.rollouts.judge.experiment("three", arm).reasons)

    # As a bandit does in a quarter of an hour.
    publish(range(2, 1102), {0: 4000, 1: 3000, 2: 3000})
    assert (apart("a"), apart("late")) == (False, True)
    publish(range(1102, 1103), {0: 5000, 2: 5000})
    publish(range(1103, 1104), {0: 4000, 1: 3000, 2: 3000})
    assert (apart("a"), apart("late")) == (True, True)


def test_experiment_that_began_before_evidence_did_has_no_verdict(play: Rolling) -> None:
    play.start()
    play.send(700, BETTER)
    assert play.rollouts.judge.experiment("new-split").findings
    [running] = play.running()
    with play.engine.begin() as connection:
        row = {"experiment_id": running.id, "arm": 255, "metric": BEFORE, "minute": 0, "shard": 0}
        connection.execute(insert(schema.evidence).values(**row, sums=bytes(2120)))
    found = play.rollouts.judge.experiment("new-split")
    assert (found.verdict, found.findings) == ("insufficient", ())
    assert "began before evidence was kept" in found.reasons[0]
