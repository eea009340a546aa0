"""How a treatment compared with the control at every look so far."""

from typing import TYPE_CHECKING

import altair as alt

from analysis.charts.findings import finding
from analysis.charts.style import BETTER, WORSE, Drawing, evidence, finished, percent, time_axis

if TYPE_CHECKING:
    from analysis.report import Report

_LIFT = ("lift_percent", "lift_low_percent", "lift_high_percent")
_DIFFERENCE = ("difference", "difference_low", "difference_high")
_MOST_POINTS = 60
_MOST_OF_RANGE = 4.0
"""Looks with intervals so many times as wide as the middle one's would flatten all others."""


def lift(report: "Report", metric: str | None, arm: str | None) -> Drawing:
    """Change against the control over time, with its confidence sequence; in percent where there is a lift."""
    chosen, treatment = report.experiment.metric(metric), report.treatment(arm)
    looks = report.contrast(chosen.name, treatment.name)
    middle, low, high = _LIFT if looks["lift_percent"].notna().any() else _DIFFERENCE
    width = looks[high] - looks[low]
    shown = looks[width <= _MOST_OF_RANGE * width.median()]
    row = next(row for row in report.results if (row.metric, row.arm) == (chosen.name, treatment.name))
    color = {"better": BETTER, "worse": WORSE}.get(row.verdict, "#666666")
    unit = " (%)" if middle == _LIFT[0] else ""
    base = alt.Chart(shown).encode(
        x=time_axis("time", "time of the look (UTC)"),
        color=alt.value(color),
        tooltip=["time:T", "decisions:Q", f"{middle}:Q", f"{low}:Q", f"{high}:Q", "p_value:Q"],
    )
    y = alt.Y(f"{middle}:Q", title=f"change of {chosen.name}{unit}, {chosen.wanted}", scale=alt.Scale(zero=False))
    about = (
        f"{treatment.name} against {report.experiment.control.name}; the {percent(report.confidence)} band holds at "
    )
    chart = evidence(base, y, low, high, 0.0, points=45 if len(shown) <= _MOST_POINTS else 0)
    return finished(chart, report, finding(report, chosen, treatment.name), f"{about}all looks together")
