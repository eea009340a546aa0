"""Changing endpoints and experiments: what is checked, and which state allows which change."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import msgspec

from models.errors import ModelError, RegistryUnavailable
from models.reference import ModelReference
from models.registry import Registry
from models.signature import Signature
from router.allocation.bandit import bandit_epoch
from router.allocation.tables import first_epoch, next_epoch
from router.assignment.epochs import Epoch
from router.bandits import what_is_known
from router.changes import refuse_changes
from router.documents import (
    Bandit,
    Endpoint,
    Experiment,
    Rollout,
    check_endpoint,
    check_experiment,
    check_rollout,
)
from router.errors import Conflict, InvalidDocument, RevisionMismatch, RevisionRequired
from router.ledger.control import ControlTables
from router.ledger.control_writing import Change, EndpointRecord, EpochRecord, EpochTaken, ExperimentRecord, State
from router.ledger.rollouts import RolloutTables

ANY_REVISION = "*"
CANDIDATE_ID = "id"
_ATTEMPTS = 10


class Control:
    """Reads and changes endpoints and experiments; every method blocks on the database, so call it from a thread.

    `actor` is who asks for a change, as the audit log names them.
    """

    def __init__(
        self, tables: ControlTables, rollouts: RolloutTables, registry: Registry, clock: Callable[[], int]
    ) -> None:
        self._tables = tables
        self._rollouts = rollouts
        self._registry = registry
        self._clock = clock

    def endpoints(self) -> list[EndpointRecord]:
        """Return every endpoint, by name."""
        return self._tables.endpoints()

    def endpoint(self, name: str) -> EndpointRecord:
        """Return one endpoint, or raise UnknownEndpoint."""
        return self._tables.endpoint(name)

    def create_endpoint(self, document: Endpoint, *, actor: str) -> EndpointRecord:
        """Create an endpoint whose champion is in the registry."""
        self._check_endpoint(document)
        self._tables.create_endpoint(document, self._clock(), actor=actor)
        return self._tables.endpoint(document.name)

    def replace_endpoint(self, document: Endpoint, if_match: str | None, *, actor: str) -> EndpointRecord:
        """Replace an endpoint.

        Raises:
            InvalidDocument: The new champion does not take and give what the old one does, or takes what the arm of a
                started experiment does not.
        """
        current = self._tables.endpoint(document.name)
        revision = checked_revision(f"endpoint {document.name!r}", if_match, current.revision)
        if document.kind != current.document.kind:
            raise InvalidDocument("an endpoint keeps its kind; create a new one", field="kind")
        champion = self._check_endpoint(document)
        for difference in self._misfits(current.document, document.champion, champion):
            raise InvalidDocument(difference, field="champion")
        self._tables.replace_endpoint(document, revision, self._clock(), actor=actor)
        return self._tables.endpoint(document.name)

    def _check_endpoint(self, document: Endpoint) -> Signature:
        """Return the champion's signature."""
        check_endpoint(document)
        champion = self._registry.verify(ModelReference.parse(document.champion)).signature
        if document.kind == "rank" and CANDIDATE_ID in [feature.name for feature in champion.features]:
            raise InvalidDocument(
                f"model {document.champion!r} has a feature {CANDIDATE_ID!r}, which is what names the candidates of a "
                "rank endpoint: rename the feature",
                field="champion",
            )
        self._check_shadows(champion, document.shadows)
        return champion

    def _check_shadows(self, champion: Signature, shadows: Sequence[str]) -> None:
        for index, reference in enumerate(shadows):
            if differences := champion.accepts(self._signature(reference)):
                message = f"shadow {reference!r} does not fit the endpoint: {'; '.join(differences)}"
                raise InvalidDocument(message, field=f"shadows[{index}]")

    def _misfits(self, current: Endpoint, reference: str, champion: Signature) -> Iterator[str]:
        """Yield why a champion cannot follow the current one, or serve beside the arms of started experiments."""
        # An old champion whose files are gone must not keep its successor out.
        with contextlib.suppress(ModelError):
            if differences := self._signature(current.champion).accepts(champion):
                yield f"model {reference!r} does not fit endpoint {current.name!r}: {'; '.join(differences)}"
        for record in self._tables.experiments():
            if record.document.endpoint != current.name or record.state not in {"running", "paused"}:
                continue
            for arm in record.document.arms:
                if differences := champion.accepts(self._signature(arm.model)):
                    where = f"arm {arm.name!r} of experiment {record.document.name!r}"
                    yield f"model {reference!r} takes requests that {where} does not: {'; '.join(differences)}"

    def experiments(self) -> list[ExperimentRecord]:
        """Return every experiment, oldest first."""
        return self._tables.experiments()

    def experiment(self, name: str) -> ExperimentRecord:
        """Return one experiment, or raise UnknownExperiment."""
        return self._tables.experiment(name)

    def epochs(self, name: str, limit: int, before: int | None = None) -> list[EpochRecord]:
        """Return the newest epochs of an experiment, or those before a number; oldest first."""
        return self._tables.epochs(self._tables.experiment(name).id, limit, before)

    def create_experiment(self, document: Experiment, *, actor: str) -> ExperimentRecord:
        """Create an experiment as a draft."""
        self.check(document)
        self._tables.create_experiment(document, self._clock(), actor=actor)
        return self._tables.experiment(document.name)

    def replace_experiment(self, document: Experiment, if_match: str | None, *, actor: str) -> ExperimentRecord:
        """Replace a draft's document, or what can still change of a started experiment.

        New weights are a new epoch, which moves the fewest possible units.
        """
        for _ in range(_ATTEMPTS):
            # A bandit goes on publishing while its document is changed.
            with contextlib.suppress(EpochTaken):
                return self._replace_experiment(document, if_match, actor)
        raise Conflict(f"experiment {document.name!r} publishes epochs faster than it can be changed; try again")

    def _replace_experiment(self, document: Experiment, if_match: str | None, actor: str) -> ExperimentRecord:
        record, change = self._begin(document.name, if_match)
        if record.state == "concluded":
            raise Conflict(f"experiment {document.name!r} is concluded and cannot change; create a new one")
        self.check(document, started=record.epoch is not None)
        if document.endpoint != record.document.endpoint:
            raise InvalidDocument("an experiment keeps its endpoint; create a new one", field="endpoint")
        change = msgspec.structs.replace(change, document=document)
        if record.epoch is not None:
            refuse_changes(record, document)
            change = self._reallocated(record, record.epoch, change)
        return self._apply(record, change, actor, "replace")

    def start(self, name: str, if_match: str | None, *, actor: str) -> ExperimentRecord:
        """Start a draft: its first epoch lays the arms out in order."""
        record, change = self._begin(name, if_match)
        _require_state(record, "start", "draft")
        self.check(record.document)
        epoch = self._first_epoch(record)
        started = msgspec.structs.replace(
            change, state="running", started_ms=self._clock(), epoch=epoch, reason="start"
        )
        return self._apply(record, started, actor, "start")

    def pause(self, name: str, if_match: str | None, *, actor: str) -> ExperimentRecord:
        """Stop taking units; the champion serves them until the experiment is resumed."""
        record, change = self._begin(name, if_match)
        _require_state(record, "pause", "running")
        return self._apply(record, msgspec.structs.replace(change, state="paused"), actor, "pause")

    def resume(self, name: str, if_match: str | None, *, actor: str) -> ExperimentRecord:
        """Take units again, with the epoch of before: every unit gets the arm that it had."""
        record, change = self._begin(name, if_match)
        _require_state(record, "resume", "paused")
        return self._apply(record, msgspec.structs.replace(change, state="running"), actor, "resume")

    def conclude(self, name: str, if_match: str | None, *, actor: str, action: str = "conclude") -> ExperimentRecord:
        """End the experiment for good; outcomes of its decisions are still counted."""
        record, change = self._begin(name, if_match)
        _require_state(record, "conclude", "running", "paused")
        concluded = msgspec.structs.replace(change, state="concluded", ended_ms=self._clock())
        return self._apply(record, concluded, actor, action)

    def _first_epoch(self, record: ExperimentRecord) -> Epoch:
        document, now_ms = record.document, self._clock()
        if isinstance(document.allocation, Bandit):
            return bandit_epoch(document, None, what_is_known(self._tables, record, now_ms), now_ms)
        return first_epoch(document)

    def _reallocated(self, record: ExperimentRecord, epoch: Epoch, change: Change) -> Change:
        """Return the change with the epoch that its document needs, if it differs from the newest one."""
        document, now_ms = change.document, self._clock()
        if isinstance(document.allocation, Bandit):
            changed = msgspec.structs.replace(record, document=document)
            following = bandit_epoch(document, epoch, what_is_known(self._tables, changed, now_ms), now_ms)
            return msgspec.structs.replace(change, epoch=following, reason="new settings")
        return _reweighted(epoch, change)

    def _begin(self, name: str, if_match: str | None) -> tuple[ExperimentRecord, Change]:
        record = self._tables.experiment(name)
        checked_revision(f"experiment {name!r}", if_match, record.revision)
        if (owner := self._rollouts.owner(name)) is not None:
            raise Conflict(
                f"experiment {name!r} is run by rollout {owner.document.name!r}: hold, advance or roll that one back"
            )
        return record, Change(record.document, record.state, record.started_ms, record.ended_ms)

    def _apply(self, record: ExperimentRecord, change: Change, actor: str, action: str) -> ExperimentRecord:
        self._tables.change_experiment(record, change, self._clock(), actor=actor, action=action)
        return self._tables.experiment(record.document.name)

    def check_rollout(self, document: Rollout) -> Endpoint:
        """Return the endpoint on which a rollout can be carried out.

        Raises:
            InvalidDocument, UnknownEndpoint, ModelNotFound: It cannot.
            RegistryUnavailable: That cannot be said now.
        """
        # Of a volume that is not mounted an empty folder is left.
        if not self._registry.names():
            raise RegistryUnavailable(f"registry {self._registry.root} is empty; is its volume mounted?")
        endpoint = self._tables.endpoint(document.endpoint).document
        expected = self._signature(endpoint.champion)
        check_rollout(document, kind=endpoint.kind, output=expected.output, timeout_ms=endpoint.timeout_ms)
        if document.candidate == endpoint.champion:
            message = f"{document.candidate!r} is the champion of endpoint {document.endpoint!r} already"
            raise InvalidDocument(message, field="candidate")
        candidate = self._registry.verify(ModelReference.parse(document.candidate)).signature
        # In the last stage it has to serve what the champion is asked, and the champion what it is asked.
        if differences := [*expected.accepts(candidate), *candidate.accepts(expected)]:
            message = f"{document.candidate!r} does not fit endpoint {document.endpoint!r}: {'; '.join(differences)}"
            raise InvalidDocument(message, field="candidate")
        return endpoint

    def check(self, document: Experiment, *, started: bool = False) -> None:
        """Raise InvalidDocument where an experiment contradicts itself, its endpoint or what is registered.

        One that has started keeps what it counts as slow, whatever the endpoint's timeout has become.
        """
        endpoint = self._tables.endpoint(document.endpoint)
        expected = self._signature(endpoint.document.champion)
        timeout_ms = None if started else endpoint.document.timeout_ms
        check_experiment(document, kind=endpoint.document.kind, output=expected.output, timeout_ms=timeout_ms)
        for index, arm in enumerate(document.arms):
            if differences := expected.accepts(self._signature(arm.model)):
                raise InvalidDocument(
                    f"model {arm.model!r} of arm {arm.name!r} does not fit endpoint {document.endpoint!r}: "
                    f"{'; '.join(differences)}",
                    field=f"arms[{index}].model",
                )
        self._check_shadows(expected, document.shadows)

    def _signature(self, reference: str) -> Signature:
        return self._registry.manifest(ModelReference.parse(reference)).signature


def checked_revision(thing: str, if_match: str | None, current: int) -> int:
    """Return the revision that a write is based on.

    Raises:
        RevisionRequired, RevisionMismatch: It is not said, or somebody else wrote since.
    """
    if if_match is None:
        raise RevisionRequired(f'{thing} needs If-Match: "{current}" (its revision), so that no change is lost')
    text = if_match.removeprefix("W/").strip('"')
    if text == ANY_REVISION:
        return current
    if text != str(current):
        raise RevisionMismatch(thing, current, text)
    return current


def _require_state(record: ExperimentRecord, verb: str, *allowed: State) -> None:
    if record.state not in allowed:
        name = record.document.name
        raise Conflict(f"cannot {verb} experiment {name!r}: it is {record.state}, not {' or '.join(allowed)}")


def _reweighted(epoch: Epoch, change: Change) -> Change:
    """Return the change with the epoch that its weights, holdout and traffic need, if they differ from this one's."""
    following = next_epoch(epoch, change.document)
    if following is None:
        return change
    reason = "new traffic" if following.table == epoch.table else "new weights"
    return msgspec.structs.replace(change, epoch=following, reason=reason)
