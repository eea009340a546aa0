"""Who got the traffic: the arms' shares over the epochs."""

from typing import TYPE_CHECKING

import altair as alt
import pandas as pd

from analysis.charts.style import (
    HEIGHT,
    PERCENT,
    SHARES,
    WIDTH,
    Drawing,
    arm_color,
    arm_shape,
    finished,
    time_axis,
)

if TYPE_CHECKING:
    from analysis.report import Report


def shares(report: "Report") -> Drawing:
    """A bandit's shares of the traffic over its epochs."""
    rows = report.allocation()
    # An epoch that waited for traffic would squeeze all others.
    started = rows["published"] >= report.first_decision
    rows = rows.assign(published=rows["published"].where(started, report.first_decision))
    names = [arm.name for arm in report.experiment.arms]
    base = alt.Chart(rows).encode(
        x=time_axis("published", "time (UTC)"),
        y=alt.Y("share:Q", title="share of the traffic", axis=PERCENT, scale=SHARES),
        color=arm_color(names),
    )
    # The newest shares hold until the last decision.
    newest = rows[rows["epoch"] == rows["epoch"].max()]
    until = newest.assign(published=newest["published"].clip(lower=report.last_decision))
    line = base.properties(data=pd.concat([rows, until])).mark_line(strokeWidth=2, interpolate="step-after")
    point = base.mark_point(filled=True, size=45, opacity=1).encode(
        shape=arm_shape(names),
        tooltip=["epoch:Q", "arm:N", "published:T", alt.Tooltip("share:Q", format=".1%")],
    )
    chart = alt.layer(line, point).properties(width=WIDTH, height=HEIGHT)
    return finished(chart, report, _largest_share(report))


def _largest_share(report: "Report") -> str:
    arm = max(report.hindsight().arms, key=lambda each: each.share)
    if arm.share == 0:
        return "no traffic yet"
    if report.experiment.allocation == "contextual":
        return f"{arm.arm} got {100 * arm.share:.0f} % of the decisions"
    epochs = len(report.experiment.epochs)
    return f"{arm.arm} has {100 * arm.share:.0f} % of the traffic, by the newest of {epochs} epochs"
