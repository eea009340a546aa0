"""Endpoints, experiments and epochs in the ledger; every write is a compare-and-set on the revision, and audited."""

from collections.abc import Collection
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from router.assignment.epochs import Epoch, dump_runs, load_runs
from router.documents import Endpoint, Experiment
from router.errors import AlreadyExists, RevisionMismatch, UnknownEndpoint, UnknownExperiment
from router.ledger import audit, schema
from router.ledger.database import for_reading, transaction
from router.ledger.regressions import RegressionMinute, read_regressions
from router.ledger.statistics import Minute, read_minutes

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


class Latest(NamedTuple):
    """How often the control tables have changed, and when they did last."""

    version: int
    changed_ms: int


class ControlTables:
    """Reads and writes the control tables; safe to use from several threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._writing = engine
        self._reading = for_reading(engine)

    def version(self) -> int:
        """Return a number that rises with every write."""
        return self.latest().version

    def latest(self) -> Latest:
        """Return the number that rises with every write, and the time of the last one."""
        table = schema.control_version
        with transaction(self._reading) as connection:
            return Latest(*connection.execute(select(table.c.version, table.c.changed_ms)).one())

    def endpoints(self) -> list[EndpointRecord]:
        """Return every endpoint, by name."""
        with transaction(self._reading) as connection:
            rows = connection.execute(select(schema.endpoints).order_by(schema.endpoints.c.name)).mappings()
            return [_endpoint(row) for row in rows]

    def endpoint(self, name: str) -> EndpointRecord:
        """Return one endpoint, or raise UnknownEndpoint."""
        records = self.endpoints()
        for record in records:
            if record.document.name == name:
                return record
        raise UnknownEndpoint(name, [record.document.name for record in records])

    def create_endpoint(self, document: Endpoint, now_ms: int, *, actor: str) -> None:
        """Store a new endpoint, or raise AlreadyExists."""
        values = {
            "name": document.name,
            "revision": 1,
            "document": _dump(document),
            "created_ms": now_ms,
            "updated_ms": now_ms,
        }
        with transaction(self._writing) as connection:
            _insert_named(connection, schema.endpoints, values, f"endpoint {document.name!r}")
            after = {"revision": 1, "document": document}
            _finish(connection, audit.Entry(actor, "create", f"endpoint {document.name}", None, after), now_ms)

    def replace_endpoint(self, document: Endpoint, revision: int, now_ms: int, *, actor: str) -> None:
        """Replace an endpoint's document if it is still at `revision`, or raise RevisionMismatch."""
        table = schema.endpoints
        old = select(table.c.document).where(table.c.name == document.name, table.c.revision == revision)
        statement = (
            update(table)
            .where(table.c.name == document.name, table.c.revision == revision)
            .values(document=_dump(document), revision=revision + 1, updated_ms=now_ms)
        )
        with transaction(self._writing) as connection:
            replaced = connection.scalar(old)
            if replaced is None or connection.execute(statement).rowcount == 0:
                current = connection.scalar(select(table.c.revision).where(table.c.name == document.name))
                raise RevisionMismatch(f"endpoint {document.name!r}", current or 0, revision)
            before = {"revision": revision, "document": msgspec.Raw(replaced.encode())}
            after = {"revision": revision + 1, "document": document}
            _finish(connection, audit.Entry(actor, "replace", f"endpoint {document.name}", before, after), now_ms)

    def experiments(self) -> list[ExperimentRecord]:
        """Return every experiment, oldest first: the order in which they may take a unit."""
        table, epochs = schema.experiments, schema.epochs
        # Looked up for each experiment: a bandit may have a million epochs.
        older = epochs.alias()
        newest = select(func.max(older.c.epoch)).where(older.c.experiment_id == table.c.id).correlate(table)
        with_newest = (epochs.c.experiment_id == table.c.id) & (epochs.c.epoch == newest.scalar_subquery())
        query = (
            select(table, epochs.c.epoch, epochs.c.runs, epochs.c.traffic, epochs.c.basis)
            .select_from(table.outerjoin(epochs, with_newest))
            .order_by(table.c.id)
        )
        with transaction(self._reading) as connection:
            return [_experiment(row) for row in connection.execute(query).mappings()]

    def experiment(self, name: str) -> ExperimentRecord:
        """Return one experiment, or raise UnknownExperiment."""
        records = self.experiments()
        for record in records:
            if record.document.name == name:
                return record
        raise UnknownExperiment(name, [record.document.name for record in records])

    def create_experiment(self, document: Experiment, now_ms: int, *, actor: str) -> None:
        """Store a new experiment as a draft, or raise AlreadyExists."""
        values = {
            "name": document.name,
            "endpoint": document.endpoint,
            "state": "draft",
            "revision": 1,
            "document": _dump(document),
            "created_ms": now_ms,
        }
        with transaction(self._writing) as connection:
            key = _insert_named(connection, schema.experiments, values, f"experiment {document.name!r}")
            _write_arms(connection, key, document)
            after = _audited("draft", 1, None, document)
            _finish(connection, audit.Entry(actor, "create", f"experiment {document.name}", None, after), now_ms)

    def change_experiment(
        self, record: ExperimentRecord, change: Change, now_ms: int, *, actor: str, action: str
    ) -> None:
        """Store a change based on `record`, or raise RevisionMismatch; its epoch appears in the same transaction."""
        table = schema.experiments
        statement = (
            update(table)
            .where(table.c.id == record.id, table.c.revision == record.revision)
            .values(
                document=_dump(change.document),
                state=change.state,
                revision=record.revision + 1,
                started_ms=change.started_ms,
                ended_ms=change.ended_ms,
            )
        )
        with transaction(self._writing) as connection:
            if connection.execute(statement).rowcount == 0:
                current = connection.scalar(select(table.c.revision).where(table.c.id == record.id))
                raise RevisionMismatch(f"experiment {record.document.name!r}", current or 0, record.revision)
            _write_arms(connection, record.id, change.document)
            if change.epoch is not None:
                _publish_next(connection, record.id, change.epoch, change.reason, now_ms)
            before = _audited(record.state, record.revision, record.epoch, record.document)
            after = _audited(change.state, record.revision + 1, change.epoch or record.epoch, change.document)
            subject = f"experiment {record.document.name}"
            _finish(connection, audit.Entry(actor, action, subject, before, after), now_ms)

    def publish(self, record: ExperimentRecord, epoch: Epoch, reason: str, now_ms: int) -> bool:
        """Publish the next epoch of a running experiment; return whether it is the one that stands.

        It is not if another process was faster, or the experiment has changed since it was read.
        """
        table = schema.experiments
        unchanged = (table.c.id == record.id, table.c.revision == record.revision, table.c.state == "running")
        try:
            with transaction(self._writing) as connection:
                # Takes the row's lock, so that a change of the document comes before or after.
                if connection.execute(update(table).where(*unchanged).values(state="running")).rowcount == 0:
                    return False
                _publish(connection, record.id, epoch, reason, now_ms)
                raise_version(connection, now_ms)
        except IntegrityError:
            return False
        return True

    def minutes(self, experiment_id: int, metrics: Collection[str]) -> dict[str, list[Minute]]:
        """Return the statistics of some metrics of an experiment, by metric."""
        with transaction(self._reading) as connection:
            return read_minutes(connection, experiment_id, metrics)

    def regressions(self, experiment_id: int, metric: str) -> list[RegressionMinute]:
        """Return the sums over values of a metric and their contexts, of an experiment."""
        with transaction(self._reading) as connection:
            return read_regressions(connection, experiment_id, metric)

    def epochs(self, experiment_id: int, limit: int, before: int | None = None) -> list[EpochRecord]:
        """Return the newest epochs of an experiment, or those before a number; oldest first."""
        table = schema.epochs
        columns = (table.c.epoch, table.c.runs, table.c.traffic, table.c.basis, table.c.reason, table.c.published_ms)
        query = (
            select(*columns).where(table.c.experiment_id == experiment_id).order_by(table.c.epoch.desc()).limit(limit)
        )
        if before is not None:
            query = query.where(table.c.epoch < before)
        query = query.order_by(table.c.epoch.desc()).limit(limit)
        with transaction(self._reading) as connection:
            newest_first = [
                EpochRecord(Epoch(number, load_runs(runs), traffic, basis), reason, published_ms)
                for number, runs, traffic, basis, reason, published_ms in connection.execute(query)
            ]
        return newest_first[::-1]


def _insert_named(connection: Connection, table: Any, values: dict[str, Any], thing: str) -> int:
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
        _publish(connection, experiment_id, epoch, reason, now_ms)
    except IntegrityError as error:
        raise EpochTaken(f"epoch {epoch.number} of experiment {experiment_id} has been published meanwhile") from error


def _publish(connection: Connection, experiment_id: int, epoch: Epoch, reason: str, now_ms: int) -> None:
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


def _finish(connection: Connection, entry: audit.Entry, now_ms: int) -> None:
    raise_version(connection, now_ms)
    audit.record(connection, entry, now_ms)


def raise_version(connection: Connection, now_ms: int) -> None:
    """Let every replica know that the control tables or the keys have changed."""
    table = schema.control_version
    connection.execute(update(table).values(version=table.c.version + 1, changed_ms=now_ms))


def _dump(document: Endpoint | Experiment) -> str:
    return msgspec.json.encode(document).decode()


def _endpoint(row: RowMapping) -> EndpointRecord:
    document = msgspec.json.decode(row["document"], type=Endpoint)
    return EndpointRecord(document, row["revision"], row["created_ms"], row["updated_ms"])


def _experiment(row: RowMapping) -> ExperimentRecord:
    return ExperimentRecord(
        id=row["id"],
        document=msgspec.json.decode(row["document"], type=Experiment),
        state=row["state"],
        revision=row["revision"],
        created_ms=row["created_ms"],
        started_ms=row["started_ms"],
        ended_ms=row["ended_ms"],
        epoch=None
        if row["epoch"] is None
        else Epoch(row["epoch"], load_runs(row["runs"]), row["traffic"], row["basis"]),
    )
