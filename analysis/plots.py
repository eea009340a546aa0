"""Charts of a report; each carries only its aggregates, and its title says what was found."""

import math
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import altair as alt
import pandas as pd

from analysis.experiment import AnyMetric
from analysis.interleaved import judge_pair
from analysis.rendering import change, share_of_credit
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
    "milliseconds": "%H:%M:%S.%L",
    "seconds": "%H:%M:%S",
    "year": "%b %d %Y",
    "quarter": "%b %d",
    "minutes": "%H:%M",
    "hours": "%H:%M",
    "day": "%b %d",
    "date": "%b %d",
    "week": "%b %d",
    "month": "%b %d",
}
_LABELS = alt.Axis(labelLimit=260)
_LEGEND = alt.Legend(orient="bottom", symbolSize=110, symbolOpacity=1, labelLimit=200)

Channel = TypeVar("Channel", alt.Color, alt.Shape)
Drawing = alt.LayerChart | alt.FacetChart


class Plots:
    """The charts of one report, reached as `report.plot`."""

    def __init__(self, report: "Report") -> None:
        self._report = report

    def summary(self) -> Drawing:
        """What was found: changes against the control, shares of credit of mixed lists, or a bandit's shares."""
        if self._report.experiment.is_interleaved:
            return self._credit()
        if self._report.experiment.is_adaptive:
            return self._shares()
        return self._changes()

    def _changes(self) -> Drawing:
        """Change against the control in percent, with its interval, per metric and treatment arm."""
        rows = self._treatment_rows()
        level = _percent(self._report.confidence)
        title = f"change against control (%), with {level} interval"
        layers = _intervals(
            alt.Y("arm:N", title=None, sort=self._arm_names(), axis=_LABELS),
            alt.X("lift_low_percent:Q", title=title, scale=alt.Scale(padding=16)),
            ("lift_percent:Q", "lift_high_percent:Q"),
            0.0,
        )
        return _finished(_per_metric(layers, rows), *self._titles(self._primary_finding()))

    def _credit(self) -> Drawing:
        """Each arm's share of the credit against another one, with its interval, per metric."""
        report = self._report
        rows = pd.DataFrame(
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
        title = f"share of the credit (%), with {_percent(report.confidence)} interval"
        layers = _intervals(
            alt.Y("pair:N", title=None, sort=None, axis=_LABELS),
            alt.X("low:Q", title=title, scale=alt.Scale(padding=40, zero=False)),
            ("share:Q", "high:Q"),
            50.0,
        )
        about = "On the dashed line both arms earn the same"
        return _finished(_per_metric(layers, rows), *self._titles(self._primary_finding(), about))

    def _shares(self) -> Drawing:
        """A bandit's shares of the traffic over its epochs."""
        rows = self._report.shares()
        x = alt.X("published:T", title="time (UTC)", scale=alt.Scale(type="utc"), axis=alt.Axis(format=_CLOCK))
        base = alt.Chart(rows).encode(
            x=x,
            y=alt.Y(
                "share:Q", title="share of the traffic", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1])
            ),
            color=self._arm_color(),
        )
        # The newest shares hold until the last decision.
        newest = rows[rows["epoch"] == rows["epoch"].max()]
        until = newest.assign(published=newest["published"].clip(lower=self._report.last_decision))
        line = base.properties(data=pd.concat([rows, until])).mark_line(strokeWidth=2, interpolate="step-after")
        point = base.mark_point(filled=True, size=45, opacity=1).encode(
            shape=self._arm_shape(), tooltip=["epoch:Q", "arm:N", "published:T", alt.Tooltip("share:Q", format=".1%")]
        )
        chart = alt.layer(line, point).properties(width=_WIDTH, height=260)
        return _finished(chart, *self._titles(self._largest_share()))

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
        is_adaptive = self._report.experiment.is_adaptive
        title = (
            f"Mean {chosen.name} per {_duration(self._report.period_ms)}{'' if is_adaptive else ', with 95 % bands'}"
        )
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

    def _largest_share(self) -> str:
        report = self._report
        arms = report.hindsight().arms
        arm = max(arms, key=lambda each: each.share)
        if arm.share == 0:
            return "no traffic yet"
        if report.experiment.allocation == "contextual":
            return f"{arm.arm} got {100 * arm.share:.0f} % of the decisions"
        epochs = len(report.experiment.epochs)
        return f"{arm.arm} has {100 * arm.share:.0f} % of the traffic, by the newest of {epochs} epochs"

    def _finding(self, metric: AnyMetric) -> str:
        if self._report.experiment.incomparable:
            return self._report.experiment.incomparable
        arm = self._report.verdict().arm
        return next(row.reason for row in self._report.results if (row.metric, row.arm) == (metric.name, arm))

    def _primary_finding(self) -> str:
        return self._finding(self._report.experiment.primary)

    def _titles(self, finding: str, *about: str) -> tuple[str, list[str]]:
        experiment = self._report.experiment
        moment = datetime.fromtimestamp(self._report.now_ms / 1000, tz=UTC)
        context = f"{experiment.name} on {experiment.endpoint}, as of {moment:%Y-%m-%d %H:%M} UTC"
        return finding, [*about, context]


def _intervals(y: alt.Y, low: alt.X, point_and_high: tuple[str, str], reference: float) -> Drawing:
    """A point with its interval and its text per row, beside a dashed line where nothing differs."""
    middle, high = point_and_high
    base = alt.Chart().encode(
        y=y,
        color=_scale(alt.Color, "verdict:N", _VERDICTS),
        tooltip=["wanted:N", "text:N", alt.Tooltip("p_value:Q", format=".2g"), "reason:N"],
    )
    line = alt.Chart().mark_rule(color=_FAINT, strokeDash=[4, 3]).encode(x=alt.datum(reference))
    interval = base.mark_rule(strokeWidth=2.5).encode(x=low, x2=high)
    point = base.mark_point(filled=True, size=110, opacity=1).encode(
        x=middle, shape=_scale(alt.Shape, "verdict:N", _VERDICT_SHAPES)
    )
    text = base.encode(x="text_at:Q", text="text:N")
    halo = text.mark_text(dy=-12, fontSize=11, stroke="white", strokeWidth=4)
    return alt.layer(line, interval, point, halo, text.mark_text(dy=-12, fontSize=11))


def _per_metric(layers: Drawing, rows: pd.DataFrame) -> Drawing:
    header = alt.Header(labelAngle=0, labelAlign="left", labelLimit=220, labelFontSize=12)
    row = alt.Row("wanted:N", title=None, sort=list(rows["wanted"].unique()), header=header)
    sized = layers.properties(width=_WIDTH - 120, height=alt.Step(44))
    faceted: Drawing = sized.facet(row=row, data=rows, spacing=6).resolve_scale(y="independent")
    return faceted


def _percent(level: float) -> str:
    return f"{100 * level:.4g} %"


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
