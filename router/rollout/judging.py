"""The verdict of an experiment or of a rollout's stage, from the evidence in the ledger."""

from collections.abc import Callable

from router.documents import Experiment, Guardrails, Interleave, InterleaveStage, ShadowStage
from router.documents.rollouts import AnyStage
from router.errors import InvalidRequest
from router.ledger.control import ControlTables
from router.ledger.control_writing import ExperimentRecord
from router.ledger.evidence import ANY_MINUTE, BEFORE, dump_reading, load_reading, longest_window_s
from router.ledger.rollouts import RolloutRecord, RolloutTables
from router.ledger.shadowed import Shadowed
from router.ledger.sharing import Sharing
from router.ledger.statistics import MS_PER_MINUTE
from router.rollout.evidence import EvidenceReader, Subject
from router.rollout.shadows import exhausted, scored_metrics, shadow_findings
from router.rollout.stages import CANDIDATE_ARM, CONTROL_ARM
from router.rollout.verdicts import Judgement, judge

DEFAULT_ERROR = 0.05
"""Of an experiment's verdict."""


class Judge:
    """Judges experiments and rollouts; blocks on the database, so call it from a thread."""

    def __init__(self, tables: RolloutTables, control: ControlTables, clock: Callable[[], int]) -> None:
        self._tables = tables
        self._control = control
        self._clock = clock
        self._evidence = EvidenceReader(tables)
        self._sharing: dict[int, Sharing] = {}

    def experiment(self, name: str, arm: str | None = None) -> Judgement:
        """Return the verdict on an arm beside the control: the one that is named, or the only other one.

        Raises:
            UnknownExperiment, InvalidRequest: There is no such experiment or arm, or it is not said which.
        """
        record = self._control.experiment(name)
        document = record.document
        if record.epoch is None:
            return judge((), "better", [f"experiment {name!r} has not started"])
        subject = _subject_of(record, _candidate(document, arm))
        if self._tables.evidence(record.id, (BEFORE,), ANY_MINUTE + 1):
            return judge(
                (), "better", [f"experiment {name!r} began before evidence was kept; `turnout report` judges it"]
            )
        return judge(self._evidence.findings(subject, self._clock()), "better", self._apart(record, subject))

    def stage(self, record: RolloutRecord) -> Judgement:
        """Return the verdict on the stage that a rollout is in."""
        stage = record.document.stages[record.stage]
        if record.champion is None:
            return judge((), stage.advance, [f"rollout {record.document.name!r} has not begun"])
        if isinstance(stage, ShadowStage):
            return self._shadow(record, stage, record.champion)
        subject = self._subject(record, stage)
        findings, seen = self._evidence.findings(subject, self._clock()), self._evidence.decisions(subject)
        return judge(findings, stage.advance, self._unmet(record, stage, seen))

    def decisions(self, record: RolloutRecord, stage: AnyStage) -> int:
        """Return how many decisions count for a stage so far, those of earlier stages included."""
        if isinstance(stage, ShadowStage) or not record.experiments:
            return 0
        return self._evidence.decisions(self._subject(record, stage))

    def before(self, record: RolloutRecord, stage: AnyStage) -> bytes | None:
        """Return what is known when a stage begins, to be kept with it; None where that is nothing."""
        if isinstance(stage, ShadowStage) or not (subject := self._subject(record, stage)).experiments:
            return None
        return dump_reading(self._evidence.read(subject, self._clock()))

    def close_windows(self) -> None:
        """Add up, of every experiment, what no default can change any more, so that reading it stays quick."""
        for record in self._control.experiments():
            if window_s := longest_window_s(record.document):
                before = (self._clock() - 1000 * window_s) // MS_PER_MINUTE
                self._tables.close(record.id, before)

    def _subject(self, record: RolloutRecord, stage: AnyStage) -> Subject:
        """Return the rollout's experiments that divide traffic, or those that mix lists, as the stage does."""
        rollout = record.document
        mine = [each for each in self._control.experiments() if each.document.name in record.experiments]
        mixes = stage_mixes(stage)
        ids = tuple(each.id for each in mine if isinstance(each.document.allocation, Interleave) == mixes)
        return Subject(
            ids,
            CONTROL_ARM,
            CANDIDATE_ARM,
            metrics=rollout.metrics,
            guardrails=rollout.guardrails,
            error=rollout.error,
            planned=rollout.planned_decisions,
            mixes=mixes,
            later_stages=max(sum(_adds_to(each, mixes=mixes) for each in rollout.stages) - 1, 0),
            before_stage=None if record.before_stage is None else load_reading(record.before_stage),
        )

    def _shadow(self, record: RolloutRecord, stage: ShadowStage, champion: str) -> Judgement:
        rollout = record.document
        # A hold begins the stage's time anew, but not its evidence.
        began = (step.at_ms for step in self._tables.transitions(record.id) if step.state == "running")
        since_ms = next(began, record.created_ms)
        shadow = Shadowed(rollout.endpoint, rollout.candidate, champion, since_ms)
        calls = self._tables.shadow_calls(shadow)
        pairs = {each.name: self._tables.shadow_pairs(shadow, each.label) for each in scored_metrics(rollout)}
        findings = shadow_findings(rollout, calls, {name: each.found for name, each in pairs.items()})
        judgement = judge(findings, stage.advance, self._unmet(record, stage, calls.asked))
        if not any(each.cut for each in pairs.values()):
            return judgement
        return exhausted(judgement, [each for each in findings if each.name in pairs], stage.advance)

    def _unmet(self, record: RolloutRecord, stage: AnyStage, seen: int) -> list[str]:
        unmet = []
        decided = seen - record.stage_decisions
        if decided < stage.min_decisions:
            unmet.append(f"{decided:,} of {stage.min_decisions:,} decisions of the candidate in this stage")
        elif not seen:
            unmet.append("no decision of the candidate so far")
        lasted_s = (self._clock() - (record.stage_ms or record.created_ms)) / 1000
        if lasted_s < stage.min_s:
            unmet.append(f"{lasted_s:.0f} of {stage.min_s:g} seconds in this stage")
        return unmet

    def _apart(self, record: ExperimentRecord, subject: Subject) -> list[str]:
        """Return why two of several arms cannot be compared: there was a time when one of them had no share."""
        if subject.two_arms or subject.mixes:
            return []
        sharing = self._control.sharing(record.id, self._sharing.get(record.id, Sharing()))
        self._sharing[record.id] = sharing
        if sharing.includes((subject.control, subject.candidate)):
            return []
        name = record.document.arms[subject.candidate].name
        return [f"arm {name!r} or the control had no share in some epoch; `turnout report` compares the others"]


def _adds_to(stage: AnyStage, *, mixes: bool) -> bool:
    """Return whether a stage adds to the evidence of those that mix lists, or of those that do not."""
    return not isinstance(stage, ShadowStage) and stage_mixes(stage) == mixes


def stage_mixes(stage: AnyStage) -> bool:
    """Return whether a stage's lists mix the rankings of both arms."""
    return isinstance(stage, InterleaveStage)


def _subject_of(record: ExperimentRecord, candidate: int) -> Subject:
    document = record.document
    return Subject(
        (record.id,),
        CONTROL_ARM,
        candidate,
        document.metrics,
        Guardrails(),
        DEFAULT_ERROR,
        document.planned_decisions,
        mixes=isinstance(document.allocation, Interleave),
        two_arms=len(document.arms) == 2,
    )


def _candidate(document: Experiment, name: str | None) -> int:
    names = [arm.name for arm in document.arms]
    if name is None and len(names) == 2:
        return 1
    if name in names[1:]:
        return names.index(name)
    said = "it has several arms" if name is None else f"{name!r} is none of its arms besides the control"
    raise InvalidRequest(
        f"experiment {document.name!r}: {said}; name one with ?arm=, of: {', '.join(names[1:])}", field="arm"
    )
