"""A result's rows as short texts, for terminals and pages."""

import math
from typing import NamedTuple

from analysis.evidence import number
from analysis.interleaved import Pair
from analysis.results import Result


class Line(NamedTuple):
    """One row of the printed table; `change` is the lift in percent, or the difference where there is no lift."""

    metric: str
    arm: str
    model: str
    units: str
    decisions: str
    observations: str
    mean: str
    change: str
    p_value: str
    verdict: str


HEADINGS = Line(
    "metric", "arm", "model", "units", "decisions", "observed", "mean", "change (interval)", "p-value", "verdict"
)


def line(row: Result) -> Line:
    """Render one row."""
    return Line(
        metric=row.metric,
        arm=row.arm,
        model=row.model,
        units=f"{row.units:,}",
        decisions=f"{row.decisions:,}",
        observations=f"{row.observations:,}",
        mean="" if math.isnan(row.mean) else f"{row.mean:.4g}",
        change=change(row),
        p_value=_p_value(row.p_value),
        verdict="" if row.verdict == "reference" else row.verdict,
    )


def change(row: Result) -> str:
    """The change against the control with its interval, or an empty text."""
    if math.isnan(row.difference):
        return ""
    if math.isnan(row.lift_percent):
        values, unit = (row.difference, row.difference_low, row.difference_high), ""
    else:
        values, unit = (row.lift_percent, row.lift_low_percent, row.lift_high_percent), " %"
    value, low, high = (number(each, "+") for each in values)
    return f"{value}{unit} ({low} to {high})"


def share_of_credit(pair: Pair) -> str:
    """The second arm's share with its interval, as far as they are known."""
    if math.isnan(pair.delta):
        return ""
    share, low, high = (f"{100 * each:.1f}" for each in (pair.share, pair.share_low, pair.share_high))
    return f"{share} %" if math.isnan(pair.low) else f"{share} % ({low} to {high})"


def _p_value(p_value: float) -> str:
    if math.isnan(p_value):
        return ""
    return "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"
