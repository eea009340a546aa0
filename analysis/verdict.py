"""What to do with an arm: one verdict from its primary metric and its guardrails."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from msgspec import structs

from analysis.evidence import broken_split, number
from analysis.experiment import AnyMetric, Experiment
from analysis.results import Result
from analysis.split_check import SplitCheck


class Verdict(NamedTuple):
    """`advance`, `rollback` or `insufficient` for one arm, with the reasons and the numbers in them."""

    decision: Literal["advance", "rollback", "insufficient"]
    arm: str
    reasons: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first reason, which decided."""
        return self.reasons[0]


def leading_arm(experiment: Experiment, results: Iterable[Result]) -> str:
    """The treatment arm with the best mean of the primary metric, or the first while none has data."""
    primary = experiment.primary
    sign = -1 if primary.direction == "decrease" else 1
    means = {
        row.arm: sign * row.mean
        for row in results
        if row.metric == primary.name and row.role == "treatment" and row.observations > 0
    }
    return max(means, key=means.__getitem__) if means else experiment.treatments[0].name


def decide(experiment: Experiment, results: Sequence[Result], arm: str, split: SplitCheck) -> Verdict:
    """Advance an arm that is better in the primary metric and breaks no guardrail; roll back one that is worse.

    A guardrail is broken when the whole interval is worse than its margin, and kept when none of it is; between
    the two, without data, and when the split is broken, the verdict is insufficient. A margin is in the metric's own
    unit, which shares of credit are not: with mixed lists none is allowed.
    """
    if split.mismatch:
        return Verdict("insufficient", arm, (broken_split(split.p_value).reason,))
    rows = {row.metric: row for row in results if row.arm == arm}
    primary = rows[experiment.primary.name]
    guardrails = [
        (_guardrail_state(metric, rows[metric.name]), rows[metric.name], metric)
        for metric in (_without_margin(each) if experiment.is_interleaved else each for each in experiment.metrics)
        if metric.role == "guardrail"
    ]
    broken = tuple(_broken(row, metric) for state, row, metric in guardrails if state == "broken")
    unclear = tuple(_unclear(row, metric) for state, row, metric in guardrails if state == "unclear")
    if broken:
        return Verdict("rollback", arm, (*broken, primary.reason))
    if primary.verdict == "worse":
        return Verdict("rollback", arm, (primary.reason, *unclear))
    if primary.verdict == "better" and not unclear:
        return Verdict("advance", arm, (primary.reason,))
    if primary.verdict == "better":
        return Verdict("insufficient", arm, (*unclear, primary.reason))
    return Verdict("insufficient", arm, (primary.reason, *unclear))


def _without_margin(metric: AnyMetric) -> AnyMetric:
    return structs.replace(metric, margin=None)


def _guardrail_state(metric: AnyMetric, row: Result) -> Literal["broken", "kept", "unclear"]:
    low, high = row.difference_low, row.difference_high
    least, most = (low, high) if metric.direction == "decrease" else (-high, -low)
    margin = metric.margin or 0.0
    if least > margin:
        return "broken"
    return "kept" if most <= margin else "unclear"


def _broken(row: Result, metric: AnyMetric) -> str:
    return f"guardrail {metric.name} is broken beyond its margin of {number(metric.margin or 0.0)}: {row.reason}"


def _unclear(row: Result, metric: AnyMetric) -> str:
    margin = number(metric.margin or 0.0)
    return f"guardrail {metric.name} is not shown to stay within its margin of {margin}: {row.reason}"
