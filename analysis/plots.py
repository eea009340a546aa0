"""Charts of a report; each carries only its aggregates, and its title says what was found."""

import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import altair as alt
import pandas as pd

from analysis.experiment import AnyMetric
from analysis.rendering import change
from analysis.results import Result

if TYPE_CHECKING:
    from analysis.report import Report

# Okabe and Ito's palette, told apart with any colour vision; the control keeps a neutral grey.
_CONTROL = "#666666"
_TREATMENTS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
_VERDICTS = {"better": "#0072B2", "worse": "#D55E00", "insufficient": "#666666"}
_VERDICT_SHAPES = {"better": "triangle-up", "worse": "triangle-down", "insufficient": "circle"}
_ARM_SHAPES = (
    "circle",
    "square",
    "diamond",
    "cross",
    "triangle-up",
    "triangle-down",
    "triangle-left",
    "triangle-right",
)

_WIDTH = 640
_TITLE_LETTERS = 76
_FAINT = "#BBBBBB"
_CLOCK = {
    "year": "%b %d %Y",
    "quarter": "%b %d",
    "minutes": "%H:%M",
    "hours": "%H:%M",
    "day": "%b %d",
    "date": "%b %d",
    "week": "%b %d",
    "month": "%b %d",
}
_LEGEND = alt.Legend(orient="bottom", symbolSize=110, symbolOpacity=1, labelLimit=200)

Channel = TypeVar("Channel", alt.Color, alt.Shape)
Drawing = alt.LayerChart | alt.FacetChart


class Plots:
    """The charts of one report, reached as `report.plot`."""

    def __init__(self, report: "Report") -> None:
        self._report = report

    def summary(self) -> Drawing:
        """Change against the control in percent, with its interval, per metric and treatment arm."""
        rows = self._treatment_rows()
        level = f"{100 * rows['confidence'].iloc[0]:.4g} %"
        base = alt.Chart().encode(
            y=alt.Y("arm:N", title=None, sort=self._arm_names(), axis=alt.Axis(labelLimit=160)),
            color=_scale(alt.Color, "verdict:N", _VERDICTS),
            tooltip=["metric:N", "arm:N", "text:N", alt.Tooltip("p_value:Q", format=".2g"), "reason:N"],
        )
        title = f"change against control (%), with {level} interval"
        zero = alt.Chart().mark_rule(color=_FAINT, strokeDash=[4, 3]).encode(x=alt.datum(0))
        interval = base.mark_rule(strokeWidth=2.5).encode(
            x=alt.X("lift_low_percent:Q", title=title, scale=alt.Scale(padding=16)), x2="lift_high_percent:Q"
        )
        point = base.mark_point(filled=True, size=110, opacity=1).encode(
            x="lift_percent:Q", shape=_scale(alt.Shape, "verdict:N", _VERDICT_SHAPES)
        )
        text = base.encode(x="text_at:Q", text="text:N")
        halo = text.mark_text(dy=-12, fontSize=11, stroke="white", strokeWidth=4)
        layers = alt.layer(zero, interval, point, halo, text.mark_text(dy=-12, fontSize=11))
        layers = layers.properties(width=_WIDTH - 120, height=alt.Step(44))
        faceted = layers.facet(
            row=alt.Row(
                "wanted:N",
                title=None,
                sort=list(rows["wanted"].unique()),
                header=alt.Header(labelAngle=0, labelAlign="left", labelLimit=220, labelFontSize=12),
            ),
            data=rows,
            spacing=6,
        ).resolve_scale(y="independent")
        return _finished(faceted, *self._titles(self._primary_finding()))

    def timeline(self, metric: str | None = None) -> Drawing:
        """Mean of a metric (default: the primary) per arm over the time of the decisions, with 95 % bands."""
        chosen = self._metric(metric)
        rows = self._report.timeline(metric)
        x = alt.X(
            "period:T", title="time of the decision (UTC)", scale=alt.Scale(type="utc"), axis=alt.Axis(format=_CLOCK)
        )
        base = alt.Chart(rows).encode(x=x, color=self._arm_color())
        band = base.mark_area(opacity=0.18).encode(y="low:Q", y2="high:Q")
        mean = alt.Y("mean:Q", title=f"mean {chosen.name} ({chosen.wanted})", scale=alt.Scale(zero=False))
        line = base.mark_line(strokeWidth=2).encode(y=mean)
        point = base.mark_point(filled=True, size=45, opacity=1).encode(
            y=mean,
            shape=self._arm_shape(),
            tooltip=["arm:N", "period:T", "mean:Q", "low:Q", "high:Q", "units:Q"],
        )
        title = f"Mean {chosen.name} per {_duration(self._report.period_ms)}, with 95 % bands"
        chart = alt.layer(band, line, point).properties(width=_WIDTH, height=260)
        return _finished(chart, *self._titles(self._finding(chosen), title))

    def reliability(self, metric: str | None = None) -> Drawing:
        """Observed frequency against predicted probability per arm; on the diagonal predictions mean what they say."""
        rows = self._report.reliability(metric)
        whole, percent = alt.Scale(domain=[0, 1]), alt.Axis(format=".0%")
        diagonal = alt.Chart(pd.DataFrame({"p": [0.0, 1.0]})).mark_line(color=_FAINT, strokeDash=[4, 3])
        base = alt.Chart(rows).encode(
            x=alt.X("predicted:Q", title="predicted probability (mean of the bin)", scale=whole, axis=percent),
            color=self._arm_color(),
        )
        observed = alt.Y("observed:Q", title="observed frequency, with 95 % interval", scale=whole, axis=percent)
        interval = base.mark_rule(strokeWidth=1.5, opacity=0.7).encode(y=alt.Y("low:Q"), y2="high:Q")
        line = base.mark_line(strokeWidth=1.5).encode(y=observed)
        point = base.mark_point(filled=True, size=70, opacity=1).encode(
            y=observed, shape=self._arm_shape(), tooltip=["arm:N", "predicted:Q", "observed:Q", "labels:Q"]
        )
        chart = alt.layer(diagonal.encode(x="p:Q", y="p:Q"), interval, line, point).properties(width=380, height=380)
        return _finished(chart, *self._titles(_calibration(rows), "On the dashed line predictions mean what they say"))

    def _treatment_rows(self) -> pd.DataFrame:
        treatments = [row for row in self._report.results if row.role == "treatment"]
        rows = pd.DataFrame(treatments, columns=pd.Index(Result._fields))
        wanted = {metric.name: f"{metric.name} ({metric.wanted})" for metric in self._report.experiment.metrics}
        return rows.assign(
            wanted=rows["metric"].map(wanted),
            text=[change(row) or "not enough evidence" for row in treatments],
            text_at=rows["lift_percent"].fillna(0.0),
        )

    def _arm_names(self) -> list[str]:
        return [arm.name for arm in self._report.experiment.arms]

    def _arm_color(self) -> alt.Color:
        treatments = self._arm_names()[1:]
        colors = [_TREATMENTS[index % len(_TREATMENTS)] for index in range(len(treatments))]
        names = self._arm_names()
        return _scale(alt.Color, "arm:N", dict(zip(names, [_CONTROL, *colors], strict=True)))

    def _arm_shape(self) -> alt.Shape:
        names = self._arm_names()
        shapes = [_ARM_SHAPES[index % len(_ARM_SHAPES)] for index in range(len(names))]
        return _scale(alt.Shape, "arm:N", dict(zip(names, shapes, strict=True)))

    def _metric(self, name: str | None) -> AnyMetric:
        experiment = self._report.experiment
        return experiment.primary if name is None else experiment.metric(name)

    def _finding(self, metric: AnyMetric) -> str:
        arm = self._report.verdict().arm
        return next(row.reason for row in self._report.results if (row.metric, row.arm) == (metric.name, arm))

    def _primary_finding(self) -> str:
        return self._finding(self._report.experiment.primary)

    def _titles(self, finding: str, *about: str) -> tuple[str, list[str]]:
        experiment = self._report.experiment
        moment = datetime.fromtimestamp(self._report.now_ms / 1000, tz=UTC)
        context = f"{experiment.name} on {experiment.endpoint}, as of {moment:%Y-%m-%d %H:%M} UTC"
        return finding, [*about, context]


def _calibration(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "not enough evidence: no prediction has a label"
    gap = (rows["predicted"] - rows["observed"]).abs() * rows["labels"]
    points = 100 * gap.groupby(rows["arm"], sort=False).sum() / rows.groupby("arm", sort=False)["labels"].sum()
    each = ", ".join(f"{value:.1f} points ({arm})" for arm, value in points.items())
    return f"Predictions miss the observed frequency on average by {each}"


def _duration(period_ms: int) -> str:
    """In the largest unit that divides it; periods are whole minutes."""
    widths = {"week": 604_800_000, "day": 86_400_000, "hour": 3_600_000, "minute": 60_000}
    name, width_ms = next((name, width) for name, width in widths.items() if period_ms % width == 0)
    count = period_ms // width_ms
    return name if count == 1 else f"{count} {name}s"


def _scale(channel: type[Channel], field: str, values: dict[str, str]) -> Channel:
    scale = alt.Scale(domain=list(values), range=list(values.values()))
    return channel(field, title=None, scale=scale, legend=_LEGEND)


def _finished(chart: Drawing, title: str, subtitle: list[str]) -> Drawing:
    heading = alt.TitleParams(
        text=textwrap.wrap(title, _TITLE_LETTERS),
        subtitle=subtitle,
        anchor="start",
        frame="bounds",
        fontSize=15,
        subtitleColor="#555555",
        subtitleFontSize=12,
        offset=14,
    )
    titled: Drawing = chart.properties(title=heading)
    with_axes: Drawing = titled.configure_axis(
        labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#EEEEEE"
    )
    finished: Drawing = with_axes.configure_legend(labelFontSize=12).configure_view(stroke=None)
    return finished
