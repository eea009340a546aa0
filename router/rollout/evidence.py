"""Reads the additive evidence of experiments and makes findings of it."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from analysis.statistics.rates import NEVER, weighted_rate
from analysis.statistics.unit_groups import (
    Change,
    Sums,
    Weighted,
    change,
    credit_change,
    draws_log_evidence,
    of_items,
    of_ratio,
    of_values,
    planned_variance,
    scale_of,
)
from router.assignment.epochs import INTERLEAVED
from router.documents import AnyMetric, BinaryMetric, Guardrails, RatioMetric, ScoreMetric
from router.ledger.contributions import ITEMS, statistics_of
from router.ledger.evidence import FAILED, SLOW, ArmSums, Reading, has_default
from router.ledger.rollouts import RolloutTables
from router.rollout.findings import (
    SAMPLE_RATIO_ERROR,
    Finding,
    Means,
    not_measured,
    of_draws,
    of_metric,
    of_rates,
    of_stage,
)

_EVER = 2**31 - 1
_MS_PER_MINUTE = 60_000
_MIXED = "where lists are mixed"
_DECISIONS = ""
"""What a reading calls the sums that belong to no metric."""


class Subject(NamedTuple):
    """Two arms, by their numbers, in experiments that follow each other; none of them mixes lists, or all do."""

    experiments: tuple[int, ...]
    control: int
    candidate: int
    metrics: Sequence[AnyMetric]
    guardrails: Guardrails
    error: float
    planned: float
    mixes: bool = False
    two_arms: bool = True
    later_stages: int = 0
    """How many stages begin with evidence of earlier ones."""
    before_stage: Reading | None = None
    """What was known when the stage began; None in the first stage."""


class EvidenceReader:
    """Makes findings; blocks on the database, so call it from a thread."""

    def __init__(self, tables: RolloutTables) -> None:
        self._tables = tables

    def findings(self, subject: Subject, now_ms: int) -> list[Finding]:
        """Return what is known of every metric that decides, and of every guardrail.

        In a later stage each is judged twice, for what befalls a candidate late must not drown in what went well
        before: by the evidence of all stages, and by that of the stage alone. Both share the guardrail's error.
        """
        reading = self.read(subject, now_ms)
        guardrails = sum(metric.role == "guardrail" for metric in subject.metrics)
        guardrails += (subject.guardrails.errors is not None) + (subject.guardrails.latency is not None)
        share = subject.error / max(guardrails, 1)
        if subject.later_stages:
            share /= 2
        found = self._judged(subject, reading, subject.error, share)
        found += _unmeasured(subject) if subject.mixes else [_draws(subject, reading[_DECISIONS])]
        if subject.before_stage is None or not subject.later_stages:
            return found
        share /= subject.later_stages
        return found + [of_stage(each) for each in self._judged(subject, _since(reading, subject), share, share)]

    def decisions(self, subject: Subject) -> int:
        """Return how many decisions the candidate has made; all of them where lists are mixed."""
        sums = self._sums(subject.experiments, (ITEMS,), _EVER)
        arms = {arm for arm, _ in sums} if subject.mixes else {subject.candidate}
        return round(sum(sums[arm, ITEMS].count for arm in arms))

    def read(self, subject: Subject, now_ms: int) -> Reading:
        """Return the sums behind every finding: of decisions, and of each metric that decides."""
        reading = {_DECISIONS: self._sums(subject.experiments, (ITEMS, FAILED, SLOW), _EVER)}
        for metric in _deciding(subject):
            names, before = statistics_of(metric), _EVER
            if has_default(metric):
                names, before = (*names, ITEMS), (now_ms - 1000 * metric.window_s) // _MS_PER_MINUTE
            reading[metric.name] = self._sums(subject.experiments, names, before)
        return reading

    def _judged(self, subject: Subject, reading: Reading, of_primary: float, of_guardrail: float) -> list[Finding]:
        """Return the findings, each of which may be wrong so often."""
        found = []
        for metric in _deciding(subject):
            alpha = of_primary if metric.role == "primary" else of_guardrail
            found.append(self._metric(subject, metric, reading.get(metric.name, {}), alpha))
        rates = _mixed if subject.mixes else _rates
        return found + rates(subject, reading[_DECISIONS], of_guardrail)

    def _metric(self, subject: Subject, metric: AnyMetric, sums: ArmSums, alpha: float) -> Finding:
        names, empty = statistics_of(metric), Sums()
        arms = subject.control, subject.candidate
        if subject.mixes:
            control_sums, candidate_sums = (sums.get((arm, names[0]), empty) for arm in arms)
            found, means = _credit(control_sums, candidate_sums)
        else:
            names = (*names, ITEMS) if has_default(metric) else names
            control, candidate = (_weighted(metric, [sums.get((arm, name), empty) for name in names]) for arm in arms)
            found = change(control, candidate, within_1=_is_within_1(metric))
            means = Means(control.mean, candidate.mean, control.n, candidate.n)
        planned = self._planned(subject, metric.name, found)
        return of_metric(metric, found, means, planned, alpha)

    def _planned(self, subject: Subject, metric: str, found: Change | None) -> float:
        if found is None:
            return 1.0
        scale = scale_of(found)
        return planned_variance(found, self._tables.scale(subject.experiments[0], metric, scale), subject.planned)

    def _sums(self, experiments: Sequence[int], statistics: Sequence[str], before: int) -> ArmSums:
        total: defaultdict[tuple[int, str], Sums] = defaultdict(Sums)
        for experiment_id in experiments:
            for key, sums in self._tables.evidence(experiment_id, statistics, before).items():
                total[key] = total[key] + sums
        return total


def _deciding(subject: Subject) -> list[AnyMetric]:
    return [metric for metric in subject.metrics if metric.role != "secondary"]


def _since(reading: Reading, subject: Subject) -> Reading:
    """Return the sums of what has come since the stage began."""
    before, empty = subject.before_stage or {}, Sums()
    return {
        name: {key: sums - before.get(name, {}).get(key, empty) for key, sums in every.items()}
        for name, every in reading.items()
    }


def _rates(subject: Subject, sums: ArmSums, alpha: float) -> list[Finding]:
    empty = Sums()
    arms = subject.control, subject.candidate
    decided = [sums.get((arm, ITEMS), empty) for arm in arms]
    cases = round(decided[0].count), round(decided[1].count)
    limits = []
    if subject.guardrails.errors is not None:
        limits.append(("errors", FAILED, subject.guardrails.errors))
    if subject.guardrails.latency is not None:
        limits.append(("latency", SLOW, subject.guardrails.latency.margin))
    found = []
    for name, statistic, limit in limits:
        control, candidate = (
            weighted_rate(sums.get((arm, statistic), empty), all_of, alpha / 2)
            for arm, all_of in zip(arms, decided, strict=True)
        )
        found.append(of_rates(name, control, candidate, cases, limit, alpha))
    return found


def _mixed(subject: Subject, sums: ArmSums, alpha: float) -> list[Finding]:
    """Return whether lists can be mixed at all: without either ranking the champion answers, and nobody earns."""
    limit = subject.guardrails.errors
    if limit is None:
        return []
    decided, failed = (sums.get((INTERLEAVED, name), Sums()) for name in (ITEMS, FAILED))
    failing = weighted_rate(failed, decided, alpha)
    return [of_rates("errors", NEVER, failing, (0, round(decided.count)), limit, alpha)]


def _draws(subject: Subject, sums: ArmSums) -> Finding:
    """Return whether the arms got what their shares say; the error of that is its own."""
    control, candidate = (sums.get((arm, ITEMS), Sums()) for arm in (subject.control, subject.candidate))
    evidence = None
    if subject.two_arms:
        evidence = draws_log_evidence(control, candidate, subject.planned, SAMPLE_RATIO_ERROR)
    return of_draws(evidence, (control.count, candidate.count), two_arms=subject.two_arms)


def _unmeasured(subject: Subject) -> list[Finding]:
    """Return what mixed lists show nothing of, since each asks all models."""
    latency = [] if subject.guardrails.latency is None else [not_measured("latency", "guardrail", _MIXED)]
    return [*latency, not_measured("sample_ratio", "sample_ratio", _MIXED)]


def _weighted(metric: AnyMetric, sums: Sequence[Sums]) -> Weighted:
    """Return an arm's mean from its sums: numerator and denominator, values and items, or values."""
    if isinstance(metric, RatioMetric):
        return of_ratio(sums[0], sums[1])
    if has_default(metric):
        return of_items(sums[0], sums[1], float(getattr(metric, "default", 0.0)))
    return of_values(sums[0])


def _is_within_1(metric: AnyMetric) -> bool:
    return isinstance(metric, BinaryMetric) or (
        isinstance(metric, ScoreMetric) and metric.score in ("brier", "correct")
    )


def _credit(control: Sums, candidate: Sums) -> tuple[Change | None, Means]:
    total = control.total + candidate.total
    of_control, of_candidate = (arm.total / total if total > 0 else math.nan for arm in (control, candidate))
    return credit_change(control, candidate), Means(of_control, of_candidate, control.count, candidate.count)
