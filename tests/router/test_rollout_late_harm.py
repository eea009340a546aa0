"""What befalls a candidate in a late stage is found there, however much went well before."""

from typing import Any

import msgspec
import pytest

from router.ledger.contributions import ITEMS
from router.ledger.evidence import load_reading
from router.ledger.rollouts import RolloutTables, Step
from tests.router.rolling import ALIKE, CANDIDATE, CHAMPION, CLICK, WORSE, Rolling

THIRD = "sum-third@1"
SLOW = {"latency": {"limit_ms": 50, "margin": 0.02}}
SPEND = {"name": "spend", "kind": "numeric", "direction": "increase", "role": "guardrail", "margin": 0.05}
CANARY = {"kind": "canary", "share": 0.05, "min_decisions": 50}
SPLIT = {"kind": "split", "min_decisions": 50, "advance": "unharmed"}
LAST = {"kind": "champion", "min_decisions": 10**6}
AFTER = 200
"""Decisions until it has to be found: with a control of 5 %, of which ten are the control's."""


def reach_the_last_stage(play: Rolling, decisions: int, **changes: Any) -> None:
    """Let a candidate do well in a canary and a split of so many decisions."""
    also = {"spend": ALIKE}
    play.start(stages=[CANARY, SPLIT, LAST], **changes)
    play.send(2000, also=also)
    assert play.rollouts.step()
    play.send(decisions, also=also)
    assert play.rollouts.step()
    assert play.endpoint().champion == CANDIDATE


@pytest.mark.parametrize("decisions", [1000, 10_000])
@pytest.mark.parametrize(
    ("why", "changes", "traffic", "after"),
    [
        ("errors", {}, {"failed": {"candidate": 1.0}}, AFTER),
        ("latency", {"guardrails": SLOW}, {"slow": {"candidate": 1.0}}, AFTER),
        ("spend", {"metrics": [CLICK, SPEND]}, {"also": {"spend": WORSE}}, 2500),
        ("click", {}, {"clicks": WORSE}, 2500),
    ],
)
def test_late_harm_does_not_drown_in_what_went_well(
    play: Rolling, decisions: int, why: str, changes: dict[str, Any], traffic: dict[str, Any], after: int
) -> None:
    reach_the_last_stage(play, decisions, **changes)
    play.send(after, **traffic)
    assert play.rollouts.step()
    last = play.steps()[-1]
    assert (play.rollout().state, play.endpoint().champion) == ("rolled_back", CHAMPION)
    assert f"in this stage alone, {why}: " in last.reason
    scopes = {(each["name"], each["scope"]): each["verdict"] for each in msgspec.json.decode(last.findings)}
    assert scopes[why, "stage"] in {"breached", "worse"}


def test_what_was_known_is_kept_with_the_stage_and_no_longer(play: Rolling) -> None:
    play.start(stages=[SPLIT, {**LAST, "min_decisions": 50}])
    assert play.rollout().before_stage is None
    play.send(200)
    assert play.rollouts.step()
    before = load_reading(play.rollout().before_stage or b"")
    assert sum(before[""][arm, ITEMS].count for arm in (0, 1)) == 200
    play.send(1000)
    assert play.rollouts.step()
    assert (play.rollout().state, play.rollout().before_stage) == ("promoted", None)


def test_first_stage_has_nothing_before_it(play: Rolling) -> None:
    play.start(stages=[{**SPLIT, "min_decisions": 10**6}, LAST])
    play.send(200)
    assert {each.scope for each in play.rollouts.judge.stage(play.rollout()).findings} == {"rollout"}


def test_both_judgements_share_the_error_of_the_guardrail(play: Rolling) -> None:
    reach_the_last_stage(play, 500)
    play.send(100)
    found = play.rollouts.judge.stage(play.rollout()).findings
    errors = {each.scope: 1 - (each.confidence or 0) for each in found if each.name == "errors"}
    assert errors == pytest.approx({"rollout": 0.025, "stage": 0.0125})
    assert [each.scope for each in found if each.name == "sample_ratio"] == ["rollout"]


def test_stage_counts_its_own_decisions_alone(play: Rolling) -> None:
    reach_the_last_stage(play, 500)
    play.send(100)
    found = {each.scope: each for each in play.rollouts.judge.stage(play.rollout()).findings if each.name == "errors"}
    assert found["stage"].control_n + found["stage"].candidate_n == 100
    assert found["rollout"].control_n + found["rollout"].candidate_n == 2600


def test_nothing_known_of_a_guardrail_is_no_advance(play: Rolling) -> None:
    late = {**SPEND, "default": 0, "window_s": 3600}
    play.start(metrics=[CLICK, late], stages=[{**SPLIT, "min_decisions": 50}, LAST])
    play.send(400)
    assert not play.rollouts.step()
    reasons = play.rollouts.judge.stage(play.rollout()).reasons
    assert any(each.startswith("not judged yet: spend: too few values so far") for each in reasons)
    play.wait(3700)
    assert play.rollouts.step()
    assert play.rollout().stage == 1


def test_last_stage_compares_everybody_whom_the_new_champion_answers(play: Rolling) -> None:
    play.start(stages=[{**SPLIT, "min_decisions": 10}, LAST], traffic=0.1, metrics=[CLICK])
    play.send(200)
    assert play.rollouts.step()
    [running] = play.running()
    assert (running.document.name, running.document.traffic) == ("new-split-2", 1.0)
    play.send(AFTER, failed={"candidate": 1.0})
    assert play.rollouts.step()
    assert play.endpoint().champion == CHAMPION


def test_nobody_is_promoted_whom_somebody_replaces_in_that_moment(
    play: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    play.start(stages=[{**LAST, "min_decisions": 50}])
    play.send(1000)
    apply = RolloutTables.apply

    def too_late(tables: RolloutTables, step: Step, author: Any) -> None:
        monkeypatch.setattr(RolloutTables, "apply", apply)
        play.change_endpoint(champion=THIRD)
        apply(tables, step, author)

    monkeypatch.setattr(RolloutTables, "apply", too_late)
    assert play.rollouts.step()
    assert play.rollout().state == "running"
    assert play.rollouts.step()
    assert play.rollout().state == "held"
    assert play.endpoint().champion == THIRD
