"""Do predicted probabilities mean what they say?"""

from typing import TYPE_CHECKING

import altair as alt
import pandas as pd

from analysis.charts.style import FAINT, PERCENT, SHARES, Drawing, arm_color, arm_shape, finished

if TYPE_CHECKING:
    from analysis.report import Report


def reliability(report: "Report", metric: str | None) -> Drawing:
    """Observed frequency against predicted probability per arm; on the diagonal predictions mean what they say."""
    rows = report.reliability(metric)
    names = [arm.name for arm in report.experiment.arms]
    diagonal = alt.Chart(pd.DataFrame({"p": [0.0, 1.0]})).mark_line(color=FAINT, strokeDash=[4, 3])
    base = alt.Chart(rows).encode(
        x=alt.X("predicted:Q", title="predicted probability (mean of the bin)", scale=SHARES, axis=PERCENT),
        color=arm_color(names),
    )
    observed = alt.Y("observed:Q", title="observed frequency, with 95 % interval", scale=SHARES, axis=PERCENT)
    interval = base.mark_rule(strokeWidth=1.5, opacity=0.7).encode(y=alt.Y("low:Q"), y2="high:Q")
    line = base.mark_line(strokeWidth=1.5).encode(y=observed)
    point = base.mark_point(filled=True, size=70, opacity=1).encode(
        y=observed, shape=arm_shape(names), tooltip=["arm:N", "predicted:Q", "observed:Q", "labels:Q"]
    )
    chart = alt.layer(diagonal.encode(x="p:Q", y="p:Q"), interval, line, point).properties(width=380, height=380)
    return finished(chart, report, _calibration(rows), "On the dashed line predictions mean what they say")


def _calibration(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "not enough evidence: no prediction has a label"
    gap = (rows["predicted"] - rows["observed"]).abs() * rows["labels"]
    points = 100 * gap.groupby(rows["arm"], sort=False).sum() / rows.groupby("arm", sort=False)["labels"].sum()
    each = ", ".join(f"{value:.1f} points ({arm})" for arm, value in points.items())
    return f"Predictions miss the observed frequency on average by {each}"
