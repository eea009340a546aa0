"""From findings to one of three verdicts: pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import msgspec

from analysis.statistics.unit_groups import LEAST_VALUES
from router.documents.rollouts import Advance
from router.rollout.findings import Finding


class Judgement(msgspec.Struct, frozen=True):
    """`advance`, `rollback` or `insufficient`, why, and the numbers behind it."""

    verdict: Literal["advance", "rollback", "insufficient"]
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]
    exhausted: bool = False
    """Whether no more evidence will come of this stage: a person has to decide."""


def judge(findings: Sequence[Finding], advance: Advance, unmet: Sequence[str] = ()) -> Judgement:
    """Return the verdict: any breach is a rollback; nothing else is, and no data are neither that nor an advance.

    `advance` is what has to be shown, and `unmet` what has to happen first whatever is shown.
    """
    found = tuple(findings)
    if broken := [each.text for each in found if each.verdict in {"breached", "worse"} and each.role != "secondary"]:
        return Judgement("rollback", tuple(broken), found)
    missing = [*unmet, *_missing(found, advance)]
    if missing:
        return Judgement("insufficient", tuple(missing), found)
    return Judgement("advance", (_SHOWN[advance], *(each.text for each in found)), found)


_SHOWN: Mapping[Advance, str] = MappingProxyType(
    {
        "unharmed": "no guardrail is breached",
        "guardrails": "every guardrail is kept",
        "not_worse": "every guardrail is kept, and the primary metric is not worse",
        "better": "every guardrail is kept, and the primary metric is better",
    }
)


def _missing(findings: Sequence[Finding], advance: Advance) -> list[str]:
    """Return what is still to be shown."""
    whole = [each for each in findings if each.scope == "rollout"]
    missing = [f"not judged yet: {each.text}" for each in whole if _is_unknown(each)]
    if advance != "unharmed":
        missing += [f"not shown yet to be kept: {each.text}" for each in whole if _open_guardrail(each)]
    primary = [each for each in whole if each.role == "primary"]
    if advance == "better" and not any(each.verdict == "better" for each in primary):
        missing += [f"not shown yet to be better: {text}" for text in _texts(primary)]
    if advance == "not_worse" and not any(each.verdict in {"better", "not_worse"} for each in primary):
        missing += [f"not shown yet not to be worse: {text}" for text in _texts(primary)]
    return missing


def _texts(primary: Sequence[Finding]) -> list[str]:
    """Return what there is to say of the primary metric: that nothing is known of it is something, too."""
    return [each.text for each in primary] or ["nothing is known of the primary metric"]


def _is_unknown(finding: Finding) -> bool:
    """Whether there are too few values to say anything: that nothing is breached then is no news."""
    few = finding.low is None and min(finding.control_n, finding.candidate_n) < LEAST_VALUES
    return finding.role in {"primary", "guardrail"} and finding.verdict == "insufficient" and few


def _open_guardrail(finding: Finding) -> bool:
    return finding.role == "guardrail" and finding.verdict not in {"kept", "not_measured"}
