"""What is believed of every arm's mean."""

from typing import TYPE_CHECKING

import altair as alt

from analysis.charts.style import TEXT, WIDTH, Drawing, arm_color, arm_shape, finished

if TYPE_CHECKING:
    from analysis.report import Report

_HEIGHT = 200
_BARE = alt.Axis(labels=False, ticks=False, grid=False)


def densities(report: "Report", metric: str | None) -> Drawing:
    """Posterior density of every arm's mean, above the mean and its 95 % credible interval."""
    chosen, found = report.experiment.metric(metric), report.posteriors(metric)
    names = [arm.name for arm in report.experiment.arms]
    title = f"mean {chosen.name} ({chosen.wanted})"
    along = alt.Scale(zero=False, nice=False)
    density = alt.Y("density:Q", stack=None, title="posterior density", axis=_BARE)
    base = alt.Chart(found.densities).encode(x=alt.X("value:Q", scale=along, axis=_BARE, title=None), y=density)
    upper = alt.layer(base.mark_area(opacity=0.18), base.mark_line(strokeWidth=2)).encode(color=arm_color(names))
    said = found.frame().assign(
        row=range(len(found.arms)), chance=[f"best with {_chance(arm.best_percent)}" for arm in found.arms]
    )
    summary = alt.Chart(said).encode(
        # One row per arm, control on top.
        y=alt.Y("row:Q", scale=alt.Scale(domain=[len(names) - 0.3, -0.7]), axis=None),
        color=arm_color(names),
        tooltip=["arm:N", "observations:Q", "mean:Q", "low:Q", "high:Q", "best_percent:Q", "expected_loss:Q"],
    )
    below = alt.X("low:Q", title=title, scale=along, axis=alt.Axis(tickCount=8))
    interval = summary.mark_rule(strokeWidth=2.5).encode(x=below, x2="high:Q")
    point = summary.mark_point(filled=True, size=90, opacity=1).encode(x="mean:Q", shape=arm_shape(names))
    text = summary.mark_text(dy=-11, fontSize=11).encode(x="mean:Q", text="chance:N", color=alt.value(TEXT))
    lower = alt.layer(interval, point, text).properties(width=WIDTH, height=36 * len(names))
    chart: Drawing = alt.vconcat(upper.properties(width=WIDTH, height=_HEIGHT), lower, spacing=2).resolve_scale(
        x="shared", color="shared"
    )
    about = "Below: mean and 95 % credible interval, and the probability that no other arm is better"
    return finished(chart, report, found.reason, about)


def _chance(percent: float) -> str:
    return "less than 0.1 %" if percent < 0.1 else f"{percent:.1f} %"
