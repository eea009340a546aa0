"""What the API returns for stored things: documents with their revision, state and times."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from router.assignment.epochs import to_runs
from router.assignment.hashing import BUCKETS
from router.decision_id import encode
from router.documents import SPECIAL_NAMES, Endpoint, Experiment
from router.ledger.audit import AuditRecord
from router.ledger.control_writing import EndpointRecord, EpochRecord, ExperimentRecord, State
from router.ledger.decided import read_draw, read_shown
from router.ledger.reading import StoredDecision, StoredOutcome
from router.ledger.records import ShadowRow


class EndpointView(msgspec.Struct, frozen=True):
    """An endpoint; send `revision` back in If-Match to change it."""

    document: Endpoint
    revision: int
    created_at: datetime
    updated_at: datetime


class ExperimentView(msgspec.Struct, frozen=True):
    """An experiment; `epoch` is its newest table of arm probabilities, null before the start."""

    document: Experiment
    state: State
    revision: int
    epoch: int | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class EpochView(msgspec.Struct, frozen=True):
    """A table of arm probabilities, the holdout's among them where there is one.

    `traffic` is the share of units that it takes; `runs` are [buckets, arm number] in bucket order, and 255 stands for
    the holdout.
    """

    epoch: int
    probabilities: dict[str, float]
    traffic: float
    reason: str
    published_at: datetime
    runs: list[tuple[int, int]]
    basis: dict[str, Any] | None
    """What a bandit computed it from: the evidence per arm, and when that was read."""


class OutcomeView(msgspec.Struct, frozen=True):
    """An outcome of a decision. Of every id the highest version counts; null retracts it."""

    metric: str
    item: int
    id: str | None
    version: int
    value: float | None
    at: datetime
    received_at: datetime


class ShadowView(msgspec.Struct, frozen=True):
    """What a shadow predicted for a decision, or why it did not."""

    model: str
    predictions: list[float] | None
    error: str | None
    latency_ms: float


class DecisionView(msgspec.Struct, frozen=True):
    """What was decided and what came of it."""

    decision_id: str
    decided_at: datetime
    endpoint: str
    experiment: str | None
    epoch: int | None
    arm: str | None
    propensity: float
    unit: str
    model: str
    served_model: str
    fallback: str | None
    context: dict[str, Any] | None
    inputs: list[dict[str, Any]]
    predictions: list[float | None]
    shown: list[int] | None
    """The candidates of a rank endpoint that were shown, best first, by their index in `inputs`."""
    teams: list[str | None] | None
    """Of a list that mixes several rankings, the arm whose pick each place was; null where all agreed."""
    outcomes: list[OutcomeView]
    shadows: list[ShadowView]


class AuditView(msgspec.Struct, frozen=True):
    """A change: what its subject was before (null when it was created) and after."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def endpoint_view(record: EndpointRecord) -> EndpointView:
    """Return an endpoint as the API shows it."""
    return EndpointView(record.document, record.revision, at(record.created_ms), at(record.updated_ms))


def experiment_view(record: ExperimentRecord) -> ExperimentView:
    """Return an experiment as the API shows it."""
    return ExperimentView(
        document=record.document,
        state=record.state,
        revision=record.revision,
        epoch=None if record.epoch is None else record.epoch.number,
        created_at=at(record.created_ms),
        started_at=None if record.started_ms is None else at(record.started_ms),
        ended_at=None if record.ended_ms is None else at(record.ended_ms),
    )


def epoch_view(record: EpochRecord, experiment: Experiment) -> EpochView:
    """Return an epoch with its arms' names."""
    table = record.epoch.table
    names = dict(enumerate(arm.name for arm in experiment.arms))
    names |= {number: name for number, name in SPECIAL_NAMES.items() if number in table}
    return EpochView(
        epoch=record.epoch.number,
        probabilities={name: table.count(number) / BUCKETS for number, name in names.items()},
        traffic=record.epoch.traffic / BUCKETS,
        reason=record.reason,
        published_at=at(record.published_ms),
        runs=to_runs(table),
        basis=None if record.epoch.basis is None else msgspec.json.decode(record.epoch.basis),
    )


def decision_view(
    stored: StoredDecision, outcomes: Sequence[StoredOutcome], shadows: Sequence[ShadowRow]
) -> DecisionView:
    """Return a decision and its outcomes as the API shows them."""
    row = stored.row
    return DecisionView(
        decision_id=encode(row.id),
        decided_at=at(row.decided_ms),
        endpoint=row.endpoint,
        experiment=stored.experiment,
        epoch=row.epoch,
        arm=stored.arm,
        propensity=row.propensity,
        unit=row.unit,
        model=row.model,
        served_model=row.served_model,
        fallback=row.fallback,
        context=None if row.context is None else msgspec.json.decode(row.context),
        inputs=msgspec.json.decode(row.inputs),
        predictions=msgspec.json.decode(row.predictions),
        shown=None if row.shown is None else read_shown(row.shown),
        teams=None if row.draw is None else [stored.teams.get(team) for team in read_draw(row.draw).teams],
        outcomes=[_outcome_view(outcome) for outcome in outcomes],
        shadows=[_shadow_view(shadow) for shadow in shadows],
    )


def audit_view(record: AuditRecord) -> AuditView:
    """Return an entry of the audit log as the API shows it."""
    return AuditView(
        id=record.id,
        at=at(record.at_ms),
        actor=record.actor,
        action=record.action,
        subject=record.subject,
        before=None if record.before is None else msgspec.json.decode(record.before),
        after=None if record.after is None else msgspec.json.decode(record.after),
    )


def at(milliseconds: int) -> datetime:
    """Return a time as the API shows it, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _shadow_view(shadow: ShadowRow) -> ShadowView:
    predictions = None if shadow.predictions is None else msgspec.json.decode(shadow.predictions, type=list[float])
    return ShadowView(shadow.model, predictions, shadow.error, shadow.latency_ms)


def _outcome_view(outcome: StoredOutcome) -> OutcomeView:
    return OutcomeView(
        metric=outcome.metric,
        item=outcome.item,
        id=outcome.outcome_id or None,
        version=outcome.version,
        value=outcome.value,
        at=at(outcome.occurred_ms),
        received_at=at(outcome.received_ms),
    )
