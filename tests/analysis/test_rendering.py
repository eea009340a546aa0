import math

import pytest

from analysis.rendering import change, line
from analysis.results import Result

ROW = Result(
    metric="brier", metric_role="primary", direction="decrease", arm="boosting", role="treatment",
    model="flight-delay-boosting@1", units=1200, decisions=1300, observed_units=1100, observations=1250, mean=0.18234,
    difference=-0.0078, difference_low=-0.0117, difference_high=-0.0039, lift_percent=-4.1, lift_low_percent=-6.1,
    lift_high_percent=-2.0, p_value=0.00012, confidence=0.95, verdict="better", reason="", sample_ratio_p_value=0.5,
)  # fmt: skip


def test_line_is_short_and_grouped() -> None:
    assert line(ROW) == (
        "brier", "boosting", "flight-delay-boosting@1", "1,200", "1,300", "1,250", "0.1823", "-4.1 % (-6.1 to -2.0)",
        "0.0001", "better",
    )  # fmt: skip


def test_line_of_the_control_compares_nothing() -> None:
    nan = math.nan
    control = ROW._replace(role="control", verdict="reference", difference=nan, lift_percent=nan, p_value=nan, mean=nan)
    assert line(control)[-4:] == ("", "", "", "")


def test_change_without_lift_is_the_difference() -> None:
    assert change(ROW._replace(lift_percent=math.nan)) == "-0.0078 (-0.012 to -0.0039)"


@pytest.mark.parametrize(("p_value", "expected"), [(0.00009, "< 0.0001"), (0.04, "0.0400"), (1.0, "1.0000")])
def test_small_p_value_is_a_bound(p_value: float, expected: str) -> None:
    assert line(ROW._replace(p_value=p_value)).p_value == expected
