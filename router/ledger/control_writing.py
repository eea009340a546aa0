"""Writing endpoints and experiments in an open transaction: every write is a compare-and-set, and audited."""

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from router.assignment.epochs import Epoch, dump_runs
from router.documents import Endpoint, Experiment, Rollout
from router.errors import AlreadyExists, RevisionMismatch
from router.ledger import audit, schema

State = Literal["draft", "running", "paused", "concluded"]


class EndpointRecord(msgspec.Struct, frozen=True):
    """An endpoint as stored."""

    document: Endpoint
    revision: int
    created_ms: int
    updated_ms: int


class ExperimentRecord(msgspec.Struct, frozen=True):
    """An experiment as stored, with its newest epoch (none before the first start)."""

    id: int
    document: Experiment
    state: State
    revision: int
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    epoch: Epoch | None


class EpochRecord(msgspec.Struct, frozen=True):
    """An epoch as stored: why it was published, and when."""

    epoch: Epoch
    reason: str
    published_ms: int


class Change(msgspec.Struct, frozen=True):
    """A new state of an experiment: what replaces what, and the epoch to publish with it."""

    document: Experiment
    state: State
    started_ms: int | None
    ended_ms: int | None
    epoch: Epoch | None = None
    reason: str = ""


class EpochTaken(Exception):
    """A bandit has published an epoch of this number since the experiment was read; read it again, and try again."""


class Author(msgspec.Struct, frozen=True):
    """Who writes, when, and what they call it in the audit log."""

    actor: str
    now_ms: int
    action: str


def insert_endpoint(connection: Connection, document: Endpoint, author: Author) -> None:
    """Store a new endpoint, or raise AlreadyExists."""
    values = {
        "name": document.name,
        "revision": 1,
        "document": dump(document),
        "created_ms": author.now_ms,
        "updated_ms": author.now_ms,
    }
    insert_named(connection, schema.endpoints, values, f"endpoint {document.name!r}")
    finish(connection, author, f"endpoint {document.name}", None, {"revision": 1, "document": document})


def update_endpoint(connection: Connection, document: Endpoint, revision: int, author: Author) -> None:
    """Replace an endpoint's document if it is still at `revision`, or raise RevisionMismatch."""
    table = schema.endpoints
    old = select(table.c.document).where(table.c.name == document.name, table.c.revision == revision)
    statement = (
        update(table)
        .where(table.c.name == document.name, table.c.revision == revision)
        .values(document=dump(document), revision=revision + 1, updated_ms=author.now_ms)
    )
    replaced = connection.scalar(old)
    if replaced is None or connection.execute(statement).rowcount == 0:
        current = connection.scalar(select(table.c.revision).where(table.c.name == document.name))
        raise RevisionMismatch(f"endpoint {document.name!r}", current or 0, revision)
    before = {"revision": revision, "document": msgspec.Raw(replaced.encode())}
    after = {"revision": revision + 1, "document": document}
    finish(connection, author, f"endpoint {document.name}", before, after)


def insert_experiment(connection: Connection, document: Experiment, author: Author) -> int:
    """Store a new experiment as a draft and return its id, or raise AlreadyExists."""
    values = {
        "name": document.name,
        "endpoint": document.endpoint,
        "state": "draft",
        "revision": 1,
        "document": dump(document),
        "created_ms": author.now_ms,
    }
    key = insert_named(connection, schema.experiments, values, f"experiment {document.name!r}")
    _write_arms(connection, key, document)
    finish(connection, author, f"experiment {document.name}", None, _audited("draft", 1, None, document))
    return key


def update_experiment(connection: Connection, record: ExperimentRecord, change: Change, author: Author) -> None:
    """Store a change based on `record`, or raise RevisionMismatch; its epoch appears in the same transaction."""
    table = schema.experiments
    statement = (
        update(table)
        .where(table.c.id == record.id, table.c.revision == record.revision)
        .values(
            document=dump(change.document),
            state=change.state,
            revision=record.revision + 1,
            started_ms=change.started_ms,
            ended_ms=change.ended_ms,
        )
    )
    if connection.execute(statement).rowcount == 0:
        current = connection.scalar(select(table.c.revision).where(table.c.id == record.id))
        raise RevisionMismatch(f"experiment {record.document.name!r}", current or 0, record.revision)
    _write_arms(connection, record.id, change.document)
    if change.epoch is not None:
        _publish_next(connection, record.id, change.epoch, change.reason, author.now_ms)
    before = _audited(record.state, record.revision, record.epoch, record.document)
    after = _audited(change.state, record.revision + 1, change.epoch or record.epoch, change.document)
    finish(connection, author, f"experiment {record.document.name}", before, after)


def insert_named(connection: Connection, table: Any, values: dict[str, Any], thing: str) -> int:
    """Insert a row and return its key, or raise AlreadyExists."""
    try:
        result = connection.execute(insert(table).values(**values))
    except IntegrityError as error:
        raise AlreadyExists(f"{thing} exists already; choose another name or change that one") from error
    key = result.inserted_primary_key
    return key[0] if key is not None and isinstance(key[0], int) else 0


def _write_arms(connection: Connection, experiment_id: int, document: Experiment) -> None:
    table = schema.arms
    connection.execute(table.delete().where(table.c.experiment_id == experiment_id))
    rows = [
        {"experiment_id": experiment_id, "arm": number, "name": arm.name, "model": arm.model}
        for number, arm in enumerate(document.arms)
    ]
    connection.execute(insert(table), rows)


def _publish_next(connection: Connection, experiment_id: int, epoch: Epoch, reason: str, now_ms: int) -> None:
    try:
        publish_epoch(connection, experiment_id, epoch, reason, now_ms)
    except IntegrityError as error:
        raise EpochTaken(f"epoch {epoch.number} of experiment {experiment_id} has been published meanwhile") from error


def publish_epoch(connection: Connection, experiment_id: int, epoch: Epoch, reason: str, now_ms: int) -> None:
    """Insert an epoch; raises IntegrityError if its number is taken."""
    connection.execute(
        insert(schema.epochs).values(
            experiment_id=experiment_id,
            epoch=epoch.number,
            runs=dump_runs(epoch.table),
            traffic=epoch.traffic,
            reason=reason,
            published_ms=now_ms,
            basis=epoch.basis,
        )
    )


def _audited(state: State, revision: int, epoch: Epoch | None, document: Experiment) -> dict[str, Any]:
    number = None if epoch is None else epoch.number
    return {"state": state, "revision": revision, "epoch": number, "document": document}


def finish(connection: Connection, author: Author, subject: str, before: Any, after: Any) -> None:
    """Let every replica know of a write, and record it in the audit log."""
    raise_version(connection, author.now_ms)
    audit.record(connection, audit.Entry(author.actor, author.action, subject, before, after), author.now_ms)


def raise_version(connection: Connection, now_ms: int) -> None:
    """Let every replica know that the control tables or the keys have changed."""
    table = schema.control_version
    connection.execute(update(table).values(version=table.c.version + 1, changed_ms=now_ms))


def dump(document: Endpoint | Experiment | Rollout) -> str:
    """Return a document as the ledger stores it."""
    return msgspec.json.encode(document).decode()
