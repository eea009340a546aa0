"""What a stage makes of endpoint and experiments: pure, from documents to documents."""

from collections.abc import Iterable

import msgspec

from router.allocation.bandit import Known, bandit_epoch
from router.allocation.evidence import fold
from router.allocation.tables import first_epoch
from router.assignment.audience import Condition
from router.assignment.epochs import Epoch
from router.documents import (
    CANDIDATE,
    CONTROL,
    AnyAllocation,
    Arm,
    BanditStage,
    CanaryStage,
    ChampionStage,
    Endpoint,
    Experiment,
    Interleave,
    InterleaveStage,
    Rollout,
    ShadowStage,
    Split,
    SplitStage,
    Thompson,
)
from router.documents.rollouts import AnyStage

CONTROL_ARM, CANDIDATE_ARM = 0, 1
"""The numbers of the arms of every experiment of a rollout."""


def allocation_of(rollout: Rollout, stage: AnyStage) -> AnyAllocation | None:
    """Return how a stage divides the traffic; None where the candidate answers nobody, or everybody."""
    match stage:
        case CanaryStage(share=share) | SplitStage(share=share):
            return _split(share)
        case ChampionStage(control_share=control_share):
            return _split(1.0 - control_share) if control_share else None
        case BanditStage(floor=floor, update_every_s=update_every_s):
            return Thompson(metric=rollout.primary.name, floor=floor, update_every_s=update_every_s)
        case InterleaveStage(method=method, length=length):
            return Interleave(method=method, length=length)
        case _:
            return None


def experiment_of(rollout: Rollout, stage: AnyStage, champion: str, taken: Iterable[str]) -> Experiment | None:
    """Return the experiment that a stage begins, under a name that is not taken; None if it needs none."""
    allocation = allocation_of(rollout, stage)
    if allocation is None:
        return None
    latency, (traffic, audience) = rollout.guardrails.latency, units_of(rollout, stage)
    return Experiment(
        name=_free_name(f"{rollout.name}-{_KINDS[type(allocation)]}", set(taken)),
        endpoint=rollout.endpoint,
        arms=[Arm(name=CONTROL, model=champion), Arm(name=CANDIDATE, model=rollout.candidate)],
        allocation=allocation,
        metrics=list(rollout.metrics),
        randomise=rollout.randomise,
        traffic=traffic,
        audience=audience,
        slow_ms=None if latency is None else latency.limit_ms,
        planned_decisions=rollout.planned_decisions,
    )


def units_of(rollout: Rollout, stage: AnyStage) -> tuple[float, list[Condition]]:
    """Return the share and the conditions of the units that a stage compares: the champion answers everybody."""
    return (1.0, []) if isinstance(stage, ChampionStage) else (rollout.traffic, list(rollout.audience))


def epoch_of(document: Experiment, now_ms: int) -> Epoch:
    """Return the first epoch of an experiment of which nothing is known yet."""
    allocation = document.allocation
    if not isinstance(allocation, Thompson):
        return first_epoch(document)
    metric, arms = document.metric(allocation.metric), document.live
    return bandit_epoch(
        document, None, Known(fold((), (), arms=arms, metric=metric, allocation=allocation, now_ms=now_ms)), now_ms
    )


def endpoint_in(rollout: Rollout, stage: AnyStage, endpoint: Endpoint) -> Endpoint:
    """Return the endpoint during a stage: the candidate in the shadow, as champion, or neither."""
    shadows = [each for each in endpoint.shadows if each != rollout.candidate]
    if isinstance(stage, ShadowStage):
        known = rollout.candidate in endpoint.shadows
        shadows = endpoint.shadows if known else [*endpoint.shadows, rollout.candidate]
    champion = rollout.candidate if isinstance(stage, ChampionStage) else endpoint.champion
    return msgspec.structs.replace(endpoint, champion=champion, shadows=shadows)


def endpoint_without(rollout: Rollout, endpoint: Endpoint, champion: str | None) -> Endpoint:
    """Return the endpoint without the candidate, served by whom it was served before."""
    shadows = [each for each in endpoint.shadows if each != rollout.candidate]
    restored = champion if endpoint.champion == rollout.candidate and champion is not None else endpoint.champion
    return msgspec.structs.replace(endpoint, champion=restored, shadows=shadows)


_KINDS = {Split: "split", Thompson: "bandit", Interleave: "interleave"}


def _split(share: float) -> Split:
    share = round(share, 4)
    return Split(weights={CONTROL: round(1.0 - share, 4), CANDIDATE: share})


def _free_name(name: str, taken: set[str]) -> str:
    number = 2
    found = name
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    return found
