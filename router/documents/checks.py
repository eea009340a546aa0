"""Whether an experiment's document contradicts itself or its endpoint."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from analysis.statistics.scores import PROBABILITY_SCORES
from router.assignment.audience import explain
from router.assignment.hashing import BUCKETS
from router.documents.allocations import (
    MAXIMUM_FEATURES,
    AnyFeature,
    Bandit,
    CategoryFeature,
    Contextual,
    Interleave,
    NumberFeature,
    Split,
    columns_of,
)
from router.documents.experiments import HOLDOUT_NAME, INTERLEAVED_NAME, MAXIMUM_ARMS, Endpoint, Experiment
from router.documents.metrics import LARGEST_VALUE, AnyMetric, BinaryMetric, NumericMetric, RatioMetric, ScoreMetric
from router.documents.rollouts import Rollout, contradictions, hardly_slow
from router.errors import InvalidDocument

_SHARE_OF_AGE = 10
"""Old decisions are counted by the hour or the day, which is less than a tenth of their age, and close together."""

MOST_INTERLEAVED = 10
"""Arms of an interleaving experiment: with more, hardly a list would have an item of each."""


def check_endpoint(endpoint: Endpoint) -> None:
    """Check what the document says against itself.

    Raises:
        InvalidDocument: With the first contradiction found, the field it is in, and the remedy.
    """
    for field, message in _shadow_contradictions(endpoint.shadows):
        raise InvalidDocument(message, field=field)


def check_experiment(experiment: Experiment, *, kind: str, output: str, timeout_ms: int | None = None) -> None:
    """Check what the document says against itself and the endpoint's kind, output kind and, if given, timeout.

    Raises:
        InvalidDocument: With the first contradiction found, the field it is in, and the remedy.
    """
    for field, message in chain(_contradictions(experiment, kind, output), _hardly_slow(experiment, timeout_ms)):
        raise InvalidDocument(message, field=field)


def check_rollout(rollout: Rollout, *, kind: str, output: str, timeout_ms: int | None = None) -> None:
    """Check what the document says against itself and the endpoint's kind, output kind and, if given, timeout.

    Raises:
        InvalidDocument: With the first contradiction found, the field it is in, and the remedy.
    """
    for field, message in _metric_contradictions(rollout.metrics, output):
        raise InvalidDocument(message, field=field)
    for field, message in contradictions(rollout, kind, timeout_ms):
        raise InvalidDocument(message, field=field)


def _contradictions(experiment: Experiment, kind: str, output: str) -> Iterator[tuple[str, str]]:
    yield from _arm_contradictions(experiment)
    yield from _allocation_contradictions(experiment, kind)
    yield from _vanishing_shares(experiment)
    yield from _metric_contradictions(experiment.metrics, output)
    yield from _shadow_contradictions(experiment.shadows)
    if experiment.sticky and experiment.by_request:
        yield "sticky", "a sticky unit is drawn by its hash, once; set randomise to 'unit' or sticky to false"
    for index, condition in enumerate(experiment.audience):
        if reason := explain(condition):
            yield f"audience[{index}].value", reason


def _hardly_slow(experiment: Experiment, timeout_ms: int | None) -> Iterator[tuple[str, str]]:
    """Find an arm that is given up before it could count as slow, so that it would seem to be quick."""
    slow_ms = experiment.slow_ms
    if slow_ms is None or timeout_ms is None:
        return
    for arm in experiment.arms:
        if arm.timeout_ms is None and slow_ms >= timeout_ms:
            yield "slow_ms", hardly_slow(slow_ms, timeout_ms, "slow_ms")
        if arm.timeout_ms is not None and slow_ms >= arm.timeout_ms:
            waited = f"arm {arm.name!r} is waited for no longer than its timeout_ms, {arm.timeout_ms}"
            yield "slow_ms", f"hardly a decision takes longer than {slow_ms} ms where {waited}; set slow_ms below that"


def _arm_contradictions(experiment: Experiment) -> Iterator[tuple[str, str]]:
    arms = experiment.arms
    if not 2 <= len(arms) <= MAXIMUM_ARMS:
        yield "arms", f"an experiment has 2 to {MAXIMUM_ARMS} arms; this one has {len(arms)}"
    for name in (HOLDOUT_NAME, INTERLEAVED_NAME):
        if name in [arm.name for arm in arms]:
            yield "arms", f"{name!r} is what replies call {_RESERVED[name]}; choose another name"
    if repeated := _repeated([arm.name for arm in arms]):
        yield "arms", f"arm name {repeated!r} stands twice; give every arm its own name"
    for index, arm in enumerate(arms):
        if arm.retired and not isinstance(experiment.allocation, Bandit):
            yield f"arms[{index}].retired", "only a bandit's arm can be retired; in a split, give it the weight 0"
    if arms[0].retired:
        yield "arms[0].retired", "the first arm is the control, with which the others are compared; it cannot retire"
    if len(experiment.live) < 2:
        yield "arms", "all arms but one are retired; keep two, or conclude the experiment"


_RESERVED = {HOLDOUT_NAME: "the units that no arm gets", INTERLEAVED_NAME: "lists that mix all arms"}


def _allocation_contradictions(experiment: Experiment, kind: str) -> Iterator[tuple[str, str]]:
    match experiment.allocation:
        case Split(weights=weights):
            yield from _weight_contradictions([arm.name for arm in experiment.arms], weights)
        case Interleave() as interleave:
            yield from _interleave_contradictions(experiment, interleave, kind)
        case Bandit() as bandit:
            yield from _bandit_contradictions(experiment, bandit)
    if isinstance(experiment.allocation, Contextual):
        yield from _feature_contradictions(experiment.allocation.features)
        if experiment.sticky:
            yield "sticky", "a contextual allocation draws by each request's context; set sticky to false"


def _weight_contradictions(names: Sequence[str], weights: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for name in weights:
        if name not in names:
            yield "allocation.weights", f"{name!r} is not an arm; arms: {', '.join(names)}"
    for name in names:
        if name not in weights:
            yield "allocation.weights", f"arm {name!r} has no weight; give it one (0 is allowed)"
    total = math.fsum(weights.values())
    if abs(total - 1.0) > 1e-9:
        yield "allocation.weights", f"the weights sum to {total:.10g}; they must sum to 1"


def _bandit_contradictions(experiment: Experiment, bandit: Bandit) -> Iterator[tuple[str, str]]:
    names = [metric.name for metric in experiment.metrics]
    if bandit.metric not in names:
        yield "allocation.metric", f"{bandit.metric!r} is not a metric of this experiment; metrics: {', '.join(names)}"
    elif isinstance(experiment.metric(bandit.metric), RatioMetric):
        yield "allocation.metric", f"{bandit.metric!r} is a ratio; a bandit needs a binary, numeric or score metric"
    own = bandit.control_share
    arms = len(experiment.live) - (own is not None)
    if bandit.floor * arms >= 1 - (own or 0.0):
        yield (
            "allocation.floor",
            f"{arms} arms with a floor of {bandit.floor:g} each leave nothing to allocate; "
            f"set it below {(1 - (own or 0.0)) / max(arms, 1):.4g}",
        )
    if 0 < bandit.floor < 1 / BUCKETS:
        yield "allocation.floor", f"the smallest floor is {1 / BUCKETS:g}, or none: 0; this one is {bandit.floor:g}"
    if (1 - experiment.holdout) * BUCKETS < len(experiment.live):
        yield (
            "holdout",
            f"a holdout of {experiment.holdout:g} leaves less than {1 / BUCKETS:g} for each of {len(experiment.live)} "
            "arms; hold out less",
        )
    if bandit.metric in names:
        yield from _forgotten_values(bandit, experiment.metric(bandit.metric))


def _forgotten_values(bandit: Bandit, metric: AnyMetric) -> Iterator[tuple[str, str]]:
    """Find a bandit that would look no further back than to what is still open."""
    if bandit.window_s is None or getattr(metric, "default", None) is None:
        return
    least = metric.window_s + math.ceil(metric.window_s / _SHARE_OF_AGE) + 60
    if bandit.window_s < least:
        yield (
            "allocation.window_s",
            f"{metric.name!r} counts {metric.window_s} s after the decision, and then {bandit.window_s} s would have "
            f"forgotten it; set allocation.window_s to at least {least}, or the metric's window_s lower",
        )


def _feature_contradictions(features: Sequence[AnyFeature]) -> Iterator[tuple[str, str]]:
    if repeated := _repeated([feature.name for feature in features]):
        yield "allocation.features", f"feature {repeated!r} stands twice"
    if columns_of(features) > MAXIMUM_FEATURES:
        yield (
            "allocation.features",
            f"the features make {columns_of(features)} columns; at most {MAXIMUM_FEATURES}: leave out rare values",
        )
    for index, feature in enumerate(features):
        if isinstance(feature, NumberFeature) and not -math.inf < feature.low < feature.high < math.inf:
            where = f"allocation.features[{index}].low"
            yield where, f"low ({feature.low:g}) must be below high ({feature.high:g}), and both finite"
        if isinstance(feature, CategoryFeature) and (repeated := _repeated(feature.values)):
            yield f"allocation.features[{index}].values", f"{repeated!r} stands twice"


def _interleave_contradictions(experiment: Experiment, interleave: Interleave, kind: str) -> Iterator[tuple[str, str]]:
    if kind != "rank":
        yield "allocation", f"only a rank endpoint interleaves; {experiment.endpoint!r} is a {kind} endpoint"
    if len(experiment.arms) > 2 and interleave.method != "team_draft":
        yield (
            "allocation.method",
            f"{interleave.method!r} mixes two arms; this experiment has {len(experiment.arms)}: use 'team_draft'",
        )
    if len(experiment.arms) > MOST_INTERLEAVED:
        yield "arms", f"at most {MOST_INTERLEAVED} arms can be interleaved; this experiment has {len(experiment.arms)}"
    if experiment.sticky:
        yield "sticky", "lists are mixed anew from the candidates of each request; set sticky to false"
    for index, metric in enumerate(experiment.metrics):
        if not isinstance(metric, BinaryMetric | NumericMetric):
            yield f"metrics[{index}].kind", "items earn credit by binary and numeric metrics; make it one of these"


def _shadow_contradictions(shadows: Sequence[str]) -> Iterator[tuple[str, str]]:
    if repeated := _repeated(shadows):
        yield "shadows", f"{repeated!r} stands twice"


def _vanishing_shares(experiment: Experiment) -> Iterator[tuple[str, str]]:
    named = [("holdout", "the holdout", experiment.holdout), ("traffic", "the experiment", experiment.traffic)]
    if isinstance(experiment.allocation, Split):
        arms = experiment.allocation.weights.items()
        named += [("allocation.weights", f"arm {name!r}", (1 - experiment.holdout) * weight) for name, weight in arms]
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
    if isinstance(metric, NumericMetric):
        yield from _value_contradictions(metric)


def _value_contradictions(metric: NumericMetric) -> Iterator[tuple[str, str]]:
    # Not a number is not within it either.
    if metric.default is not None and not abs(metric.default) <= LARGEST_VALUE:
        yield "default", f"the default must lie within {LARGEST_VALUE:g} of 0, but is {metric.default!r}"
    if metric.winsorise is None:
        return
    low, high = metric.winsorise.low, metric.winsorise.high
    for end, limit in (("low", low), ("high", high)):
        if limit is not None and not abs(limit) <= LARGEST_VALUE:
            yield f"winsorise.{end}", f"a limit must lie within {LARGEST_VALUE:g} of 0, but this one is {limit!r}"
    if low is None and high is None:
        yield "winsorise", "it has no limit; give it low, high or both, or leave it out"
    if low is not None and high is not None and not low < high:
        yield "winsorise.low", f"low ({low:g}) must be below high ({high:g})"
    if metric.default is not None and metric.limited(metric.default) != metric.default:
        counts_as = f"the default {metric.default:g} is beyond the limits and would count as "
        yield "default", f"{counts_as}{metric.limited(metric.default):g}; put it between them"


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for index, name in enumerate(names) if name in names[:index]), None)
