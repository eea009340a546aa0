import math

import pytest

from analysis.evidence import insufficient, judge
from analysis.experiment import Arm, BinaryMetric, Experiment, ScoreMetric
from analysis.fixed_horizon import Effect
from analysis.results import Result
from analysis.split_check import SplitCheck
from analysis.verdict import decide, leading_arm

BRIER = ScoreMetric(name="brier", direction="decrease", role="primary", score="brier", label="late")
CLICK = BinaryMetric(name="click", direction="increase", role="guardrail", margin=0.02)
ARMS = (Arm(0, "control", "m@1"), Arm(1, "boosting", "m@2"), Arm(2, "forest", "m@3"))
EXPERIMENT = Experiment(1, "e", "flight-delay", "concluded", "unit", ARMS, (BRIER, CLICK), ())
HONEST = SplitCheck(0.48, -2.0, 0.5)
NAN = math.nan

Interval = tuple[float, float] | None


def _row(metric: ScoreMetric | BinaryMetric, arm: str, interval: Interval, mean: float = 0.2) -> Result:
    effect = Effect(NAN, NAN, NAN, NAN, NAN, NAN, NAN)
    judgement = insufficient(f"{arm} has no observations of {metric.name}")
    if interval is not None:
        effect = Effect(sum(interval) / 2, *interval, NAN, NAN, NAN, 0.01)
        judgement = judge(metric, arm, effect, 0.95)
    return Result(
        metric.name, metric.role, metric.direction, arm, "treatment", "m@2", 100, 100, 100, 100, mean,
        *effect, 0.95, judgement.verdict, judgement.reason, 0.48,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("brier", "click", "decision", "reason"),
    [
        ((-0.03, -0.01), (-0.01, 0.03), "advance", "boosting lowers brier"),
        ((-0.03, -0.01), (-0.02, -0.01), "advance", "boosting lowers brier"),
        ((-0.03, -0.01), (-0.03, 0.03), "insufficient", "guardrail click is not shown to stay within"),
        ((-0.03, -0.01), None, "insufficient", "guardrail click is not shown to stay within"),
        ((-0.03, -0.01), (-0.09, -0.03), "rollback", "guardrail click is broken beyond its margin of 0.02"),
        ((0.01, 0.03), (-0.01, 0.03), "rollback", "boosting raises brier"),
        ((-0.01, 0.03), (-0.01, 0.03), "insufficient", "not enough evidence: the change"),
        (None, None, "insufficient", "not enough evidence: boosting has no observations of brier"),
        (None, (-0.09, -0.03), "rollback", "guardrail click is broken"),
    ],
)
def test_decision_weighs_primary_and_guardrail(brier: Interval, click: Interval, decision: str, reason: str) -> None:
    rows = [_row(BRIER, "boosting", brier), _row(CLICK, "boosting", click)]
    verdict = decide(EXPERIMENT, rows, "boosting", HONEST)
    assert verdict.decision == decision
    assert verdict.reasons[0].startswith(reason)


def test_guardrail_that_should_fall_breaks_upwards() -> None:
    latency = ScoreMetric(name="e", direction="decrease", role="guardrail", margin=0.1, score="brier", label="late")
    experiment = EXPERIMENT._replace(metrics=(BRIER, latency))
    better = _row(BRIER, "boosting", (-0.03, -0.01))
    assert (
        decide(experiment, [better, _row(latency, "boosting", (0.2, 0.3))], "boosting", HONEST).decision == "rollback"
    )
    assert (
        decide(experiment, [better, _row(latency, "boosting", (-0.3, 0.1))], "boosting", HONEST).decision == "advance"
    )


@pytest.mark.parametrize("interval", [(-0.03, -0.01), (0.01, 0.03)])
def test_broken_split_decides_nothing(interval: Interval) -> None:
    rows = [_row(BRIER, "boosting", interval), _row(CLICK, "boosting", (-0.09, -0.03))]
    verdict = decide(EXPERIMENT, rows, "boosting", SplitCheck(2.5e-10, 22.1, 1e-10))
    assert verdict.decision == "insufficient"
    assert "sample ratio p = 3e-10" in verdict.reasons[0]


def test_leading_arm_follows_the_direction() -> None:
    rows = [_row(BRIER, "boosting", None, mean=0.21), _row(BRIER, "forest", None, mean=0.19)]
    assert leading_arm(EXPERIMENT, rows) == "forest"
    assert (
        leading_arm(
            EXPERIMENT._replace(metrics=(CLICK,)),
            [_row(CLICK, "boosting", None, mean=0.3), _row(CLICK, "forest", None, mean=0.2)],
        )
        == "boosting"
    )
    assert leading_arm(EXPERIMENT, []) == "boosting"
