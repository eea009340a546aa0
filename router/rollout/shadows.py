"""What a shadow stage shows: whether the candidate answers at all, and how it scores on labels of what was served."""

from collections.abc import Mapping, Sequence

import msgspec

from analysis.statistics.rates import NEVER, rate
from analysis.statistics.scores import score
from analysis.statistics.unit_groups import (
    LEAST_VALUES,
    Sums,
    group_of,
    mean_change,
    planned_variance,
    scale_of,
    sums_of,
)
from router.documents import Rollout, ScoreMetric
from router.documents.rollouts import Advance, unshadowed_guardrails
from router.ledger.shadowed import MOST_LABELS, Calls, Pair
from router.rollout.findings import Finding, Means, not_measured, of_metric, of_rates
from router.rollout.verdicts import Judgement, judge

_IN_A_SHADOW = "in the shadow"


def scored_metrics(rollout: Rollout) -> list[ScoreMetric]:
    """Return the metrics that a shadow has too: scores of predictions, of those that decide."""
    return [metric for metric in rollout.metrics if isinstance(metric, ScoreMetric) and metric.role != "secondary"]


def shadow_findings(rollout: Rollout, calls: Calls, pairs: Mapping[str, Sequence[Pair]]) -> list[Finding]:
    """Return what is known of a shadow; `pairs` has those of each scored metric, by its name.

    How long it takes says nothing: shadows have to wait for everybody else.
    """
    metrics = scored_metrics(rollout)
    guardrails = sum(metric.role == "guardrail" for metric in metrics) + (rollout.guardrails.errors is not None)
    share = rollout.error / max(guardrails, 1)
    found = [
        _scored(metric, pairs[metric.name], rollout, rollout.error if metric.role == "primary" else share)
        for metric in metrics
    ]
    if rollout.guardrails.errors is not None:
        answered = rate(calls.failed, calls.asked, share)
        found.append(of_rates("errors", NEVER, answered, (0, calls.asked), rollout.guardrails.errors, share))
    unknown = [metric.name for metric in unshadowed_guardrails(rollout)]
    unknown += ["latency"] if rollout.guardrails.latency is not None else []
    found += [not_measured(name, "guardrail", _IN_A_SHADOW) for name in unknown]
    return [*found, not_measured("sample_ratio", "sample_ratio", _IN_A_SHADOW)]


def exhausted(judgement: Judgement, scored: Sequence[Finding], advance: Advance) -> Judgement:
    """Return the verdict of a stage whose scores no further label changes: if they leave it open, it stays so."""
    if judgement.verdict != "insufficient" or judge(scored, advance).verdict != "insufficient":
        return judgement
    reason = (
        f"a shadow is compared on its first {MOST_LABELS:,} labels, and these are all there: advance the rollout or "
        "roll it back by hand"
    )
    return msgspec.structs.replace(judgement, reasons=(reason, *judgement.reasons), exhausted=True)


def _scored(metric: ScoreMetric, pairs: Sequence[Pair], rollout: Rollout, alpha: float) -> Finding:
    served = [score(metric.score, pair.served, pair.label) for pair in pairs]
    shadow = [score(metric.score, pair.shadow, pair.label) for pair in pairs]
    better = [theirs - ours for theirs, ours in zip(shadow, served, strict=True)]
    found = mean_change(_sums(pairs, better))
    # What the first pairs vary by changes only by labels that come late, so that the tuning hardly follows the data.
    first = mean_change(_sums(pairs[: 2 * LEAST_VALUES], better[: 2 * LEAST_VALUES]))
    planned = 1.0 if found is None else planned_variance(found, scale_of(first or found), rollout.planned_decisions)
    n = len(pairs)
    return of_metric(metric, found, Means(_mean(served), _mean(shadow), n, n), planned, alpha)


def _sums(pairs: Sequence[Pair], values: Sequence[float]) -> Sums:
    ones = [1.0] * len(values)
    return sums_of([group_of(pair.unit) for pair in pairs], ones, ones, values, [value * value for value in values])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
