"""How shadows compare with what was served: by their scores, and by how often they say the same."""

from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from analysis.charts.style import (
    LABELS,
    TEXT,
    VERDICT_SHAPES,
    VERDICTS,
    WIDTH,
    Drawing,
    finished,
    percent,
    reference_rule,
    scale,
)
from analysis.evidence import number

if TYPE_CHECKING:
    from analysis.report import Report

_ORDER = ("better", "worse", "insufficient")


def comparison(report: "Report", metric: str | None) -> Drawing:
    """Score difference against what was served, and agreement with it, per shadow; intervals hold at every look."""
    rows = report.shadow(metric)
    score = report.shadow_score if metric is None else report.experiment.metric(metric)
    level = percent(rows["confidence"].iloc[0]) if len(rows) else ""
    # An infinite end says nothing, and no axis can show it.
    shown = rows.replace([np.inf, -np.inf], np.nan).assign(
        difference_text=[number(value, "+") for value in rows["difference"]],
        agreement_text=[f"{value:.0f} %" for value in rows["agreement_percent"]],
    )
    charts = [_panel(shown, "agreement", f"agreement (%), with {level} interval", alt.Scale(domain=[0, 100]), None)]
    if score is not None:
        title = f"change of {score.name} ({score.wanted})"
        charts.insert(0, _panel(shown, "difference", title, alt.Scale(padding=24), 0.0))
    chart: Drawing = alt.hconcat(*charts, spacing=24).resolve_scale(color="shared", shape="shared")
    about = "On the dashed line the shadow scores as what was served did; intervals hold at every look"
    return finished(chart, report, _finding(rows), about)


def _panel(rows: pd.DataFrame, name: str, title: str, along: alt.Scale, reference: float | None) -> Drawing:
    middle, low, high = (
        (f"{name}_percent", f"{name}_low_percent", f"{name}_high_percent")
        if f"{name}_percent" in rows.columns
        else (name, f"{name}_low", f"{name}_high")
    )
    axis = LABELS if name == "difference" else None
    base = alt.Chart(rows).encode(
        y=alt.Y("model:N", title=None, sort=None, axis=axis),
        color=scale(alt.Color, "verdict:N", VERDICTS),
        tooltip=["model:N", f"{middle}:Q", f"{low}:Q", f"{high}:Q", "labels:Q", "units:Q", "reason:N"],
    )
    interval = base.mark_rule(strokeWidth=2.5).encode(x=alt.X(f"{low}:Q", title=title, scale=along), x2=f"{high}:Q")
    point = base.mark_point(filled=True, size=110, opacity=1).encode(
        x=f"{middle}:Q", shape=scale(alt.Shape, "verdict:N", VERDICT_SHAPES)
    )
    text = base.mark_text(dy=-13, fontSize=11).encode(x=f"{middle}:Q", text=f"{name}_text:N", color=alt.value(TEXT))
    rule = [] if reference is None else [reference_rule(reference, vertical=True)]
    return alt.layer(*rule, interval, point, text).properties(width=(WIDTH - 160) // 2, height=alt.Step(48))


def _finding(rows: pd.DataFrame) -> str:
    """The reason of the shadow of which most can be said."""
    if rows.empty:
        return "no shadow has seen a decision"
    return str(rows.sort_values("verdict", key=lambda each: each.map(_ORDER.index), kind="stable")["reason"].iloc[0])
