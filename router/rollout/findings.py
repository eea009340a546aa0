"""What the evidence says of each metric and guardrail: pure, from sums to findings."""

import math
from typing import Any, Literal, NamedTuple

import msgspec

from analysis.statistics.rates import Rate
from analysis.statistics.unit_groups import Change, log_evidence, margin
from router.documents import AnyMetric

Role = Literal["primary", "secondary", "guardrail", "sample_ratio"]
Verdict = Literal["better", "not_worse", "worse", "kept", "breached", "insufficient", "not_measured"]

SAMPLE_RATIO_ERROR = 0.001
"""How often, at most, a rollout whose arms get their shares is found not to."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of the candidate with the control, with an interval that holds at every look.

    `difference` is the candidate's value less the control's, whichever direction is good.
    """

    name: str
    role: Role
    verdict: Verdict
    control: float | None = None
    candidate: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    confidence: float | None = None
    p_value: float | None = None
    scope: Literal["rollout", "stage"] = "rollout"
    """Of all stages together, or of the present one alone."""
    control_n: int = 0
    candidate_n: int = 0
    text: str


class Means(NamedTuple):
    """The means behind a difference, and how many values each is of."""

    control: float
    candidate: float
    control_n: float
    candidate_n: float


def of_metric(metric: AnyMetric, found: Change | None, means: Means, planned: float, alpha: float) -> Finding:
    """Return what is known of a metric; `planned` is the variance expected at the planned number of decisions."""
    common: dict[str, Any] = {
        "name": metric.name,
        "role": metric.role,
        "margin": metric.margin,
        "confidence": 1 - alpha,
        "control_n": round(means.control_n),
        "candidate_n": round(means.candidate_n),
    }
    if found is None:
        text = f"{metric.name}: too few values so far, {_counted(means)}"
        return Finding(**common, verdict="insufficient", text=text)
    off = margin(found, planned, alpha)
    low, high = found.difference - off, found.difference + off
    gain = (low, high) if metric.direction == "increase" else (-high, -low)
    verdict = _primary(gain, metric.margin) if metric.role != "guardrail" else _guardrail(gain, metric.margin or 0.0)
    evidence = log_evidence(found, planned, alpha)
    text = (
        f"{metric.name}: {means.candidate:.4g} against {means.control:.4g}, difference {found.difference:+.3g} "
        f"({low:+.3g} to {high:+.3g}), {_counted(means)}"
    )
    return Finding(
        **common,
        verdict=verdict,
        control=means.control,
        candidate=means.candidate,
        difference=found.difference,
        low=low,
        high=high,
        p_value=math.exp(-max(evidence, 0.0)),
        text=text,
    )


def of_rates(name: str, control: Rate, candidate: Rate, cases: tuple[int, int], limit: float, alpha: float) -> Finding:
    """Return whether something that is bad happens more often to the candidate than to the control, by a margin.

    Each rate is at half of alpha, so that their difference is at alpha.
    """
    low, high = candidate.low - control.high, candidate.high - control.low
    known = bool(cases[1])
    difference = candidate.value - control.value if all(cases) else None
    verdict = _guardrail((-high, -low), limit) if known else "insufficient"
    text = f"{name}: no decision of the candidate so far"
    if known:
        text = (
            f"{name}: {candidate.value:.2%} of {cases[1]:,} decisions"
            + (f" against {control.value:.2%} of {cases[0]:,}" if cases[0] else "")
            + f"; {low:+.2%} to {high:+.2%}, and {limit:+.2%} is the limit"
        )
    return Finding(
        name=name,
        role="guardrail",
        verdict=verdict,
        control=control.value if cases[0] else None,
        candidate=candidate.value if cases[1] else None,
        difference=difference,
        low=low,
        high=high,
        margin=limit,
        confidence=1 - alpha,
        control_n=cases[0],
        candidate_n=cases[1],
        text=text,
    )


def not_measured(name: str, role: Role, why: str) -> Finding:
    """Return that a stage shows nothing of a guardrail, whatever happens."""
    return Finding(name=name, role=role, verdict="not_measured", text=f"{name.replace('_', ' ')}: not measured {why}")


def of_stage(finding: Finding) -> Finding:
    """Return a finding that was made of the present stage's evidence alone, as such."""
    return msgspec.structs.replace(finding, scope="stage", text=f"in this stage alone, {finding.text}")


def of_draws(evidence: float | None, counts: tuple[float, float], *, two_arms: bool = True) -> Finding:
    """Return whether the arms got the decisions that their propensities say; of two arms that can be told."""
    if not two_arms:
        return not_measured("sample_ratio", "sample_ratio", "here with more than two arms; `turnout report` does it")
    common: dict[str, Any] = {
        "name": "sample_ratio",
        "role": "sample_ratio",
        "confidence": 1 - SAMPLE_RATIO_ERROR,
        "control_n": round(counts[0]),
        "candidate_n": round(counts[1]),
    }
    if evidence is None:
        text = "sample ratio: too few decisions so far"
        return Finding(**common, verdict="insufficient", text=text)
    p_value = math.exp(-max(evidence, 0.0))
    broken = evidence >= -math.log(SAMPLE_RATIO_ERROR)
    text = f"sample ratio: p-value {p_value:.2g}"
    if broken:
        text = (
            f"sample ratio: the arms did not get the decisions that their shares say (p-value {p_value:.1g}), "
            "so no result can be trusted: some decisions are lost, or made twice"
        )
    verdict: Verdict = "breached" if broken else "kept"
    return Finding(**common, verdict=verdict, p_value=p_value, text=text)


def _primary(gain: tuple[float, float], limit: float | None) -> Verdict:
    low, high = gain
    if low > 0:
        return "better"
    if limit is not None and low > -limit:
        return "not_worse"
    # What its margin allows to lose is no reason to go back.
    return "worse" if high < -(limit or 0.0) else "insufficient"


def _guardrail(gain: tuple[float, float], limit: float) -> Verdict:
    low, high = gain
    if high < -limit:
        return "breached"
    return "kept" if low > -limit else "insufficient"


def _counted(means: Means) -> str:
    return f"{means.candidate_n:,.0f} and {means.control_n:,.0f} values"
