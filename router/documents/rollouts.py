"""Rollouts as the API takes and returns them: how a candidate becomes champion, stage by stage, or does not."""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from router.assignment.audience import Condition
from router.documents.base import Document, Fraction, Name, Reference
from router.documents.experiments import Decisions, Timeout
from router.documents.metrics import AnyMetric, ScoreMetric

Advance = Literal["unharmed", "guardrails", "not_worse", "better"]
LEAST_SHARE = 0.0001
"""A bucket."""
Share = Annotated[float, msgspec.Meta(ge=LEAST_SHARE, le=1 - LEAST_SHARE)]
Margin = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
LongTime = Annotated[float, msgspec.Meta(ge=0.0, le=366 * 86_400.0)]

LONGEST_NAME = 48

CONTROL = "control"
CANDIDATE = "candidate"
"""What a rollout calls the arms of its experiments."""


class Stage(Document, frozen=True, kw_only=True, tag_field="kind"):
    """What every stage has: how long it lasts at least and at most."""

    min_s: LongTime = 0.0
    """The next stage begins no sooner after this one did."""
    max_s: LongTime | None = None
    """After this time without a verdict `otherwise` applies."""
    min_decisions: Annotated[int, msgspec.Meta(ge=0)] = 100
    """The next stage begins no sooner than with so many of the candidate's decisions in this one."""
    otherwise: Literal["hold", "rollback"] = "hold"
    """What happens after `max_s`: a person decides, or the candidate goes."""
    advance: Advance = "unharmed"
    """What has to be shown: that no guardrail is breached so far (`unharmed`), that every guardrail's margin is kept
    (`guardrails`), besides that the primary metric is not worse by its margin (`not_worse`), or that it is `better`."""


class ShadowStage(Stage, frozen=True, kw_only=True, tag="shadow"):
    """The candidate sees every request after its reply and answers none; it is compared by scores of predictions."""


class CanaryStage(Stage, frozen=True, kw_only=True, tag="canary"):
    """The candidate answers a small share of the units."""

    share: Share


class SplitStage(Stage, frozen=True, kw_only=True, tag="split"):
    """The candidate answers a fixed share of the units: an A/B test."""

    share: Share = 0.5
    advance: Advance = "better"


class BanditStage(Stage, frozen=True, kw_only=True, tag="bandit"):
    """The traffic goes to the better one as far as is known so far, by Thompson sampling of the primary metric."""

    floor: Annotated[float, msgspec.Meta(ge=0.0001, lt=0.5)] = 0.05
    update_every_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400.0)] = 1.0
    advance: Advance = "better"


class InterleaveStage(Stage, frozen=True, kw_only=True, tag="interleave"):
    """Every list mixes the rankings of champion and candidate; only a rank endpoint does."""

    method: Literal["team_draft", "probabilistic", "optimised"] = "team_draft"
    length: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    advance: Advance = "better"


class ChampionStage(Stage, frozen=True, kw_only=True, tag="champion"):
    """The candidate is the champion; the old one keeps a share for a while, so that guardrails have something to
    compare with.
    """

    control_share: Annotated[float, msgspec.Meta(ge=0.0, le=0.5)] = 0.05


AnyStage = ShadowStage | CanaryStage | SplitStage | BanditStage | InterleaveStage | ChampionStage


class LatencyGuardrail(Document, frozen=True, kw_only=True):
    """By how much the share of slow decisions may exceed the champion's."""

    limit_ms: Timeout
    """A decision whose arm takes longer is slow."""
    margin: Margin = 0.01


class Guardrails(Document, frozen=True, kw_only=True):
    """What must not get worse besides the metrics; that the arms get their shares is always guarded."""

    errors: Margin | None = 0.02
    """By how much the share of decisions whose arm failed may exceed the champion's; null: whatever it is."""
    latency: LatencyGuardrail | None = None


class Rollout(Document, frozen=True, kw_only=True):
    """A candidate, the stages that lead to champion, and what must not happen on the way."""

    name: Name
    endpoint: Name
    candidate: Reference
    metrics: list[AnyMetric]
    stages: Annotated[list[AnyStage], msgspec.Meta(min_length=1, max_length=20)]
    guardrails: Guardrails = Guardrails()
    error: Annotated[float, msgspec.Meta(ge=0.0001, le=0.5)] = 0.05
    """How often, at most, a candidate that is not better is shown to be, over all stages and looks together."""
    randomise: Literal["unit", "request"] | None = None
    """What is drawn for: unless said, bandits draw every request, and every other stage each unit."""
    traffic: Fraction = 1.0
    audience: list[Condition] = msgspec.field(default_factory=list)
    planned_decisions: Decisions = 10_000
    """At how many decisions of its live stages intervals shall be narrowest; fixed before the first one."""

    @property
    def primary(self) -> AnyMetric:
        """The metric that decides; the document has been checked to have one."""
        return next(metric for metric in self.metrics if metric.role == "primary")


def contradictions(rollout: Rollout, kind: str, timeout_ms: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield the fields in which the document contradicts itself or the endpoint's kind or timeout, and what to do."""
    if len(rollout.name) > LONGEST_NAME:
        yield "name", f"its experiments are named after it; use at most {LONGEST_NAME} letters, not {len(rollout.name)}"
    if not rollout.traffic:
        yield "traffic", "nobody would ever get the candidate; give it a share above 0, or 1 for all traffic"
    latency = rollout.guardrails.latency
    if latency is not None and timeout_ms is not None and latency.limit_ms >= timeout_ms:
        yield "guardrails.latency.limit_ms", hardly_slow(latency.limit_ms, timeout_ms, "limit_ms")
    yield from _order(rollout.stages)
    for index, stage in enumerate(rollout.stages):
        where = f"stages[{index}]"
        if stage.max_s is not None and stage.max_s <= stage.min_s:
            yield f"{where}.max_s", f"{stage.max_s:g} s is over before min_s, {stage.min_s:g} s; set it higher"
        yield from _of_kind(rollout, stage, where, kind)
        for message in _not_to_be_shown(rollout, stage):
            yield f"{where}.advance", message


def _of_kind(rollout: Rollout, stage: AnyStage, where: str, kind: str) -> Iterator[tuple[str, str]]:
    match stage:
        case InterleaveStage() if kind != "rank":
            yield where, f"only a rank endpoint interleaves; {rollout.endpoint!r} is a {kind} endpoint"
        case BanditStage() if rollout.randomise == "unit":
            yield (
                "randomise",
                f"{where} is a bandit, which draws every request; leave randomise out, and the other stages draw units",
            )
        case ChampionStage(control_share=share) if 0 < share < LEAST_SHARE:
            yield (
                f"{where}.control_share",
                f"the control would get a share of {share:g}; the smallest is {LEAST_SHARE:g}, or none: 0, which "
                "promotes at once",
            )


def _not_to_be_shown(rollout: Rollout, stage: AnyStage) -> Iterator[str]:
    """Yield why a stage cannot show what it asks for, and what to do."""
    if stage.advance == "not_worse" and rollout.primary.margin is None:
        yield f"'not_worse' needs a margin: give the metric {rollout.primary.name!r} one"
    shows_primary = not isinstance(stage, ShadowStage) or isinstance(rollout.primary, ScoreMetric)
    if stage.advance in {"not_worse", "better"} and not shows_primary:
        yield (
            f"a shadow is compared by scores only, and {rollout.primary.name!r} is none: use 'unharmed', "
            "or make a score metric the primary one"
        )
    if stage.advance == "guardrails" and (unmeasured := _unmeasured(rollout, stage)):
        yield (
            f"{_STAGES[type(stage)]} stage does not measure {', '.join(unmeasured)}: use 'unharmed' here, and ask for "
            "'guardrails' in a stage after it"
        )


def hardly_slow(limit_ms: int, timeout_ms: int, field: str) -> str:
    """Return why a decision that takes so long is not to be expected, and what to do."""
    return (
        f"hardly a decision takes longer than {limit_ms} ms where an arm is waited for no longer than the endpoint's "
        f"timeout_ms, {timeout_ms}; set {field} below that"
    )


_STAGES = {ShadowStage: "a shadow", InterleaveStage: "an interleave"}


def _unmeasured(rollout: Rollout, stage: AnyStage) -> list[str]:
    """Return the guardrails of which a stage shows nothing."""
    latency = ["latency"] if rollout.guardrails.latency is not None else []
    if isinstance(stage, InterleaveStage):
        return latency
    if isinstance(stage, ShadowStage):
        return [*latency, *(metric.name for metric in unshadowed_guardrails(rollout))]
    return []


def unshadowed_guardrails(rollout: Rollout) -> list[AnyMetric]:
    """Return the guardrails of which a shadow shows nothing: all but scores of predictions."""
    return [each for each in rollout.metrics if each.role == "guardrail" and not isinstance(each, ScoreMetric)]


def _order(stages: list[AnyStage]) -> Iterator[tuple[str, str]]:
    kinds = [type(stage) for stage in stages]
    for index, kind in enumerate(kinds):
        if kind is ShadowStage and index:
            yield f"stages[{index}]", "a shadow comes first or not at all; move it to the front or leave it out"
        if kind is ChampionStage and index < len(stages) - 1:
            yield f"stages[{index}]", "champion is the last stage; move it to the end"
    if kinds[-1] is not ChampionStage:
        yield "stages", 'the last stage is the champion\'s: add {"kind": "champion"}'
