"""What a stage makes of the endpoint and of experiments."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.assignment.epochs import INTERLEAVED
from router.documents import Endpoint, Experiment, Rollout, check_experiment
from router.documents.rollouts import LONGEST_NAME, AnyStage
from router.rollout.stages import (
    CANDIDATE_ARM,
    CONTROL_ARM,
    allocation_of,
    endpoint_in,
    endpoint_without,
    epoch_of,
    experiment_of,
)
from tests.metrics import BRIER
from tests.router.rolling import CANDIDATE, CHAMPION, CLICK, rollout

NOW_MS = 1_700_000_000_000
KINDS: dict[str, dict[str, Any]] = {
    "shadow": {"kind": "shadow"},
    "canary": {"kind": "canary", "share": 0.01},
    "split": {"kind": "split"},
    "bandit": {"kind": "bandit", "floor": 0.1, "update_every_s": 5},
    "interleave": {"kind": "interleave", "method": "probabilistic", "length": 7},
    "champion": {"kind": "champion"},
    "alone": {"kind": "champion", "control_share": 0},
}
ANSWERING = ("canary", "split", "bandit", "interleave", "champion")

DOCUMENT = msgspec.convert(
    rollout(
        metrics=[{**CLICK, "margin": 0.1}, {**BRIER, "role": "secondary"}],
        guardrails={"latency": {"limit_ms": 40}},
        audience=[{"attribute": "origin", "op": "in", "value": ["JFK"]}],
        traffic=0.5,
    ),
    Rollout,
)


def stage(kind: str, **changes: Any) -> AnyStage:
    found: AnyStage = msgspec.convert({**KINDS[kind], **changes}, AnyStage)
    return found


def made(kind: str, document: Rollout = DOCUMENT, taken: tuple[str, ...] = (), **changes: Any) -> Experiment:
    found = experiment_of(document, stage(kind, **changes), CHAMPION, taken)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ANSWERING)
def test_experiment_of_a_stage_is_one_that_anybody_could_create(kind: str) -> None:
    document = msgspec.structs.replace(DOCUMENT, metrics=DOCUMENT.metrics[:1])
    found = made(kind, document)
    check_experiment(found, kind="rank", output="probability")
    assert [(arm.name, arm.model) for arm in found.arms] == [("control", CHAMPION), ("candidate", CANDIDATE)]
    assert (found.arms[CONTROL_ARM].name, found.arms[CANDIDATE_ARM].name) == ("control", "candidate")
    assert (found.endpoint, found.metrics) == ("delay", document.metrics)
    assert (found.planned_decisions, found.slow_ms) == (500, 40)
    # Whoever is champion answers everybody, so that everybody is compared.
    whom = (1.0, 0) if kind == "champion" else (0.5, len(document.audience))
    assert (found.traffic, len(found.audience)) == whom
    assert found.randomise == ("request" if kind == "bandit" else "unit")


@pytest.mark.parametrize("kind", ANSWERING)
def test_rollout_may_draw_every_request(kind: str) -> None:
    assert made(kind, msgspec.structs.replace(DOCUMENT, randomise="request")).randomise == "request"


@pytest.mark.parametrize("kind", ["shadow", "alone"])
def test_stage_in_which_nothing_is_divided_has_no_experiment(kind: str) -> None:
    assert allocation_of(DOCUMENT, stage(kind)) is None
    assert experiment_of(DOCUMENT, stage(kind), CHAMPION, ()) is None


@pytest.mark.parametrize(("kind", "slots"), [("canary", 100), ("split", 5000), ("champion", 9500), ("bandit", 5000)])
def test_first_epoch_has_the_shares_of_the_stage(kind: str, slots: int) -> None:
    epoch = epoch_of(made(kind), NOW_MS)
    assert (epoch.number, epoch.traffic) == (1, 10_000 if kind == "champion" else 5000)
    assert epoch.table.count(CANDIDATE_ARM) == slots
    assert epoch.table.count(CONTROL_ARM) == 10_000 - slots
    assert (epoch.basis is not None) == (kind == "bandit")


def test_first_epoch_of_mixed_lists_is_all_of_them() -> None:
    assert epoch_of(made("interleave"), NOW_MS).table.count(INTERLEAVED) == 10_000


def test_settings_of_a_stage_reach_its_allocation() -> None:
    bandit, interleave = made("bandit").allocation, made("interleave").allocation
    said = [msgspec.to_builtins(each) for each in (bandit, interleave)]
    assert said[0].items() >= {"kind": "thompson", "metric": "click", "floor": 0.1, "update_every_s": 5}.items()
    assert said[1].items() >= {"kind": "interleave", "method": "probabilistic", "length": 7}.items()


@given(st.integers(1, 9999))
def test_every_share_is_kept_to_a_bucket(slots: int) -> None:
    found = made("split", share=slots / 10_000)
    check_experiment(found, kind="predict", output="probability")
    assert epoch_of(found, NOW_MS).table.count(CANDIDATE_ARM) == slots


@given(st.integers(0, 5000))
def test_every_share_of_the_control_is_kept_to_a_bucket(slots: int) -> None:
    found = experiment_of(DOCUMENT, stage("champion", control_share=slots / 10_000), CHAMPION, ())
    assert (found is None) == (slots == 0)
    if found is not None:
        check_experiment(found, kind="predict", output="probability")
        assert epoch_of(found, NOW_MS).table.count(CONTROL_ARM) == slots


def test_names_of_experiments_are_free_and_fit() -> None:
    assert made("canary").name == made("split").name == "new-split"
    assert made("bandit").name == "new-bandit"
    assert made("split", taken=("new-split", "new-split-2")).name == "new-split-3"
    long = msgspec.structs.replace(DOCUMENT, name="x" * LONGEST_NAME)
    taken = tuple(f"{long.name}-interleave{number}" for number in ("", *(f"-{n}" for n in range(2, 100))))
    found = made("interleave", long, taken)
    # As the API reads it, with the pattern and length of a name.
    assert msgspec.json.decode(msgspec.json.encode(found), type=Experiment) == found


def endpoint(*shadows: str, champion: str = CHAMPION) -> Endpoint:
    return Endpoint(name="delay", champion=champion, shadows=list(shadows), timeout_ms=77)


@pytest.mark.parametrize("kind", KINDS)
def test_stage_can_be_undone(kind: str) -> None:
    for shadows in ([], ["other@1"], ["other@1", "third@2"]):
        before = endpoint(*shadows)
        during = endpoint_in(DOCUMENT, stage(kind), before)
        assert endpoint_without(DOCUMENT, during, CHAMPION) == before
        # Once more changes nothing, and so does taking out who is not there.
        assert endpoint_in(DOCUMENT, stage(kind), during) == during
        assert endpoint_without(DOCUMENT, before, CHAMPION) == before


def test_endpoint_in_each_stage() -> None:
    before = endpoint("other@1")
    assert endpoint_in(DOCUMENT, stage("shadow"), before).shadows == ["other@1", CANDIDATE]
    shadowed = endpoint("other@1", CANDIDATE, "third@2")
    assert endpoint_in(DOCUMENT, stage("shadow"), shadowed) == shadowed
    for kind in ANSWERING:
        during = endpoint_in(DOCUMENT, stage(kind), shadowed)
        assert during.shadows == ["other@1", "third@2"]
        assert during.champion == (CANDIDATE if kind == "champion" else CHAMPION)
        assert during.timeout_ms == 77


def test_champion_of_somebody_else_is_left_alone() -> None:
    other = endpoint(CANDIDATE, champion="third@2")
    assert endpoint_without(DOCUMENT, other, CHAMPION) == endpoint(champion="third@2")
