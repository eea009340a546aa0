import math

import pytest
from tea_tasting.aggr import Aggregates

from analysis.evidence import Judgement, broken_split, judge, missing_evidence, number
from analysis.experiment import AnyMetric, BinaryMetric, Direction, NumericMetric, RatioMetric, ScoreMetric
from analysis.fixed_horizon import Effect, Sample

BRIER = ScoreMetric(name="brier", direction="decrease", score="brier", label="late")
CLICK = BinaryMetric(name="click", direction="increase")


def _sample(units: int, mean: float, variance: float = 0.1, observations: int | None = None) -> Sample:
    return Sample(units, units if observations is None else observations, mean, variance, Aggregates())


def _effect(low: float, high: float, *, lift: tuple[float, float, float] | None = None) -> Effect:
    nan = math.nan
    return Effect((low + high) / 2, low, high, *(lift or (nan, nan, nan)), 0.01)


@pytest.mark.parametrize(
    ("metric", "sample", "expected"),
    [
        (BRIER, None, "boosting has no observations of brier"),
        (BRIER, _sample(40, math.nan, observations=0), "boosting has no observations of brier"),
        (BRIER, _sample(29, 0.2), "boosting has 29 units with brier, and an interval needs 30"),
        (BRIER, _sample(30, 0.2), None),
        (BRIER, _sample(30, 0.2, 0.0), "all 30 units of boosting have the same brier"),
        (BRIER, _sample(30, 0.2, 1e-34), "all 30 units of boosting have the same brier"),
        (CLICK, _sample(100, 0.04), "boosting has 4 ones and 96 zeros of click, and needs 5 of each"),
        (CLICK, _sample(100, 0.96), "boosting has 96 ones and 4 zeros of click, and needs 5 of each"),
        (CLICK, _sample(100, 0.05), None),
        (NumericMetric(name="revenue", direction="increase"), _sample(100, 0.0), None),
        (
            RatioMetric(name="rate", direction="increase", numerator="a", denominator="b"),
            _sample(100, math.nan),
            "the denominator of rate adds up to 0 in boosting",
        ),
    ],
)
def test_missing_evidence_names_the_numbers(metric: AnyMetric, sample: Sample | None, expected: str | None) -> None:
    assert missing_evidence(metric, "boosting", sample) == expected


@pytest.mark.parametrize(
    ("direction", "effect", "expected"),
    [
        (
            "decrease",
            _effect(-0.03, -0.01, lift=(-4.1, -6.1, -2.0)),
            Judgement("better", "boosting lowers brier by 4.1 % (95 % CI 2.0 to 6.1)"),
        ),
        (
            "increase",
            _effect(-0.03, -0.01, lift=(-4.1, -6.1, -2.0)),
            Judgement("worse", "boosting lowers brier by 4.1 % (95 % CI 2.0 to 6.1)"),
        ),
        (
            "decrease",
            _effect(0.01, 0.03, lift=(4.1, 2.0, 6.1)),
            Judgement("worse", "boosting raises brier by 4.1 % (95 % CI 2.0 to 6.1)"),
        ),
        (
            "increase",
            _effect(0.01, 0.03),
            Judgement("better", "boosting raises brier by 0.02 (95 % CI 0.01 to 0.03)"),
        ),
        (
            "increase",
            _effect(0.01, 0.03, lift=(4.1, -0.1, 6.1)),
            Judgement("better", "boosting raises brier by 0.02 (95 % CI 0.01 to 0.03)"),
        ),
        (
            "decrease",
            _effect(-0.03, 0.01, lift=(-4.1, -8.1, 1.0)),
            Judgement(
                "insufficient",
                "not enough evidence: the change that boosting makes to brier may be 0: -4.1 % (95 % CI -8.1 to +1.0)",
            ),
        ),
        (
            "decrease",
            _effect(0.0, 0.01),
            Judgement(
                "insufficient",
                "not enough evidence: the change that boosting makes to brier may be 0: "
                "+0.005 (95 % CI +0.00 to +0.01)",
            ),
        ),
    ],
)
def test_judgement_needs_an_interval_without_zero(direction: Direction, effect: Effect, expected: Judgement) -> None:
    metric = ScoreMetric(name="brier", direction=direction, score="brier", label="late")
    assert judge(metric, "boosting", effect, 0.95) == expected


def test_broken_split_is_not_enough_evidence() -> None:
    judgement = broken_split(4.3e-8)
    assert judgement.verdict == "insufficient"
    assert "sample ratio p = 4e-08" in judgement.reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1234.5, "1,234"), (12.345, "12.3"), (1.0, "1.0"), (0.456, "0.46"), (0.0123, "0.012"), (0.0, "0.00")],
)
def test_number_keeps_what_matters(value: float, expected: str) -> None:
    assert number(value) == expected
