"""The three verdicts, from every combination of findings."""

import itertools
import math
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics.rates import Rate, rate
from analysis.statistics.unit_groups import Change
from router.documents import BinaryMetric, NumericMetric
from router.documents.rollouts import Advance
from router.rollout.findings import Finding, Means, Role, Verdict, of_draws, of_metric, of_rates
from router.rollout.verdicts import judge

ADVANCES = get_args(Advance)
BREACHED = {("primary", "worse"), ("guardrail", "breached"), ("sample_ratio", "breached")}
POSSIBLE: dict[Role, tuple[Verdict, ...]] = {
    "primary": ("better", "not_worse", "worse", "insufficient"),
    "guardrail": ("kept", "breached", "insufficient", "not_measured"),
    "sample_ratio": ("kept", "breached", "insufficient", "not_measured"),
    "secondary": ("better", "worse", "breached", "insufficient"),
}


def finding(role: Role, verdict: Verdict) -> Finding:
    return Finding(name=role, role=role, verdict=verdict, low=-1.0, high=1.0, text=f"{role} {verdict}")


def shown(findings: list[Finding], advance: Advance) -> bool:
    """Return whether what `advance` asks for is there, told from the definition."""
    primary = {each.verdict for each in findings if each.role == "primary"}
    kept = all(each.verdict in {"kept", "not_measured"} for each in findings if each.role == "guardrail")
    match advance:
        case "unharmed":
            return True
        case "guardrails":
            return kept
        case "not_worse":
            return kept and bool(primary & {"better", "not_worse"})
        case "better":
            return kept and "better" in primary


@pytest.mark.parametrize("advance", ADVANCES)
def test_judge_of_every_combination(advance: Advance) -> None:
    roles = list(POSSIBLE)
    for verdicts in itertools.product(*POSSIBLE.values()):
        findings = [finding(role, verdict) for role, verdict in zip(roles, verdicts, strict=True)]
        expected = "advance" if shown(findings, advance) else "insufficient"
        if set(zip(roles, verdicts, strict=True)) & BREACHED:
            expected = "rollback"
        assert judge(findings, advance).verdict == expected, verdicts
        expected = "insufficient" if expected == "advance" else expected
        assert judge(findings, advance, ["too early"]).verdict == expected, verdicts


drawn = st.sampled_from(list(POSSIBLE)).flatmap(
    lambda role: st.sampled_from(POSSIBLE[role]).map(lambda verdict: finding(role, verdict))
)


@given(st.lists(drawn, max_size=8), st.sampled_from(ADVANCES), st.lists(st.just("too early"), max_size=2))
def test_judge_whatever_is_found(findings: list[Finding], advance: Advance, unmet: list[str]) -> None:
    found = judge(findings, advance, unmet)
    breached = [each for each in findings if (each.role, each.verdict) in BREACHED]
    assert (found.verdict == "rollback") == bool(breached)
    assert (found.verdict == "advance") == (not breached and not unmet and shown(findings, advance))
    assert found.reasons
    assert found.findings == tuple(findings)
    # What a secondary metric says changes nothing.
    deciding = [each for each in findings if each.role != "secondary"]
    assert judge(deciding, advance, unmet).verdict == found.verdict


@given(st.lists(drawn, max_size=8), st.sampled_from(ADVANCES))
def test_judge_says_insufficient_without_data(findings: list[Finding], advance: Advance) -> None:
    unknown = [msgspec.structs.replace(each, verdict="insufficient") for each in findings]
    assert judge(unknown, advance, ["no decision"]).verdict == "insufficient"
    if advance in {"not_worse", "better"}:
        assert judge(unknown, advance).verdict == "insufficient"


@pytest.mark.parametrize("advance", ["not_worse", "better"])
def test_judge_says_insufficient_where_nothing_is_known_of_the_primary_metric(advance: Advance) -> None:
    found = judge([finding("guardrail", "kept")], advance)
    assert found.verdict == "insufficient"
    assert "nothing is known of the primary metric" in found.reasons[0]


@pytest.mark.parametrize("advance", ADVANCES)
@pytest.mark.parametrize("role", ["primary", "guardrail"])
def test_judge_says_insufficient_while_there_are_too_few_values(role: Role, advance: Advance) -> None:
    few = msgspec.structs.replace(finding(role, "insufficient"), low=None, high=None, control_n=100, candidate_n=29)
    found = judge([few], advance)
    assert (found.verdict, found.reasons[0]) == ("insufficient", f"not judged yet: {role} insufficient")
    # That predictions are alike is known, though it has no interval.
    alike = msgspec.structs.replace(few, candidate_n=30)
    assert judge([alike], "unharmed").verdict == "advance"


def test_judge_asks_the_stage_alone_for_breaches_only() -> None:
    stage = [msgspec.structs.replace(finding(role, "insufficient"), scope="stage") for role in ("primary", "guardrail")]
    whole = [finding("primary", "better"), finding("guardrail", "kept")]
    assert judge([*whole, *stage], "better").verdict == "advance"
    breached = msgspec.structs.replace(finding("guardrail", "breached"), scope="stage")
    assert judge([*whole, breached], "better").verdict == "rollback"


def test_judge_names_every_breach_and_nothing_else() -> None:
    findings = [finding("guardrail", "breached"), finding("primary", "worse"), finding("guardrail", "kept")]
    assert judge(findings, "better", ["too early"]).reasons == ("guardrail breached", "primary worse")


CLICK = BinaryMetric(name="click", direction="increase", role="primary", margin=0.02)
WAIT = NumericMetric(name="wait", direction="decrease", role="guardrail", margin=0.02)
MEANS = Means(0.5, 0.5, 1000, 1000)


def changed(difference: float, sd: float = 1e-4) -> Change:
    """Return a difference that is known well."""
    return Change(difference, 1.0, sd * sd, 0.25)


@pytest.mark.parametrize(
    ("difference", "verdict", "without_margin"),
    [
        (0.1, "better", "better"),
        (-0.01, "not_worse", "worse"),
        (-0.1, "worse", "worse"),
        (-0.02, "insufficient", "worse"),
    ],
)
def test_of_metric_primary(difference: float, verdict: Verdict, without_margin: Verdict) -> None:
    found = of_metric(CLICK, changed(difference), MEANS, 1e-8, 0.05)
    assert found.verdict == verdict
    assert found.low is not None
    assert found.high is not None
    assert found.low < difference < found.high
    without = msgspec.structs.replace(CLICK, margin=None)
    assert of_metric(without, changed(difference), MEANS, 1e-8, 0.05).verdict == without_margin
    assert of_metric(CLICK, changed(difference, 0.1), MEANS, 1e-2, 0.05).verdict == "insufficient"


def test_of_metric_not_worse_is_within_its_margin() -> None:
    assert of_metric(CLICK, changed(0.0, 0.004), MEANS, 1.6e-5, 0.05).verdict == "not_worse"
    without = msgspec.structs.replace(CLICK, margin=None)
    assert of_metric(without, changed(0.0, 0.004), MEANS, 1.6e-5, 0.05).verdict == "insufficient"


@pytest.mark.parametrize(
    ("difference", "verdict"), [(-0.1, "kept"), (0.01, "kept"), (0.1, "breached"), (0.02, "insufficient")]
)
def test_of_metric_guardrail_that_shall_be_low(difference: float, verdict: Verdict) -> None:
    assert of_metric(WAIT, changed(difference), MEANS, 1e-8, 0.05).verdict == verdict


def test_of_metric_p_value_and_interval_agree() -> None:
    for difference in (0.0, 0.001, 0.003, 0.01):
        found = of_metric(CLICK, changed(difference, 0.001), MEANS, 1e-6, 0.05)
        assert found.low is not None
        assert found.p_value is not None
        assert (found.low > 0) == (found.p_value < 0.05)


def test_of_metric_without_values_says_so() -> None:
    found = of_metric(CLICK, None, Means(math.nan, math.nan, 3, 0), 1.0, 0.05)
    assert (found.verdict, found.control, found.low) == ("insufficient", None, None)
    assert found.text == "click: too few values so far, 0 and 3 values"
    assert msgspec.json.decode(msgspec.json.encode(found))["p_value"] is None


def rates(control: tuple[int, int], candidate: tuple[int, int], limit: float = 0.02) -> Finding:
    both = rate(*control, 0.025), rate(*candidate, 0.025)
    return of_rates("errors", *both, (control[1], candidate[1]), limit, 0.05)


def test_of_rates() -> None:
    assert rates((0, 0), (0, 0)).verdict == "insufficient"
    assert rates((100, 10_000), (0, 0)).verdict == "insufficient"
    assert rates((0, 10), (0, 10)).verdict == "insufficient"
    assert rates((0, 2000), (0, 2000)).verdict == "kept"
    assert rates((0, 2000), (100, 200)).verdict == "breached"
    assert rates((1000, 2000), (100, 200)).verdict == "insufficient"
    # Nobody to compare with: harmless is what hardly ever fails, and nothing is a breach.
    assert rates((0, 0), (0, 2000)).verdict == "kept"
    assert rates((0, 0), (2000, 2000)).verdict == "insufficient"


def test_of_rates_of_a_shadow_are_compared_with_none() -> None:
    assert of_rates("errors", Rate(0.0, 0.0, 0.0), rate(50, 100, 0.05), (0, 100), 0.02, 0.05).verdict == "breached"


def test_of_draws() -> None:
    assert of_draws(None, (3, 1)).verdict == "insufficient"
    assert of_draws(-1.0, (300, 100)).verdict == "kept"
    assert of_draws(6.9, (300, 100)).verdict == "kept"
    broken = of_draws(7.0, (300, 100))
    assert (broken.verdict, broken.role) == ("breached", "sample_ratio")
    assert "shares" in broken.text


def test_of_draws_of_more_arms_says_that_it_is_not_tested() -> None:
    found = of_draws(None, (300, 100), two_arms=False)
    assert (found.verdict, found.role) == ("not_measured", "sample_ratio")
    assert "too few" not in found.text
    assert "two arms" in found.text
    assert "too few decisions so far" in of_draws(None, (3, 1)).text
