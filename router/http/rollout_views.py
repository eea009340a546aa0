"""What the API returns of rollouts and verdicts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from router.documents import Rollout
from router.http.views import at
from router.ledger.rollouts import RolloutRecord, RolloutState, TransitionRecord
from router.rollout.findings import Finding
from router.rollout.verdicts import Judgement


class TransitionView(msgspec.Struct, frozen=True):
    """A step of a rollout: who took it, why, and the numbers that decided (none where a person did)."""

    number: int
    at: datetime
    actor: str
    action: str
    state: RolloutState
    stage: int
    reason: str
    findings: list[dict[str, Any]]


class RolloutView(msgspec.Struct, frozen=True):
    """A rollout; `champion` is whom the candidate is compared with, `stage` counts from 0."""

    document: Rollout
    state: RolloutState
    stage: int
    stage_kind: str
    revision: int
    champion: str | None
    experiments: list[str]
    created_at: datetime
    stage_began_at: datetime | None
    ended_at: datetime | None
    transitions: list[TransitionView]


class VerdictView(msgspec.Struct, frozen=True):
    """`advance`, `rollback` or `insufficient`, why, and the numbers behind it."""

    verdict: Literal["advance", "rollback", "insufficient"]
    reasons: list[str]
    findings: list[Finding]


WebhookBody = dict[str, Any]
"""What a gate says about itself; nothing of it matters."""


def rollout_view(record: RolloutRecord, transitions: Sequence[TransitionRecord]) -> RolloutView:
    """Return a rollout as the API shows it."""
    stage = record.document.stages[record.stage]
    return RolloutView(
        document=record.document,
        state=record.state,
        stage=record.stage,
        stage_kind=str(type(stage).__struct_config__.tag),
        revision=record.revision,
        champion=record.champion,
        experiments=list(record.experiments),
        created_at=at(record.created_ms),
        stage_began_at=None if record.stage_ms is None else at(record.stage_ms),
        ended_at=None if record.ended_ms is None else at(record.ended_ms),
        transitions=[
            TransitionView(
                each.number,
                at(each.at_ms),
                each.actor,
                each.action,
                each.state,
                each.stage,
                each.reason,
                msgspec.json.decode(each.findings),
            )
            for each in transitions
        ],
    )


def verdict_view(judgement: Judgement) -> VerdictView:
    """Return a judgement as the API shows it."""
    return VerdictView(judgement.verdict, list(judgement.reasons), list(judgement.findings))
