"""What each step of a rollout changes: read from the ledger, and written by whoever takes the step."""

from collections.abc import Callable

import msgspec

from router.allocation.tables import next_epoch
from router.documents import ChampionStage, Endpoint, Experiment, Rollout, ShadowStage, Split
from router.documents.rollouts import AnyStage
from router.ledger.control import ControlTables
from router.ledger.control_writing import Change, ExperimentRecord
from router.ledger.rollouts import Begun, RolloutRecord, RolloutState, Step
from router.rollout.judging import Judge
from router.rollout.stages import allocation_of, endpoint_in, endpoint_without, epoch_of, experiment_of, units_of

Findings = tuple[object, ...]


class Steps:
    """Works out steps; reads the control tables and the evidence, and changes nothing."""

    def __init__(self, control: ControlTables, judge: Judge, clock: Callable[[], int]) -> None:
        self._control = control
        self._judge = judge
        self._clock = clock

    def stay(self, record: RolloutRecord, state: RolloutState, reason: str, findings: Findings = ()) -> Step:
        """Return a step that changes nothing but the state."""
        return Step(
            record=record,
            state=state,
            stage=record.stage,
            reason=reason,
            findings=findings,
            champion=record.champion,
            experiments=record.experiments,
            stage_ms=record.stage_ms,
            stage_decisions=record.stage_decisions,
            before_stage=record.before_stage,
        )

    def begin(self, record: RolloutRecord) -> Step:
        """Return the step into the first stage, beside whoever is champion now."""
        champion = self._control.endpoint(record.document.endpoint).document.champion
        step = self.enter(msgspec.structs.replace(record, champion=champion), 0, f"beside champion {champion}")
        return msgspec.structs.replace(step, record=record)

    def enter(self, record: RolloutRecord, number: int, reason: str, findings: Findings = ()) -> Step:
        """Return the step into a stage: the endpoint and the experiments as that stage wants them."""
        rollout, stage, champion = record.document, record.document.stages[number], record.champion
        if champion is None:
            raise AssertionError(f"rollout {rollout.name!r} has no champion to compare with")
        endpoint, now_ms = self._control.endpoint(rollout.endpoint), self._clock()
        step = msgspec.structs.replace(
            self.stay(record, "running", reason, findings),
            stage=number,
            stage_ms=now_ms,
            stage_decisions=self._judge.decisions(record, stage),
            before_stage=self._judge.before(record, stage),
            endpoint=_changed(endpoint.document, endpoint_in(rollout, stage, endpoint.document), endpoint.revision),
        )
        current = self._current(record)
        if current is not None and (change := _reweighted(current, rollout, stage)) is not None:
            return msgspec.structs.replace(step, changed=((current, change),))
        step = msgspec.structs.replace(step, changed=self._concluded(record))
        taken = [each.document.name for each in self._control.experiments()]
        document = experiment_of(rollout, stage, champion, taken)
        if document is None:
            ends = isinstance(stage, ChampionStage)
            return msgspec.structs.replace(step, state="promoted", ended_ms=now_ms) if ends else step
        begun = (Begun(document, epoch_of(document, now_ms)),)
        return msgspec.structs.replace(step, begun=begun, experiments=(*record.experiments, document.name))

    def advance(self, record: RolloutRecord, reason: str, findings: Findings = ()) -> Step:
        """Return the step into the next stage, or out of the last one, with the candidate as champion."""
        if record.stage + 1 < len(record.document.stages):
            return self.enter(record, record.stage + 1, reason, findings)
        return msgspec.structs.replace(
            self.stay(record, "promoted", reason, findings), ended_ms=self._clock(), changed=self._concluded(record)
        )

    def roll_back(self, record: RolloutRecord, reason: str, findings: Findings = ()) -> Step:
        """Return the step that takes the candidate out; if the rollout never began, there is nothing to take out."""
        step = msgspec.structs.replace(
            self.stay(record, "rolled_back", reason, findings), ended_ms=self._clock(), changed=self._concluded(record)
        )
        if record.champion is None:
            return step
        endpoint = self._control.endpoint(record.document.endpoint)
        without = endpoint_without(record.document, endpoint.document, record.champion)
        return msgspec.structs.replace(step, endpoint=_changed(endpoint.document, without, endpoint.revision))

    def stopped(self, record: RolloutRecord) -> str | None:
        """Return why the stage's experiment does not run, if somebody stopped it."""
        current = self._current(record)
        if current is None or current.state == "running":
            return None
        return f"experiment {current.document.name!r} is {current.state}: resume the rollout to go on with a new one"

    def replaced(self, record: RolloutRecord) -> str | None:
        """Return who has become the endpoint's champion meanwhile, if somebody has."""
        rollout = record.document
        champion = self._control.endpoint(rollout.endpoint).document.champion
        served = {record.champion}
        if isinstance(rollout.stages[record.stage], ChampionStage):
            served.add(rollout.candidate)
        if champion in served:
            return None
        return (
            f"{champion!r} has become champion of endpoint {rollout.endpoint!r}, and the candidate was compared with "
            f"{record.champion!r}: roll this rollout back and create a new one"
        )

    def demoted(self, record: RolloutRecord) -> str | None:
        """Return what the candidate is no longer, though the stage wants it to be, if somebody took it out."""
        rollout, stage = record.document, record.document.stages[record.stage]
        endpoint = self._control.endpoint(rollout.endpoint).document
        if isinstance(stage, ShadowStage) and rollout.candidate not in endpoint.shadows:
            role = "a shadow"
        elif isinstance(stage, ChampionStage) and rollout.candidate != endpoint.champion:
            role = "the champion"
        else:
            return None
        return (
            f"{rollout.candidate!r} is {role} of endpoint {rollout.endpoint!r} no longer: resume the rollout to make "
            "it so again, or roll it back"
        )

    def _current(self, record: RolloutRecord) -> ExperimentRecord | None:
        """Return the experiment that the rollout began last."""
        return self._control.experiment(record.experiments[-1]) if record.experiments else None

    def _concluded(self, record: RolloutRecord) -> tuple[tuple[ExperimentRecord, Change], ...]:
        """Return the end of the current experiment: nobody gets the candidate by it any more."""
        current = self._current(record)
        if current is None or current.state == "concluded":
            return ()
        return ((current, Change(current.document, "concluded", current.started_ms, self._clock())),)


def _reweighted(current: ExperimentRecord, rollout: Rollout, stage: AnyStage) -> Change | None:
    """Return the change that gives a running split the shares of a stage, which moves the fewest units."""
    allocation, document = allocation_of(rollout, stage), current.document
    if current.state != "running" or current.epoch is None or not isinstance(allocation, Split):
        return None
    if not isinstance(document.allocation, Split) or (document.traffic, document.audience) != units_of(rollout, stage):
        return None
    changed: Experiment = msgspec.structs.replace(document, allocation=allocation)
    epoch = next_epoch(current.epoch, changed)
    return Change(changed, "running", current.started_ms, None, epoch, "next stage")


def _changed(before: Endpoint, after: Endpoint, revision: int) -> tuple[Endpoint, int] | None:
    return None if before == after else (after, revision)
