"""Endpoints, experiments and epochs in the ledger; every write is a compare-and-set on the revision, and audited."""

from collections.abc import Collection
from typing import NamedTuple

import msgspec
from sqlalchemy import Engine, RowMapping, func, select, update
from sqlalchemy.exc import IntegrityError

from router.assignment.epochs import Epoch, load_runs
from router.documents import Endpoint, Experiment
from router.errors import UnknownEndpoint, UnknownExperiment
from router.ledger import schema
from router.ledger.control_writing import (
    Author,
    Change,
    EndpointRecord,
    EpochRecord,
    ExperimentRecord,
    insert_endpoint,
    insert_experiment,
    publish_epoch,
    raise_version,
    update_endpoint,
    update_experiment,
)
from router.ledger.database import for_reading, transaction
from router.ledger.regressions import RegressionMinute, read_regressions
from router.ledger.sharing import Sharing, read_sharing
from router.ledger.statistics import Minute, read_minutes


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
        with transaction(self._writing) as connection:
            insert_endpoint(connection, document, Author(actor, now_ms, "create"))

    def replace_endpoint(self, document: Endpoint, revision: int, now_ms: int, *, actor: str) -> None:
        """Replace an endpoint's document if it is still at `revision`, or raise RevisionMismatch."""
        with transaction(self._writing) as connection:
            update_endpoint(connection, document, revision, Author(actor, now_ms, "replace"))

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
        with transaction(self._writing) as connection:
            insert_experiment(connection, document, Author(actor, now_ms, "create"))

    def change_experiment(
        self, record: ExperimentRecord, change: Change, now_ms: int, *, actor: str, action: str
    ) -> None:
        """Store a change based on `record`, or raise RevisionMismatch; its epoch appears in the same transaction."""
        with transaction(self._writing) as connection:
            update_experiment(connection, record, change, Author(actor, now_ms, action))

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
                publish_epoch(connection, record.id, epoch, reason, now_ms)
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

    def sharing(self, experiment_id: int, known: Sharing) -> Sharing:
        """Return which arms have had a share in every epoch of an experiment; reads those that are not known yet."""
        with transaction(self._reading) as connection:
            return read_sharing(connection, experiment_id, known)

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
