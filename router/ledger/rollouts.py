"""Rollouts in the ledger: each step changes rollout, experiments and endpoint in one transaction, or nothing."""

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, insert, select, update

from analysis.statistics.unit_groups import Sums
from router.assignment.epochs import Epoch
from router.documents import Endpoint, Experiment, Rollout
from router.errors import Conflict, RevisionMismatch, UnknownRollout
from router.ledger import schema
from router.ledger.control_writing import (
    Author,
    Change,
    ExperimentRecord,
    dump,
    finish,
    insert_experiment,
    insert_named,
    update_endpoint,
    update_experiment,
)
from router.ledger.database import for_reading, transaction
from router.ledger.evidence import close_minutes, read_evidence
from router.ledger.shadowed import Calls, Pairs, Shadowed, read_calls, read_pairs
from router.ledger.statements import insert_into, lock_outcomes

RolloutState = Literal["waiting", "running", "held", "promoted", "rolled_back"]
ACTIVE: tuple[RolloutState, ...] = ("running", "held")


class RolloutRecord(msgspec.Struct, frozen=True):
    """A rollout as stored; `champion` is whom the candidate is compared with, None before it begins."""

    id: int
    document: Rollout
    state: RolloutState
    stage: int
    revision: int
    champion: str | None
    experiments: tuple[str, ...]
    created_ms: int
    stage_ms: int | None
    stage_decisions: int
    """How many decisions the candidate had made when the stage began."""
    before_stage: bytes | None
    """The sums of all evidence then (router.ledger.evidence.load_reading)."""
    ended_ms: int | None


class TransitionRecord(NamedTuple):
    """A step of a rollout as stored; findings are JSON."""

    number: int
    at_ms: int
    actor: str
    action: str
    state: RolloutState
    stage: int
    reason: str
    findings: str


class Begun(NamedTuple):
    """An experiment that begins with a step, and its first epoch."""

    document: Experiment
    epoch: Epoch


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout's next state, why, and all that changes with it; `record` is what it is based on."""

    record: RolloutRecord
    state: RolloutState
    stage: int
    reason: str
    findings: Sequence[Any] = ()
    champion: str | None
    experiments: tuple[str, ...]
    stage_ms: int | None
    stage_decisions: int = 0
    before_stage: bytes | None = None
    ended_ms: int | None = None
    endpoint: tuple[Endpoint, int] | None = None
    """Its new document, and the revision that this is based on."""
    begun: tuple[Begun, ...] = ()
    changed: tuple[tuple[ExperimentRecord, Change], ...] = ()


class TurnTaken(Exception):
    """Another rollout of the endpoint has begun since this one was read; read again, and wait."""


class Demoted(Conflict):
    """Somebody has replaced the champion that a rollout is about to confirm; read again."""


class RolloutTables:
    """Reads and writes rollouts; safe to use from several threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._writing = engine
        self._reading = for_reading(engine)

    def rollouts(self, states: Collection[RolloutState] = ()) -> list[RolloutRecord]:
        """Return every rollout, or those in some states, oldest first."""
        query = select(schema.rollouts).order_by(schema.rollouts.c.id)
        if states:
            query = query.where(schema.rollouts.c.state.in_(sorted(states)))
        with transaction(self._reading) as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def rollout(self, name: str) -> RolloutRecord:
        """Return one rollout, or raise UnknownRollout."""
        records = self.rollouts()
        for record in records:
            if record.document.name == name:
                return record
        raise UnknownRollout(name, [record.document.name for record in records])

    def owner(self, experiment: str) -> RolloutRecord | None:
        """Return the rollout under way that runs an experiment."""
        return next((each for each in self.rollouts(ACTIVE) if experiment in each.experiments), None)

    def transitions(self, rollout_id: int) -> list[TransitionRecord]:
        """Return the steps of a rollout, oldest first."""
        table = schema.rollout_transitions
        columns = [table.c[name] for name in TransitionRecord._fields]
        query = select(*columns).where(table.c.rollout_id == rollout_id).order_by(table.c.number)
        with transaction(self._reading) as connection:
            return [TransitionRecord(*row) for row in connection.execute(query)]

    def create(self, document: Rollout, author: Author) -> None:
        """Store a new rollout, which waits for its turn, or raise AlreadyExists."""
        values = {
            "name": document.name,
            "endpoint": document.endpoint,
            "state": "waiting",
            "stage": 0,
            "revision": 1,
            "document": dump(document),
            "experiments": "[]",
            "stage_decisions": 0,
            "created_ms": author.now_ms,
        }
        with transaction(self._writing) as connection:
            key = insert_named(connection, schema.rollouts, values, f"rollout {document.name!r}")
            connection.execute(insert(schema.rollout_transitions).values(**_transition(key, 1, author, values)))
            after = {"revision": 1, "state": "waiting", "document": document}
            finish(connection, author, f"rollout {document.name}", None, after)

    def apply(self, step: Step, author: Author) -> None:
        """Store a step and all that changes with it.

        Raises:
            RevisionMismatch, TurnTaken, Demoted, AlreadyExists: Another process, or a person, was faster, and nothing
                was changed.
        """
        record, table = step.record, schema.rollouts
        values = {
            "state": step.state,
            "stage": step.stage,
            "revision": record.revision + 1,
            "champion": step.champion,
            "experiments": msgspec.json.encode(step.experiments).decode(),
            "stage_ms": step.stage_ms,
            "stage_decisions": step.stage_decisions,
            "before_stage": step.before_stage if step.ended_ms is None else None,
            "ended_ms": step.ended_ms,
        }
        unchanged = (table.c.id == record.id, table.c.revision == record.revision)
        with transaction(self._writing) as connection:
            if connection.execute(update(table).where(*unchanged).values(**values)).rowcount == 0:
                current = connection.scalar(select(table.c.revision).where(table.c.id == record.id))
                raise RevisionMismatch(f"rollout {record.document.name!r}", current or 0, record.revision)
            _lock(connection, step)
            if record.champion is None and step.champion is not None:
                _take_turn(connection, record)
            for begun in step.begun:
                _begin(connection, begun, author)
            for experiment, change in step.changed:
                update_experiment(connection, experiment, change, author)
            if step.endpoint is not None:
                update_endpoint(connection, *step.endpoint, author)
            if step.state == "promoted":
                _require_champion(connection, record.document)
            row = _transition(record.id, record.revision + 1, author, values, step.reason, step.findings)
            connection.execute(insert(schema.rollout_transitions).values(**row))
            before = {"revision": record.revision, "state": record.state, "stage": record.stage}
            after = {"revision": record.revision + 1, "state": step.state, "stage": step.stage, "reason": step.reason}
            finish(connection, author, f"rollout {record.document.name}", before, after)

    def shadow_calls(self, shadow: Shadowed) -> Calls:
        """Return how often a shadow was asked for what the champion answered, and failed."""
        with transaction(self._reading) as connection:
            return read_calls(connection, shadow)

    def shadow_pairs(self, shadow: Shadowed, label: str) -> Pairs:
        """Return the labels of what the champion answered and a shadow saw."""
        with transaction(self._reading) as connection:
            return read_pairs(connection, shadow, label)

    def evidence(
        self, experiment_id: int, statistics: Collection[str], before_minute: int
    ) -> dict[tuple[int, str], Sums]:
        """Return an experiment's sums by arm and statistic, of decisions made before a minute."""
        with transaction(self._reading) as connection:
            return read_evidence(connection, experiment_id, statistics, before_minute)

    def close(self, experiment_id: int, before_minute: int) -> None:
        """Add minutes whose windows have closed to what counts anyway, so that reading stays quick."""
        with transaction(self._writing) as connection:
            lock_outcomes(connection)
            close_minutes(connection, experiment_id, before_minute)

    def scale(self, experiment_id: int, metric: str, scale: float) -> float:
        """Return the scale of a metric's tuning: the one that was fixed first, or this one, fixed now."""
        table = schema.evidence_scales
        key = {"experiment_id": experiment_id, "metric": metric}
        query = select(table.c.scale).where(*(table.c[name] == value for name, value in key.items()))
        with transaction(self._reading) as connection:
            known: float | None = connection.scalar(query)
        if known is not None:
            return known
        with transaction(self._writing) as connection:
            statement = insert_into(connection, table).values(**key, scale=scale).on_conflict_do_nothing()
            connection.execute(statement)
            fixed: float = connection.execute(query).scalar_one()
            return fixed


def _lock(connection: Connection, step: Step) -> None:
    """Lock the rows that a step changes before the one that every write raises, as everybody does who changes one."""
    table, key = schema.experiments, schema.endpoints.c.name
    ids = [experiment.id for experiment, _ in step.changed]
    connection.execute(select(table.c.id).where(table.c.id.in_(ids)).order_by(table.c.id).with_for_update())
    connection.execute(select(key).where(key == step.record.document.endpoint).with_for_update())


def _take_turn(connection: Connection, record: RolloutRecord) -> None:
    """Raise TurnTaken if another rollout of the endpoint is under way; the endpoint is locked."""
    table = schema.rollouts
    query = select(table.c.name).where(
        table.c.endpoint == record.document.endpoint,
        table.c.state.in_(ACTIVE),
        table.c.champion.is_not(None),
        table.c.id != record.id,
    )
    if (other := connection.scalar(query)) is not None:
        raise TurnTaken(f"rollout {other!r} of endpoint {record.document.endpoint!r} has begun meanwhile")


def _require_champion(connection: Connection, rollout: Rollout) -> None:
    """Raise Demoted if somebody has made another model champion meanwhile; the endpoint is locked."""
    table = schema.endpoints
    document = connection.scalar(select(table.c.document).where(table.c.name == rollout.endpoint))
    champion = msgspec.json.decode(document or "null", type=Endpoint).champion
    if champion != rollout.candidate:
        raise Demoted(
            f"cannot promote by rollout {rollout.name!r}: {champion!r} has become champion of endpoint "
            f"{rollout.endpoint!r} meanwhile; read it again"
        )


def _begin(connection: Connection, begun: Begun, author: Author) -> None:
    document = begun.document
    key = insert_experiment(connection, document, author)
    draft = ExperimentRecord(key, document, "draft", 1, author.now_ms, None, None, None)
    started = Change(document, "running", author.now_ms, None, begun.epoch, "start")
    update_experiment(connection, draft, started, author)


def _transition(
    key: int, number: int, author: Author, values: dict[str, Any], reason: str = "", findings: Sequence[Any] = ()
) -> dict[str, Any]:
    return {
        "rollout_id": key,
        "number": number,
        "at_ms": author.now_ms,
        "actor": author.actor,
        "action": author.action,
        "state": values["state"],
        "stage": values["stage"],
        "reason": reason,
        "findings": msgspec.json.encode(findings).decode(),
    }


def _record(row: RowMapping) -> RolloutRecord:
    return RolloutRecord(
        id=row["id"],
        document=msgspec.json.decode(row["document"], type=Rollout),
        state=row["state"],
        stage=row["stage"],
        revision=row["revision"],
        champion=row["champion"],
        experiments=tuple(msgspec.json.decode(row["experiments"], type=list[str])),
        created_ms=row["created_ms"],
        stage_ms=row["stage_ms"],
        stage_decisions=row["stage_decisions"],
        before_stage=row["before_stage"],
        ended_ms=row["ended_ms"],
    )
