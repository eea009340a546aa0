"""What another policy would have earned, and how far the log covers it."""

import math
from typing import TYPE_CHECKING

import altair as alt

from analysis.charts.style import (
    CONTROL,
    FAINT,
    HEIGHT,
    TEXT,
    VERDICTS,
    WIDTH,
    Drawing,
    finished,
    percent,
    reference_rule,
)
from analysis.statistics.ratios import Estimate
from analysis.what_if import WhatIf, said

if TYPE_CHECKING:
    from analysis.report import Report

_NAMES = {
    "dr": "doubly robust (DR)",
    "switch_dr": "switch-DR",
    "snips": "self-normalised (SNIPS)",
    "ips": "inverse propensity (IPS)",
    "dm": "direct method (DM)",
    "logged": "traffic as it was",
}


def estimates(report: "Report", found: WhatIf) -> Drawing:
    """The metric under the policy by every estimator, with intervals, beside the traffic as it was."""
    frame = found.frame()
    rows = frame.assign(name=frame["estimator"].map(_NAMES)).dropna(subset="value")
    rows = rows.assign(text=[said(each[0], Estimate(*each)) for each in rows[[*Estimate._fields]].to_numpy().tolist()])
    colors = alt.condition(
        "datum.estimator == 'logged'", alt.value(CONTROL), alt.value(VERDICTS.get(found.verdict, CONTROL))
    )
    title = f"mean {found.metric}, with {percent(found.confidence)} interval"
    base = alt.Chart(rows).encode(
        y=alt.Y("name:N", title=None, sort=list(_NAMES.values()), axis=alt.Axis(labelLimit=260)),
        color=colors,
        tooltip=["name:N", "value:Q", "error:Q", "low:Q", "high:Q"],
    )
    along = alt.X("low:Q", title=title, scale=alt.Scale(zero=False, padding=24))
    interval = base.mark_rule(strokeWidth=2.5).encode(x=along, x2="high:Q")
    point = base.mark_point(filled=True, size=110, opacity=1).encode(x="value:Q")
    text = base.mark_text(dy=-13, fontSize=11).encode(x="value:Q", text="text:N", color=alt.value(TEXT))
    rule = [] if math.isnan(found.logged.value) else [reference_rule(found.logged.value, vertical=True)]
    chart = alt.layer(*rule, interval, point, text).properties(width=WIDTH - 160, height=alt.Step(40))
    return finished(chart, report, found.reason, "On the dashed line the policy would change nothing")


def weights(report: "Report", found: WhatIf) -> Drawing:
    """How many observations have which weight; few with large ones carry the whole estimate."""
    rows = found.weights[found.weights["observations"] > 0]
    bars = (
        alt.Chart(rows)
        .mark_bar(color=VERDICTS["better"] if found.estimates else FAINT)
        .encode(
            x=alt.X(
                "low:Q",
                title="weight: the policy's probability over the logged one",
                bin="binned",
                axis=alt.Axis(tickCount=8),
            ),
            x2="high:Q",
            y=alt.Y("observations:Q", title="observations"),
            tooltip=["low:Q", "high:Q", "observations:Q"],
        )
    )
    chart = alt.layer(bars, reference_rule(1.0, vertical=True)).properties(width=WIDTH, height=HEIGHT)
    overlap = found.overlap
    finding = (
        f"The log covers {found.policy}: effective sample size {overlap.effective_sample_size:,.0f}, with a largest "
        f"weight of {overlap.largest_weight:,.3g}"
        if overlap.sufficient
        else found.reason
    )
    return finished(chart, report, finding, "On the dashed line the policy chooses an arm as often as the log did")
