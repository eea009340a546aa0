"""Intervals beside each other, one row per comparison: changes against the control, or shares of credit."""

import math
from typing import TYPE_CHECKING

import altair as alt
import pandas as pd

from analysis.charts.findings import finding
from analysis.charts.style import (
    FAINT,
    LABELS,
    VERDICT_SHAPES,
    VERDICTS,
    WIDTH,
    Drawing,
    finished,
    percent,
    scale,
)
from analysis.interleaved import judge_pair
from analysis.rendering import change, share_of_credit
from analysis.results import Result

if TYPE_CHECKING:
    from analysis.report import Report


def changes(report: "Report") -> Drawing:
    """Change against the control in percent, with its interval, per metric and treatment arm."""
    title = f"change against control (%), with {percent(report.confidence)} interval"
    layers = _intervals(
        alt.Y("arm:N", title=None, sort=[arm.name for arm in report.experiment.arms], axis=LABELS),
        alt.X("lift_low_percent:Q", title=title, scale=alt.Scale(padding=16)),
        ("lift_percent:Q", "lift_high_percent:Q"),
        0.0,
    )
    return finished(_per_metric(layers, _changes(report)), report, finding(report))


def credit(report: "Report") -> Drawing:
    """Each arm's share of the credit against another one, with its interval, per metric."""
    title = f"share of the credit (%), with {percent(report.confidence)} interval"
    layers = _intervals(
        alt.Y("pair:N", title=None, sort=None, axis=LABELS),
        alt.X("low:Q", title=title, scale=alt.Scale(padding=40, zero=False)),
        ("share:Q", "high:Q"),
        50.0,
    )
    chart = _per_metric(layers, _credits(report))
    return finished(chart, report, finding(report), "On the dashed line both arms earn the same")


def _changes(report: "Report") -> pd.DataFrame:
    treatments = [row for row in report.results if row.role == "treatment"]
    rows = pd.DataFrame(treatments, columns=pd.Index(Result._fields))
    wanted = {metric.name: f"{metric.name} ({metric.wanted})" for metric in report.experiment.metrics}
    return rows.assign(
        wanted=rows["metric"].map(wanted),
        text=[change(row) or "not enough evidence" for row in treatments],
        text_at=rows["lift_percent"].fillna(0.0),
    )


def _credits(report: "Report") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "wanted": f"{metric.name} ({metric.wanted})",
                "pair": f"{pair.second} against {pair.first}",
                "share": 100 * pair.share,
                "low": 100 * pair.share_low,
                "high": 100 * pair.share_high,
                "text": share_of_credit(pair) or "no lists",
                "text_at": 50.0 if math.isnan(pair.share) else 100 * pair.share,
                "p_value": pair.p_value,
                "verdict": judgement.verdict,
                "reason": judgement.reason,
            }
            for metric in report.experiment.metrics
            for pair in report.pairs(metric.name)
            for judgement in (judge_pair(metric, pair, report.confidence),)
        ]
    )


def _intervals(y: alt.Y, low: alt.X, point_and_high: tuple[str, str], reference: float) -> Drawing:
    """A point with its interval and its text per row, beside a dashed line where nothing differs."""
    middle, high = point_and_high
    base = alt.Chart().encode(
        y=y,
        color=scale(alt.Color, "verdict:N", VERDICTS),
        tooltip=["wanted:N", "text:N", alt.Tooltip("p_value:Q", format=".2g"), "reason:N"],
    )
    line = alt.Chart().mark_rule(color=FAINT, strokeDash=[4, 3]).encode(x=alt.datum(reference))
    interval = base.mark_rule(strokeWidth=2.5).encode(x=low, x2=high)
    point = base.mark_point(filled=True, size=110, opacity=1).encode(
        x=middle, shape=scale(alt.Shape, "verdict:N", VERDICT_SHAPES)
    )
    text = base.encode(x="text_at:Q", text="text:N")
    halo = text.mark_text(dy=-12, fontSize=11, stroke="white", strokeWidth=4)
    return alt.layer(line, interval, point, halo, text.mark_text(dy=-12, fontSize=11))


def _per_metric(layers: Drawing, rows: pd.DataFrame) -> Drawing:
    header = alt.Header(labelAngle=0, labelAlign="left", labelLimit=220, labelFontSize=12)
    row = alt.Row("wanted:N", title=None, sort=list(rows["wanted"].unique()), header=header)
    sized = layers.properties(width=WIDTH - 120, height=alt.Step(44))
    faceted: Drawing = sized.facet(row=row, data=rows, spacing=6).resolve_scale(y="independent")
    return faceted
