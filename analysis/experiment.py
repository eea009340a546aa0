"""One experiment as the ledger records it: arms, metrics, epochs."""

import json
from typing import Literal, NamedTuple

import msgspec

from analysis.errors import ExperimentNotFound, InvalidExperiment, UnknownMetric
from analysis.source import Source

Direction = Literal["increase", "decrease"]

HOLDOUT = 255
"""The arm of units that no arm gets: the champion serves them, and they are compared with nobody."""

INTERLEAVED = 254
"""The arm of lists that mix the rankings of all arms."""

PLANNED_DECISIONS = 10_000
"""The planned size of experiments that do not say theirs."""

FORCED = 0
"""The epoch of decisions whose arm the client named: it was not drawn, so it counts nowhere."""


class Metric(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """How outcomes become a number per unit; `margin` is in the metric's own unit."""

    name: str
    direction: Direction
    role: Literal["primary", "secondary", "guardrail"] = "secondary"
    window_s: int = 86_400
    late: Literal["count", "ignore"] | None = None
    margin: float | None = None

    @property
    def wanted(self) -> str:
        """What is better, in words."""
        return "lower is better" if self.direction == "decrease" else "higher is better"

    @property
    def ignores_late(self) -> bool:
        """Whether outcomes that happened after the window count for nothing; unless said, where there is a default."""
        if self.late is None:
            return getattr(self, "default", None) is not None
        return self.late == "ignore"


class BinaryMetric(Metric, tag="binary", frozen=True, kw_only=True):
    """0 or 1; `default` counts for what has no outcome when its window closes."""

    default: float | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The lowest and the highest value that counts; declared in advance, so the same for every arm and look."""

    low: float | None = None
    high: float | None = None


class NumericMetric(Metric, tag="numeric", frozen=True, kw_only=True):
    """A number; `default` counts for what has no outcome when its window closes."""

    default: float | None = None
    winsorise: Limits | None = None
    """To which limits the value of an item is pulled, once its outcomes are added up."""


class RatioMetric(Metric, tag="ratio", frozen=True, kw_only=True):
    """The sum of one outcome divided by the sum of another."""

    numerator: str
    denominator: str


class ScoreMetric(Metric, tag="score", frozen=True, kw_only=True):
    """A score of the prediction against the label that came later."""

    score: str
    label: str


AnyMetric = BinaryMetric | NumericMetric | RatioMetric | ScoreMetric


class _Allocation(msgspec.Struct, frozen=True):
    kind: Literal["split", "thompson", "contextual", "interleave"] = "split"
    method: Literal["team_draft", "probabilistic", "optimised"] | None = None
    floor: float = 0.05


class _Document(msgspec.Struct, frozen=True):
    metrics: list[AnyMetric]
    randomise: Literal["unit", "request"] = "unit"
    allocation: _Allocation = _Allocation()
    planned_decisions: int = PLANNED_DECISIONS


class Arm(NamedTuple):
    """One option, with its number in decisions and epochs."""

    number: int
    name: str
    model: str


class Epoch(NamedTuple):
    """A published table of arm probabilities: `shares[i]` is the i-th arm's part of what is not held out.

    Of contextual bandits it says who is held out, and no more: every request has shares of its own.
    """

    number: int
    shares: tuple[float, ...]
    published_ms: int
    drawn: float = 1.0
    """The part of its units that is not held out."""


class Experiment(NamedTuple):
    """Arms (control first), metrics and epochs of one experiment."""

    id: int
    name: str
    endpoint: str
    state: str
    randomise: str
    arms: tuple[Arm, ...]
    metrics: tuple[AnyMetric, ...]
    epochs: tuple[Epoch, ...]
    allocation: Literal["split", "thompson", "contextual", "interleave"] = "split"
    method: Literal["team_draft", "probabilistic", "optimised"] | None = None
    """How rankings are interleaved."""
    floor: float = 0.05
    """The least share that a bandit gives an arm."""
    planned_decisions: int = PLANNED_DECISIONS
    """At how many decisions of the experiment its confidence sequences shall be narrowest; declared in advance."""

    @property
    def is_adaptive(self) -> bool:
        """Whether the shares of the arms followed from their outcomes."""
        return self.allocation in {"thompson", "contextual"}

    @property
    def is_interleaved(self) -> bool:
        """Whether lists mixed the rankings of all arms."""
        return self.allocation == "interleave"

    @property
    def shares_changed(self) -> bool:
        """Whether arms had other shares at other times, so that their own means are of different times."""
        return self.is_adaptive or len({epoch.shares for epoch in self.epochs}) > 1

    @property
    def arm_names(self) -> dict[int, str]:
        """The names of the arms by their numbers."""
        return {arm.number: arm.name for arm in self.arms}

    @property
    def control(self) -> Arm:
        """The first arm, against which the others are compared."""
        return self.arms[0]

    @property
    def treatments(self) -> tuple[Arm, ...]:
        """Every arm but the control."""
        return self.arms[1:]

    @property
    def primary(self) -> AnyMetric:
        """The metric that decides; the first one when none is marked."""
        return next((metric for metric in self.metrics if metric.role == "primary"), self.metrics[0])

    def metric(self, name: str | None = None) -> AnyMetric:
        """The metric of that name, by default the primary; UnknownMetric if there is none."""
        if name is None:
            return self.primary
        for metric in self.metrics:
            if metric.name == name:
                return metric
        known = ", ".join(metric.name for metric in self.metrics)
        raise UnknownMetric(f"experiment {self.name!r} has no metric {name!r}; its metrics: {known}")


def read_experiment(source: Source, name: str) -> Experiment:
    """Read an experiment by name.

    Raises:
        ExperimentNotFound: With the names that the source has.
        InvalidExperiment: If its document, arms or epochs cannot be analysed.
    """
    table = source.tables["experiments"]
    found = source.rows(table.filter(table["name"] == name))
    if not found:
        raise _not_found(source, name)
    row = found[0]
    document = _decode(name, row["document"])
    arms = _read_arms(source, name, row["id"])
    return Experiment(
        id=row["id"],
        name=name,
        endpoint=row["endpoint"],
        state=row["state"],
        randomise=document.randomise,
        arms=arms,
        metrics=tuple(document.metrics),
        epochs=_read_epochs(source, row["id"], [arm.number for arm in arms]),
        allocation=document.allocation.kind,
        method=document.allocation.method,
        floor=document.allocation.floor,
        planned_decisions=document.planned_decisions,
    )


def _not_found(source: Source, name: str) -> ExperimentNotFound:
    names = source.rows(source.tables["experiments"].select("name").order_by("name"))
    known = ", ".join(row["name"] for row in names) or "none"
    return ExperimentNotFound(f"{source.name} has no experiment {name!r}; it has: {known}")


def _decode(name: str, document: str) -> _Document:
    try:
        decoded = msgspec.json.decode(document, type=_Document)
    except msgspec.DecodeError as error:
        raise InvalidExperiment(f"the document of experiment {name!r} cannot be analysed: {error}") from error
    if not decoded.metrics:
        raise InvalidExperiment(f"experiment {name!r} has no metrics; nothing can be compared")
    return decoded


def _read_arms(source: Source, name: str, experiment_id: int) -> tuple[Arm, ...]:
    table = source.tables["arms"]
    rows = source.rows(table.filter(table["experiment_id"] == experiment_id).order_by("arm"))
    if len(rows) < 2:
        raise InvalidExperiment(f"experiment {name!r} has {len(rows)} arm(s) in the ledger; a comparison needs two")
    return tuple(Arm(row["arm"], row["name"], row["model"]) for row in rows)


def _read_epochs(source: Source, experiment_id: int, arms: list[int]) -> tuple[Epoch, ...]:
    table = source.tables["epochs"]
    rows = source.rows(table.filter(table["experiment_id"] == experiment_id).order_by("epoch"))
    return tuple(_epoch(row["epoch"], json.loads(row["runs"]), row["published_ms"], arms) for row in rows)


def _epoch(number: int, runs: list[tuple[int, int]], published_ms: int, arms: list[int]) -> Epoch:
    held = sum(buckets for buckets, arm in runs if arm == HOLDOUT)
    return Epoch(number, _shares(runs, arms), published_ms, 1 - held / (sum(buckets for buckets, _ in runs) or 1))


def _shares(runs: list[tuple[int, int]], arms: list[int]) -> tuple[float, ...]:
    pairs = [(buckets, arm) for buckets, arm in runs if arm not in {HOLDOUT, INTERLEAVED}]
    # An epoch may hold everybody out.
    total = sum(buckets for buckets, _ in pairs) or 1
    return tuple(sum(buckets for buckets, number in pairs if number == arm) / total for arm in arms)
