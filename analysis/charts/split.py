"""Did arms get the traffic that was promised, over time?"""

import math
from typing import TYPE_CHECKING

import altair as alt

from analysis.charts.style import CONTROL, HEIGHT, WIDTH, WORSE, Drawing, finished, time_axis
from analysis.statistics.sample_ratio import THRESHOLD

if TYPE_CHECKING:
    from analysis.report import Report


def sample_ratio(report: "Report") -> Drawing:
    """Evidence against the promised split over time; above the line the split is broken."""
    rows, test = report.split_evidence(), report.srm()
    rows = rows.assign(evidence=rows["log_e_value"] / math.log(10))
    limit = -math.log10(THRESHOLD)
    line = alt.Chart(rows).mark_line(color=WORSE if test.mismatch else CONTROL, strokeWidth=2)
    y = alt.Y("evidence:Q", title="evidence (powers of ten)")
    drawn = line.encode(
        x=time_axis("time", "time (UTC)"), y=y, tooltip=["time:T", "draws:Q", "log_e_value:Q", "p_value:Q"]
    )
    border = alt.Chart().mark_rule(color=WORSE, strokeDash=[4, 3]).encode(y=alt.datum(limit))
    chart = alt.layer(border, drawn).properties(width=WIDTH, height=HEIGHT // 2)
    state = "broken: arms cannot be compared" if test.mismatch else "as promised"
    draws = f"{int(rows['draws'].iloc[-1]):,} draws" if len(rows) else "no draws yet"
    finding = f"The split is {state} (p = {test.p_value:.2g}, {draws})"
    return finished(chart, report, finding, "Above the dashed line, which holds at every look, it is called broken")
