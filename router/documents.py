"""The documents that the API takes and returns: endpoints and experiments, and the checks they can do on their own."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec

from analysis.statistics.scores import PROBABILITY_SCORES
from router.assignment.audience import Condition, explain
from router.assignment.epochs import HOLDOUT
from router.assignment.hashing import BUCKETS
from router.errors import InvalidDocument

MAXIMUM_ARMS = 100
HOLDOUT_NAME = "holdout"
"""What replies and reports call the units that no arm gets."""

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$(?!\n)")]
Reference = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*@[1-9][0-9]*$(?!\n)")]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=366 * 86_400)]
Direction = Literal["increase", "decrease"]
Role = Literal["primary", "secondary", "guardrail"]


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what clients send: immutable, and an unknown field is an error."""


class Endpoint(Document, frozen=True, kw_only=True):
    """The stable name that clients call, and the model version that serves when no experiment applies."""

    name: Name
    kind: Literal["predict"] = "predict"
    champion: Reference
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 200


class Arm(Document, frozen=True, kw_only=True):
    """One option of an experiment, bound to one model version."""

    name: Name
    model: Reference


class Split(Document, frozen=True, kw_only=True, tag_field="kind", tag="split"):
    """Fixed weights: every arm's share of the experiment's units."""

    weights: dict[str, Fraction]


class Metric(Document, frozen=True, kw_only=True, tag_field="kind"):
    """How outcomes become a number per unit."""

    name: Name
    direction: Direction
    role: Role = "secondary"
    window_s: Seconds = 86_400
    late: Literal["count", "ignore"] | None = None
    """What becomes of an outcome that happened after the window; unless said, a metric with a default ignores it, since
    the decision has counted with its default by then, and any other counts it."""
    margin: Annotated[float, msgspec.Meta(ge=0.0)] | None = None

    @property
    def ignores_late(self) -> bool:
        """Whether outcomes that happened after the window count for nothing."""
        if self.late is None:
            return getattr(self, "default", None) is not None
        return self.late == "ignore"

    def outcome_names(self) -> tuple[str, ...]:
        """Return the names under which clients post the outcomes that feed this metric."""
        return (self.name,)


class BinaryMetric(Metric, frozen=True, kw_only=True, tag="binary"):
    """0 or 1 per decision; `default` counts for a decision whose window closed without an outcome."""

    default: Literal[0, 1] | None = None


class NumericMetric(Metric, frozen=True, kw_only=True, tag="numeric"):
    """A finite number per decision; `default` counts for a decision whose window closed without an outcome."""

    default: float | None = None


class RatioMetric(Metric, frozen=True, kw_only=True, tag="ratio"):
    """The sum of one outcome divided by the sum of another."""

    numerator: Name
    denominator: Name

    def outcome_names(self) -> tuple[str, ...]:
        """Return the names of numerator and denominator."""
        return (self.numerator, self.denominator)


class ScoreMetric(Metric, frozen=True, kw_only=True, tag="score"):
    """A score of the decision's prediction against the label that arrives later under the name `label`."""

    score: Literal["brier", "log_loss", "absolute_error", "correct"]
    label: Name

    def outcome_names(self) -> tuple[str, ...]:
        """Return the label's name."""
        return (self.label,)


AnyMetric = BinaryMetric | NumericMetric | RatioMetric | ScoreMetric


class Experiment(Document, frozen=True, kw_only=True):
    """Arms, allocation and metrics on one endpoint. The first arm is the control."""

    name: Name
    endpoint: Name
    arms: list[Arm]
    allocation: Split
    metrics: list[AnyMetric]
    randomise: Literal["unit", "request"] = "unit"
    sticky: bool = False
    """Whether a unit keeps its first arm however the weights change; that assignment is stored."""
    traffic: Fraction = 1.0
    holdout: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.0
    """The share of the experiment's units that no arm gets: the champion serves them, and they are logged."""
    audience: list[Condition] = []

    def shares(self) -> tuple[float, ...]:
        """Return the arms' shares in the order of the arms, then the holdout's; they sum to 1."""
        weights = self.allocation.weights
        return (*((1.0 - self.holdout) * weights[arm.name] for arm in self.arms), self.holdout)

    def model(self, arm: str) -> str:
        """Return the model version of an arm."""
        return next(candidate.model for candidate in self.arms if candidate.name == arm)

    def arm_name(self, number: int) -> str:
        """Return what replies call the number that stands in a table or decision."""
        return HOLDOUT_NAME if number == HOLDOUT else self.arms[number].name


def check_experiment(experiment: Experiment, *, output: str) -> None:
    """Check what the document says against itself and the endpoint's output kind.

    Raises:
        InvalidDocument: With the first contradiction found, the field it is in, and the remedy.
    """
    for field, message in _contradictions(experiment, output):
        raise InvalidDocument(message, field=field)


def _contradictions(experiment: Experiment, output: str) -> Iterator[tuple[str, str]]:
    yield from _arm_contradictions(experiment.arms)
    yield from _weight_contradictions(experiment)
    yield from _vanishing_shares(experiment)
    yield from _metric_contradictions(experiment.metrics, output)
    if experiment.sticky and experiment.randomise == "request":
        yield "sticky", "a sticky unit is drawn by its hash, once; set randomise to 'unit' or sticky to false"
    for index, condition in enumerate(experiment.audience):
        if reason := explain(condition):
            yield f"audience[{index}].value", reason


def _arm_contradictions(arms: Sequence[Arm]) -> Iterator[tuple[str, str]]:
    if not 2 <= len(arms) <= MAXIMUM_ARMS:
        yield "arms", f"an experiment has 2 to {MAXIMUM_ARMS} arms; this one has {len(arms)}"
    if HOLDOUT_NAME in [arm.name for arm in arms]:
        yield "arms", f"{HOLDOUT_NAME!r} is the name of the units that no arm gets; choose another"
    if repeated := _repeated([arm.name for arm in arms]):
        yield "arms", f"arm name {repeated!r} stands twice; give every arm its own name"


def _weight_contradictions(experiment: Experiment) -> Iterator[tuple[str, str]]:
    weights = experiment.allocation.weights
    names = [arm.name for arm in experiment.arms]
    for name in names:
        if name not in weights:
            yield "allocation.weights", f"arm {name!r} has no weight; give it one (0 is allowed)"
    for name in weights:
        if name not in names:
            yield "allocation.weights", f"{name!r} is not an arm; arms: {', '.join(names)}"
    total = math.fsum(weights.values())
    if abs(total - 1.0) > 1e-9:
        yield "allocation.weights", f"the weights sum to {total:.10g}; they must sum to 1"


def _vanishing_shares(experiment: Experiment) -> Iterator[tuple[str, str]]:
    *shares, holdout = experiment.shares()
    named = [
        ("allocation.weights", f"arm {arm.name!r}", share) for arm, share in zip(experiment.arms, shares, strict=True)
    ]
    named += [("holdout", "the holdout", holdout), ("traffic", "the experiment", experiment.traffic)]
    for field, who, share in named:
        # Rounded, because 0.1 * 0.001 is a little less than 0.0001.
        if 0 < round(share * BUCKETS, 6) < 1:
            yield field, f"{who} would get a share of {share:.6g}; the smallest is {1 / BUCKETS:g}, or none: 0"


def _metric_contradictions(metrics: Sequence[AnyMetric], output: str) -> Iterator[tuple[str, str]]:
    primary = [metric.name for metric in metrics if metric.role == "primary"]
    if len(primary) != 1:
        yield "metrics", f"an experiment has one primary metric; this one has {len(primary)}: {primary}"
    if repeated := _repeated([metric.name for metric in metrics]):
        yield "metrics", f"metric name {repeated!r} stands twice; give every metric its own name"
    scores = {metric.name for metric in metrics if isinstance(metric, ScoreMetric)}
    for index, metric in enumerate(metrics):
        for name in () if isinstance(metric, ScoreMetric) else metric.outcome_names():
            if name in scores:
                yield f"metrics[{index}]", f"{name!r} is computed by a score metric and cannot be posted as well"
        for field, message in _single_metric_contradictions(metric, output):
            yield f"metrics[{index}].{field}", message


def _single_metric_contradictions(metric: AnyMetric, output: str) -> Iterator[tuple[str, str]]:
    if metric.role == "guardrail" and metric.margin is None:
        yield "margin", f"guardrail {metric.name!r} needs the margin by which it must not get worse"
    if isinstance(metric, RatioMetric) and metric.numerator == metric.denominator:
        yield "denominator", f"numerator and denominator are both {metric.numerator!r}"
    if isinstance(metric, ScoreMetric) and output != "probability" and metric.score in PROBABILITY_SCORES:
        yield "score", f"{metric.score!r} scores probabilities, but the endpoint's models return a {output}"
    if isinstance(metric, NumericMetric) and metric.default is not None and not math.isfinite(metric.default):
        yield "default", "the default must be a finite number"


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for index, name in enumerate(names) if name in names[:index]), None)


_PATH = re.compile(r" - at `\$\.?(?P<path>.*)`$")


def split_path(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """Return msgspec's message without its path, and the path as a field name such as `arms[0].model`."""
    text = str(error)
    match = _PATH.search(text)
    if match is None:
        return text, None
    return text[: match.start()], match["path"] or None
