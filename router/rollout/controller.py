"""Moves candidates from stage to stage, and back: any replica may, and the ledger lets one do it."""

import contextlib
import logging
from collections.abc import Callable
from typing import Literal

import msgspec

from models.errors import ModelError, RegistryUnavailable, RemoteUnavailable
from router.control import Control, checked_revision
from router.documents import Rollout
from router.documents.rollouts import AnyStage
from router.errors import AlreadyExists, Conflict, InvalidDocument, LedgerUnavailable, RevisionMismatch
from router.ledger.control import ControlTables
from router.ledger.control_writing import Author, ExperimentRecord
from router.ledger.rollouts import Demoted, RolloutRecord, RolloutTables, Step, TransitionRecord, TurnTaken
from router.rollout.judging import Judge
from router.rollout.stages import experiment_of
from router.rollout.steps import Steps
from router.rollout.verdicts import Judgement

CONTROLLER = "controller"
"""What the audit log calls steps that nobody asked for."""

By = Literal["hold", "resume", "advance", "rollback"]

_ENDED = {"promoted", "rolled_back"}
_ATTEMPTS = 10

_logger = logging.getLogger(__name__)


class Rollouts:
    """Creates rollouts, and takes their steps by evidence or by hand; blocks on the database."""

    def __init__(
        self, tables: RolloutTables, control_tables: ControlTables, control: Control, clock: Callable[[], int]
    ) -> None:
        self._tables = tables
        self._control = control
        self._clock = clock
        self.judge = Judge(tables, control_tables, clock)
        self._steps = Steps(control_tables, self.judge, clock)
        self._unreachable: set[int] = set()
        """Rollouts of which it has been said that they wait for the registry, or for a model elsewhere."""

    def rollouts(self) -> list[RolloutRecord]:
        """Return every rollout, oldest first."""
        return self._tables.rollouts()

    def rollout(self, name: str) -> RolloutRecord:
        """Return one rollout, or raise UnknownRollout."""
        return self._tables.rollout(name)

    def transitions(self, record: RolloutRecord) -> list[TransitionRecord]:
        """Return the steps that a rollout has taken, oldest first."""
        return self._tables.transitions(record.id)

    def create(self, document: Rollout, *, actor: str) -> RolloutRecord:
        """Store a rollout, which begins as soon as no other one of its endpoint is under way.

        Raises:
            InvalidDocument, UnknownEndpoint, ModelNotFound: It could not be carried out.
            AlreadyExists: The name is taken.
        """
        self._check(document)
        self._tables.create(document, Author(actor, self._clock(), "create"))
        return self._tables.rollout(document.name)

    def move(self, name: str, by: By, if_match: str | None, *, actor: str) -> RolloutRecord:
        """Take a step by hand: hold where it is, go on, go on whatever the evidence says, or go back.

        Raises:
            RevisionMismatch: The rollout is at another revision, or has taken a step since it was to go on.
        """
        thing = f"rollout {name!r}"
        base: int | None = None
        for _ in range(_ATTEMPTS):
            record = self._tables.rollout(name)
            checked_revision(thing, if_match, record.revision)
            base = base or record.revision
            if by in {"resume", "advance"} and record.revision != base:
                # Once more would be a step further than was asked for.
                raise RevisionMismatch(thing, record.revision, base)
            if self._applied(self._moved(record, by), actor, by):
                return self._tables.rollout(name)
        raise Conflict(f"{thing} changes faster than it can {by}; try again")

    def roll_back_experiment(self, name: str, if_match: str | None, *, actor: str) -> ExperimentRecord:
        """End an experiment, and the rollout under way that runs it.

        Raises:
            RevisionMismatch: The experiment is at another revision.
            Conflict: It has ended, or never began.
        """
        for _ in range(_ATTEMPTS):
            owner, record = self._tables.owner(name), self._control.experiment(name)
            checked_revision(f"experiment {name!r}", if_match, record.revision)
            if record.state not in {"running", "paused"}:
                raise Conflict(f"cannot roll back experiment {name!r}: it is {record.state}, not running or paused")
            if owner is None:
                with contextlib.suppress(RevisionMismatch):
                    return self._control.conclude(name, str(record.revision), actor=actor, action="rollback")
            elif self._applied(self._moved(owner, "rollback"), actor, "rollback"):
                return self._control.experiment(name)
        raise Conflict(f"experiment {name!r} changes faster than it can be rolled back; try again")

    def _moved(self, record: RolloutRecord, by: By) -> Step:
        if record.state in _ENDED:
            raise Conflict(f"cannot {by} rollout {record.document.name!r}: it is {record.state}; create a new one")
        reason = f"{by} by hand"
        match by:
            case "hold":
                _require(record, by, "running", "waiting")
                return self._steps.stay(record, "held", reason)
            case "resume":
                _require(record, by, "held")
                return self._resumed(record, reason)
            case "advance":
                _require(record, by, "running", "held")
                return self._pushed(record, reason)
            case "rollback":
                return self._steps.roll_back(record, reason)

    def _applied(self, step: Step, actor: str, by: By) -> bool:
        """Take a step, unless what it is based on has changed since: the rollout, its experiment or the endpoint."""
        try:
            self._tables.apply(step, Author(actor, self._clock(), by))
        except (RevisionMismatch, AlreadyExists):
            return False
        return True

    def step(self) -> bool:
        """Take the steps that the evidence allows; return whether any was taken, here or elsewhere."""
        taken = [self._step(record) for record in self._tables.rollouts(("waiting", "running", "held"))]
        return any(taken)

    def _step(self, record: RolloutRecord) -> bool:
        name = record.document.name
        try:
            found = self._next(record)
            self._unreachable.discard(record.id)
            if found is None:
                return False
            action, step = found
            self._tables.apply(step, Author(CONTROLLER, self._clock(), action))
        except (RevisionMismatch, AlreadyExists, Demoted, TurnTaken):
            # Another replica, or a person, was faster; or took the name of the next experiment.
            return True
        except LedgerUnavailable:
            raise
        except (RegistryUnavailable, RemoteUnavailable) as error:
            if record.id not in self._unreachable:
                self._unreachable.add(record.id)
                _logger.warning("rollout %r stays where it is until it can be checked: %s", name, error)
            return False
        except Exception:
            # Whatever is wrong with one rollout, the others go on; this one stays where it is.
            _logger.exception("cannot take the next step of rollout %r", name)
            return False
        _logger.info("rollout %r: %s, %s", name, action, step.reason)
        return True

    def _next(self, record: RolloutRecord) -> tuple[str, Step] | None:
        if record.state == "waiting":
            return self._begun(record) if self._is_first(record) else None
        if record.champion is None:
            return None
        if problem := self._steps.stopped(record):
            return None if record.state == "held" else ("hold", self._steps.stay(record, "held", problem))
        judgement = self.judge.stage(record)
        reason = "; ".join(judgement.reasons)
        if judgement.verdict == "rollback":
            return "rollback", self._steps.roll_back(record, reason, judgement.findings)
        if record.state == "held":
            return None
        if problem := self._steps.replaced(record) or self._steps.demoted(record):
            return "hold", self._steps.stay(record, "held", problem)
        if judgement.verdict == "advance":
            return "advance", self._steps.advance(record, reason, judgement.findings)
        if (overdue := self._overdue(record, judgement)) is not None:
            return overdue
        return ("hold", self._steps.stay(record, "held", reason, judgement.findings)) if judgement.exhausted else None

    def _overdue(self, record: RolloutRecord, judgement: Judgement) -> tuple[str, Step] | None:
        stage = record.document.stages[record.stage]
        lasted_s = (self._clock() - (record.stage_ms or 0)) / 1000
        if stage.max_s is None or lasted_s < stage.max_s:
            return None
        reason = f"no verdict within {stage.max_s:g} s: {'; '.join(judgement.reasons)}"
        if stage.otherwise == "rollback":
            return "rollback", self._steps.roll_back(record, reason, judgement.findings)
        return "hold", self._steps.stay(record, "held", reason, judgement.findings)

    def _is_first(self, record: RolloutRecord) -> bool:
        """Return whether nothing of the endpoint is under way or has waited longer; one that is held steps aside."""
        others = self._tables.rollouts(("waiting", "running", "held"))
        mine = [each for each in others if each.document.endpoint == record.document.endpoint]
        waiting = [each.id for each in mine if each.state == "waiting"]
        return min(waiting, default=None) == record.id and all(each.champion is None for each in mine)

    def _begun(self, record: RolloutRecord) -> tuple[str, Step]:
        try:
            self._check(record.document)
        except (RegistryUnavailable, RemoteUnavailable):
            raise
        except (InvalidDocument, ModelError) as error:
            return "rollback", self._steps.roll_back(record, f"it cannot begin any more: {error}")
        return "start", self._steps.begin(record)

    def _resumed(self, record: RolloutRecord, reason: str) -> Step:
        if record.champion is None:
            return self._steps.stay(record, "waiting", reason)
        self._refuse_other_champion(record, "resume")
        if self._steps.stopped(record) or self._steps.demoted(record):
            return self._steps.enter(record, record.stage, reason)
        return msgspec.structs.replace(self._steps.stay(record, "running", reason), stage_ms=self._clock())

    def _pushed(self, record: RolloutRecord, reason: str) -> Step:
        name = record.document.name
        if record.champion is None:
            raise Conflict(f"cannot advance rollout {name!r}: it has not begun; resume it")
        self._refuse_other_champion(record, "advance")
        if problem := self._steps.demoted(record):
            raise Conflict(f"cannot advance rollout {name!r}: {problem}")
        return self._steps.advance(record, reason)

    def _refuse_other_champion(self, record: RolloutRecord, by: By) -> None:
        if problem := self._steps.replaced(record):
            raise Conflict(f"cannot {by} rollout {record.document.name!r}: {problem}")

    def _check(self, rollout: Rollout) -> None:
        """Check that every stage could be carried out on the endpoint as it is now."""
        endpoint = self._control.check_rollout(rollout)
        for index, stage in enumerate(rollout.stages):
            document = experiment_of(rollout, stage, endpoint.champion, ())
            if document is not None:
                try:
                    self._control.check(document)
                except InvalidDocument as error:
                    raise InvalidDocument(str(error), field=_field(index, stage, error.field)) from error


def _require(record: RolloutRecord, by: By, *allowed: str) -> None:
    if record.state not in allowed:
        name = record.document.name
        raise Conflict(f"cannot {by} rollout {name!r}: it is {record.state}, not {' or '.join(allowed)}")


def _field(number: int, stage: AnyStage, field: str | None) -> str | None:
    """Return where in a rollout stands what is wrong in the experiment of one of its stages."""
    if field is None or not field.startswith(("arms", "allocation")):
        return field
    if field.startswith("arms"):
        return "candidate"
    name = field.removeprefix("allocation.")
    return f"stages[{number}].{name}" if name in stage.__struct_fields__ else f"stages[{number}]"
