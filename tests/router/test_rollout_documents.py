"""What a rollout's document may say, and what it is told otherwise."""

import re
from typing import Any

import msgspec
import pytest

from router.documents import Rollout, check_rollout
from router.documents.rollouts import LONGEST_NAME
from router.errors import InvalidDocument
from tests.metrics import BRIER
from tests.router.rolling import CLICK

CHAMPION = {"kind": "champion"}
STAGES: list[dict[str, Any]] = [
    {"kind": "shadow", "min_decisions": 500, "min_s": 60, "max_s": 86_400, "otherwise": "rollback"},
    {"kind": "canary", "share": 0.01, "min_s": 60},
    {"kind": "canary", "share": 0.1, "advance": "guardrails"},
    {"kind": "interleave", "method": "optimised", "length": 5},
    {"kind": "bandit", "floor": 0.1, "update_every_s": 10, "advance": "not_worse"},
    {"kind": "split", "share": 0.5, "advance": "better"},
    {"kind": "champion", "control_share": 0.05, "min_s": 3600},
]


def rollout(**changes: Any) -> dict[str, Any]:
    return {
        "name": "new",
        "endpoint": "delay",
        "candidate": "sum@2",
        "metrics": [CLICK],
        "stages": [CHAMPION],
        **changes,
    }


def read(**changes: Any) -> Rollout:
    return msgspec.json.decode(msgspec.json.encode(rollout(**changes)), type=Rollout)


def test_document_of_every_kind_of_stage_comes_back_as_it_went() -> None:
    document = rollout(
        metrics=[{**CLICK, "margin": 0.01}, {**BRIER, "role": "guardrail", "margin": 0.02}],
        stages=STAGES,
        guardrails={"errors": None, "latency": {"limit_ms": 50, "margin": 0.05}},
        error=0.1,
        randomise="request",
        traffic=0.5,
        audience=[{"attribute": "origin", "op": "in", "value": ["JFK"]}],
        planned_decisions=500,
    )
    read_once = read(**document)
    written = msgspec.json.encode(read_once)
    assert msgspec.json.decode(written, type=Rollout) == read_once
    said = msgspec.json.decode(written)
    assert [stage["kind"] for stage in said["stages"]] == [stage["kind"] for stage in STAGES]
    for stage, sent in zip(said["stages"], STAGES, strict=True):
        assert stage.items() >= sent.items()
    check_rollout(read_once, kind="rank", output="probability")


def test_stages_ask_for_what_they_can_show_unless_said_otherwise() -> None:
    stages = [{"kind": "shadow"}, {"kind": "canary", "share": 0.1}, {"kind": "split"}, {"kind": "bandit"}, CHAMPION]
    asked = [stage.advance for stage in read(stages=stages).stages]
    assert asked == ["unharmed", "unharmed", "better", "better", "unharmed"]
    assert read().guardrails.errors == 0.02


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"stage": []}, "stage"),
        ({"guardrails": {"error": 0.1}}, "error"),
        ({"guardrails": {"latency": {"limit_ms": 5, "limit_s": 1}}}, "limit_s"),
        ({"stages": [{"kind": "shadow", "share": 0.1}, CHAMPION]}, "share"),
        ({"stages": [{"kind": "split", "floor": 0.1}, CHAMPION]}, "floor"),
        ({"stages": [{**CHAMPION, "share": 0.1}]}, "share"),
    ],
)
def test_unknown_field_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"unknown field `{field}`"):
        read(**changes)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"stages": []}, r"\$\.stages"),
        ({"stages": [CHAMPION] * 21}, r"\$\.stages"),
        ({"stages": [{"kind": "canary"}, CHAMPION]}, r"\$\.stages\[0\]"),
        ({"stages": [{"kind": "ab"}, CHAMPION]}, r"\$\.stages\[0\]\.kind"),
        ({"stages": [{"kind": "canary", "share": 0}, CHAMPION]}, r"\$\.stages\[0\]\.share"),
        ({"stages": [{"kind": "canary", "share": 1}, CHAMPION]}, r"\$\.stages\[0\]\.share"),
        ({"stages": [{**CHAMPION, "control_share": 0.6}]}, r"\$\.stages\[0\]\.control_share"),
        ({"stages": [{**CHAMPION, "min_s": -1}]}, r"\$\.stages\[0\]\.min_s"),
        ({"stages": [{**CHAMPION, "min_decisions": -1}]}, r"\$\.stages\[0\]\.min_decisions"),
        ({"stages": [{**CHAMPION, "otherwise": "advance"}]}, r"\$\.stages\[0\]\.otherwise"),
        ({"stages": [{**CHAMPION, "advance": "always"}]}, r"\$\.stages\[0\]\.advance"),
        ({"guardrails": {"errors": 0}}, r"\$\.guardrails\.errors"),
        ({"guardrails": {"latency": {"margin": 0.1}}}, r"\$\.guardrails\.latency"),
        ({"error": 0}, r"\$\.error"),
        ({"candidate": "sum"}, r"\$\.candidate"),
        ({"name": "Not Small"}, r"\$\.name"),
        ({"planned_decisions": 1}, r"\$\.planned_decisions"),
    ],
)
def test_wrong_value_is_refused_with_its_path(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"{path}"):
        read(**changes)


CONTRADICTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"name": "x" * (LONGEST_NAME + 1)}, "name", f"at most {LONGEST_NAME} letters"),
    ({"metrics": []}, "metrics", "one primary metric"),
    ({"metrics": [CLICK, {**CLICK, "name": "too"}]}, "metrics", "one primary metric"),
    ({"metrics": [CLICK, {**CLICK, "role": "secondary"}]}, "metrics", "stands twice"),
    ({"metrics": [CLICK, {**CLICK, "name": "g", "role": "guardrail"}]}, "metrics[1].margin", "needs the margin"),
    ({"traffic": 0}, "traffic", "above 0"),
    ({"stages": [{"kind": "split"}]}, "stages", 'add {"kind": "champion"}'),
    ({"stages": [CHAMPION, CHAMPION]}, "stages[0]", "champion is the last stage"),
    ({"stages": [{"kind": "split"}, {"kind": "shadow"}, CHAMPION]}, "stages[1]", "comes first or not at all"),
    ({"stages": [{**CHAMPION, "min_s": 60, "max_s": 60}]}, "stages[0].max_s", "set it higher"),
    ({"stages": [{"kind": "interleave"}, CHAMPION]}, "stages[0]", "only a rank endpoint interleaves"),
    ({"stages": [{**CHAMPION, "advance": "not_worse"}]}, "stages[0].advance", "give the metric 'click' one"),
    ({"stages": [{"kind": "shadow", "advance": "better"}, CHAMPION]}, "stages[0].advance", "use 'unharmed'"),
    (
        {"stages": [{**CHAMPION, "control_share": 0.00001}]},
        "stages[0].control_share",
        "a share of 1e-05; the smallest is 0.0001, or none: 0",
    ),
    (
        {"guardrails": {"latency": {"limit_ms": 200}}},
        "guardrails.latency.limit_ms",
        "hardly a decision takes longer than 200 ms where an arm is waited for no longer than the endpoint's "
        "timeout_ms, 200; set limit_ms below that",
    ),
    (
        {"randomise": "unit", "stages": [{"kind": "split"}, {"kind": "bandit"}, CHAMPION]},
        "randomise",
        "stages[1] is a bandit, which draws every request; leave randomise out",
    ),
    (
        {
            "metrics": [BRIER, {**CLICK, "role": "guardrail", "margin": 0.1}],
            "guardrails": {"latency": {"limit_ms": 50}},
            "stages": [{"kind": "shadow", "advance": "guardrails"}, CHAMPION],
        },
        "stages[0].advance",
        "a shadow stage does not measure latency, click: use 'unharmed' here",
    ),
]


@pytest.mark.parametrize(("changes", "field", "remedy"), CONTRADICTIONS)
def test_contradiction_names_its_field_and_a_remedy(changes: dict[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(InvalidDocument, match=re.escape(remedy)) as caught:
        check_rollout(read(**changes), kind="predict", output="probability", timeout_ms=200)
    assert caught.value.field == field


def test_mixed_lists_cannot_show_every_guardrail() -> None:
    stages = [{"kind": "interleave", "advance": "guardrails"}, CHAMPION]
    document = read(guardrails={"latency": {"limit_ms": 50}}, stages=stages)
    with pytest.raises(InvalidDocument, match="an interleave stage does not measure latency: use 'unharmed' here"):
        check_rollout(document, kind="rank", output="probability")
    check_rollout(read(stages=stages), kind="rank", output="probability")


@pytest.mark.parametrize("control_share", [0, 0.0001])
def test_control_keeps_nothing_or_a_bucket(control_share: float) -> None:
    check_rollout(read(stages=[{**CHAMPION, "control_share": control_share}]), kind="predict", output="probability")


def test_latency_guardrail_below_the_timeout_is_taken() -> None:
    document = read(guardrails={"latency": {"limit_ms": 199}})
    check_rollout(document, kind="predict", output="probability", timeout_ms=200)


def test_bandit_stage_is_taken_where_nothing_is_said_of_units() -> None:
    for changes in ({}, {"randomise": None}, {"randomise": "request"}):
        document = read(stages=[{"kind": "bandit"}, CHAMPION], **changes)
        check_rollout(document, kind="predict", output="probability")


def test_shadow_may_have_to_show_a_score() -> None:
    document = read(metrics=[BRIER], stages=[{"kind": "shadow", "advance": "better"}, CHAMPION])
    check_rollout(document, kind="predict", output="probability")


def test_longest_name_leaves_room_for_those_of_its_experiments() -> None:
    # The pattern of a name allows 63 letters.
    assert LONGEST_NAME + len("-interleave-999") <= 63
    check_rollout(read(name="x" * LONGEST_NAME), kind="predict", output="probability")
