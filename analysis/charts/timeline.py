"""What each arm did over time."""

from typing import TYPE_CHECKING

import altair as alt

from analysis.charts.findings import finding
from analysis.charts.style import Drawing, arm_color, arm_shape, duration, evidence, finished, time_axis

if TYPE_CHECKING:
    from analysis.report import Report


def means(report: "Report", metric: str | None) -> Drawing:
    """Mean of a metric (default: the primary) per arm over the time of the decisions, with 95 % bands."""
    chosen = report.experiment.metric(metric)
    names = [arm.name for arm in report.experiment.arms]
    base = alt.Chart(report.timeline(metric)).encode(
        x=time_axis("period", "time of the decision (UTC)"),
        color=arm_color(names),
        tooltip=["arm:N", "period:T", "mean:Q", "low:Q", "high:Q", "units:Q"],
    )
    mean = alt.Y("mean:Q", title=f"mean {chosen.name} ({chosen.wanted})", scale=alt.Scale(zero=False))
    bands = "" if report.experiment.is_adaptive else ", with 95 % bands"
    about = f"Mean {chosen.name} per {duration(report.period_ms)}{bands}"
    chart = evidence(base, mean, "low", "high", shape=arm_shape(names))
    return finished(chart, report, finding(report, chosen), about)
