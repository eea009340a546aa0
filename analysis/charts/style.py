"""What all charts share: colours, axes, the title that says what was found, and the look of evidence over time."""

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import altair as alt
import pandas as pd

if TYPE_CHECKING:
    from analysis.report import Report

# Okabe and Ito's palette, told apart with any colour vision; the control keeps a neutral grey.
CONTROL = "#666666"
TREATMENTS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
FAINT = "#BBBBBB"
TEXT = "#333333"
BETTER, WORSE = "#0072B2", "#D55E00"
VERDICTS = {"better": BETTER, "worse": WORSE, "insufficient": CONTROL}
VERDICT_SHAPES = {"better": "triangle-up", "worse": "triangle-down", "insufficient": "circle"}

WIDTH, HEIGHT = 640, 260
LABELS = alt.Axis(labelLimit=260)
SHARES = alt.Scale(domain=[0, 1])
PERCENT = alt.Axis(format=".0%")

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
_TITLE_LETTERS = 76
_NO_BREAK = "\u00a0"
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
_LEGEND = alt.Legend(orient="bottom", symbolSize=110, symbolOpacity=1, labelLimit=200)

Channel = TypeVar("Channel", alt.Color, alt.Shape)
Drawing = alt.LayerChart | alt.FacetChart | alt.HConcatChart | alt.VConcatChart


def finished(chart: Drawing, report: "Report", finding: str, *about: str) -> Drawing:
    """Return the chart under the finding, with lines about it and the experiment's name and moment below."""
    heading = alt.TitleParams(
        text=_lines(finding),
        subtitle=[*about, _context(report)],
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
    with_legend: Drawing = with_axes.configure_legend(labelFontSize=12).configure_view(stroke=None)
    return with_legend


def evidence(
    base: alt.Chart,
    y: alt.Y,
    low: str,
    high: str,
    reference: float | None = None,
    *,
    shape: alt.Shape | None = None,
    points: float = 45,
) -> Drawing:
    """Return a line in its band, over a dashed line at the reference, where nothing would differ.

    `base` has x, colour and tooltips; `y` is the middle's channel; `low` and `high` are fields; `points` is their size.
    """
    rule = [] if reference is None else [reference_rule(reference)]
    band = base.mark_area(opacity=0.18).encode(y=f"{low}:Q", y2=f"{high}:Q")
    line = base.mark_line(strokeWidth=2).encode(y=y)
    point = base.mark_point(filled=True, size=points, opacity=1).encode(
        y=y, **({} if shape is None else {"shape": shape})
    )
    return alt.layer(*rule, band, line, point).properties(width=WIDTH, height=HEIGHT)


def reference_rule(value: float, *, vertical: bool = False) -> alt.Chart:
    """Return a dashed line across the chart where nothing would differ."""
    line: alt.Chart = alt.Chart(pd.DataFrame([{}])).mark_rule(color=FAINT, strokeDash=[4, 3])
    placed: alt.Chart = line.encode(x=alt.datum(value)) if vertical else line.encode(y=alt.datum(value))
    return placed


def time_axis(field: str, title: str) -> alt.X:
    """Return the x channel of a moment in UTC; ticks are whole times at every zoom."""
    return alt.X(
        f"{field}:T", title=title, scale=alt.Scale(type="utc"), axis=alt.Axis(format=_CLOCK, labelOverlap=True)
    )


def scale(channel: type[Channel], field: str, values: Mapping[str, str]) -> Channel:
    """Return a channel with these values per word, and the legend below the chart."""
    words = alt.Scale(domain=list(values), range=list(values.values()))
    return channel(field, title=None, scale=words, legend=_LEGEND)


def arm_color(names: Sequence[str]) -> alt.Color:
    """Return the colours of arms, control first; they are the same in every chart."""
    treatments = [TREATMENTS[index % len(TREATMENTS)] for index in range(len(names) - 1)]
    return scale(alt.Color, "arm:N", dict(zip(names, [CONTROL, *treatments], strict=True)))


def arm_shape(names: Sequence[str]) -> alt.Shape:
    """Return the shapes of arms, which tell them apart without any colour."""
    shapes = [_ARM_SHAPES[index % len(_ARM_SHAPES)] for index in range(len(names))]
    return scale(alt.Shape, "arm:N", dict(zip(names, shapes, strict=True)))


def percent(level: float) -> str:
    """A level in words: 0.95 is "95 %"."""
    return f"{100 * level:.4g} %"


def duration(period_ms: int) -> str:
    """In the largest unit that divides it; periods are whole seconds."""
    widths = {"week": 604_800_000, "day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1_000}
    name, width_ms = next((name, width) for name, width in widths.items() if period_ms % width == 0)
    count = period_ms // width_ms
    return name if count == 1 else f"{count} {name}s"


def _lines(finding: str) -> list[str]:
    """Wrap a title, a number and its percent sign on the same line."""
    return [
        line.replace(_NO_BREAK, " ") for line in textwrap.wrap(finding.replace(" %", f"{_NO_BREAK}%"), _TITLE_LETTERS)
    ]


def _context(report: "Report") -> str:
    moment = datetime.fromtimestamp(report.now_ms / 1000, tz=UTC)
    return f"{report.experiment.name} on {report.experiment.endpoint}, as of {moment:%Y-%m-%d %H:%M} UTC"
