"""Charts of a rehearsal, from what `turnout simulate --json` prints: as a page that needs no network, or a picture."""

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from analysis.charts.style import CONTROL, PERCENT, SHARES, TREATMENTS, WIDTH

Content = Mapping[str, Any]
Table = tuple[str, Sequence[str], Sequence[tuple[str, Sequence[str]]]]
"""A title, the columns' names, and rows of a label and cells."""

_TITLE_LETTERS = 84
_UNIFORM = "equal shares (expected)"
_LEGEND = alt.Legend(
    orient="right",
    symbolType="stroke",
    symbolSize=300,
    symbolStrokeWidth=3,
    # A line's, and not that of the band around it.
    symbolOpacity=1,
    labelLimit=200,
    title=None,
)
_MOST_LABELLED = 12

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } p { color: #555; margin: .2rem 0; }
.wide { overflow-x: auto; margin: 1.5rem 0; } table { border-collapse: collapse; font-size: 14px; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; white-space: pre; }
"""


def picture_of(content: Content) -> bytes:
    """Return the charts as a PNG."""
    picture: bytes = vl_convert.vegalite_to_png(json.dumps(drawing(content).to_dict()), scale=1.5)
    return picture


def page_of(content: Content, heading: Sequence[str], tables: Sequence[Table]) -> str:
    """Return the whole page: heading, charts, tables and notes; about a megabyte."""
    name = escape(f"Rehearsal of {content['experiment']}")
    lines = "".join(f"<p>{escape(line)}</p>" for line in heading)
    notes = "".join(f"<li>{escape(note)}</li>" for note in content["notes"])
    # "<" inside a string of the JSON must not be able to end the script.
    specification = json.dumps(drawing(content).to_dict()).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{name}</title>\n'
        f"<style>{_STYLE}</style>\n<script>{_drawing_script()}</script></head>\n"
        f'<body>\n<h1>{name}</h1>\n{lines}\n<div class="wide" id="charts"></div>\n'
        f'<script>vegaEmbed("#charts", {specification}, {{actions: false}});</script>\n'
        f"{''.join(map(_table, tables))}<ul>{notes}</ul>\n</body>\n</html>\n"
    )


def drawing(content: Content) -> Any:
    """Return the charts below each other: regret, the arms' shares, and when the posterior is sure."""
    charts = [_regret(content), *_shares(content), _sure(content)]
    return (
        alt.vconcat(*charts, spacing=28)
        .resolve_scale(color="independent")
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#EEEEEE")
        .configure_legend(labelFontSize=12)
        .configure_view(stroke=None)
    )


def _regret(content: Content) -> Any:
    allocations = content["allocations"]
    first = allocations[0]
    rows = pd.DataFrame(
        {"allocation": each["allocation"], "day": day, "regret": mean, "low": low, "high": high}
        for each in allocations
        for day, mean, low, high in _points(each, "regret", "regret_low", "regret_high")
    )
    uniform = pd.DataFrame(
        {"allocation": _UNIFORM, "day": day, "regret": mean} for day, mean in _points(first, "uniform_regret")
    )
    names = [each["allocation"] for each in allocations]
    colors = {**_colored(names), _UNIFORM: CONTROL}
    base = alt.Chart(rows).encode(x=_day(content), color=_color("allocation", colors))
    y = alt.Y("regret:Q", title=f"{content['metric']} lost to the best arm, so far")
    band = base.mark_area(opacity=0.18).encode(y="low:Q", y2="high:Q")
    line = base.mark_line(strokeWidth=2.5).encode(y=y)
    evenly = (
        alt.Chart(uniform)
        .mark_line(strokeDash=[6, 6], strokeWidth=2)
        .encode(x=_day(content), y=y, color=_color("allocation", colors))
    )
    others = [(each["allocation"], each["regret"]) for each in allocations[1:]]
    lost = [*others, ("equal shares", first["uniform_regret"])]
    title = f"{first['allocation']} loses {_said(first['regret'])} to the best arm; " + ", ".join(
        f"{name} {_said(regret)}" for name, regret in lost
    )
    about = f"Cumulative regret: mean of {content['runs']:,} runs, and the middle 80 % of them"
    return alt.layer(band, line, evenly).properties(width=WIDTH, height=230, title=_title(title, about))


def _shares(content: Content) -> Iterator[Any]:
    for each in content["allocations"]:
        if each["best_leads"] is not None:
            yield _shares_of(content, each)


def _shares_of(content: Content, found: Mapping[str, Any]) -> Any:
    names = list(content["arms"])
    plot = found["plot"]
    rows = pd.DataFrame(
        {"arm": name, "day": day, "share": share, "low": low, "high": high}
        for name in names
        for day, share, low, high in zip(
            plot["days"], plot["shares"][name], plot["shares_low"][name], plot["shares_high"][name], strict=True
        )
    )
    colors = dict(zip(names, [CONTROL, *_cycled(len(names) - 1)], strict=True))
    base = alt.Chart(rows).encode(x=_day(content), color=_color("arm", colors, labelled=len(names) <= _MOST_LABELLED))
    y = alt.Y("share:Q", title="share of decisions", axis=PERCENT, scale=SHARES)
    band = base.mark_area(opacity=0.18, interpolate="step-after").encode(y="low:Q", y2="high:Q")
    line = base.mark_line(strokeWidth=2.5, interpolate="step-after").encode(y=y)
    best, leads = " or ".join(content["best"]), found["best_leads"]
    title = (
        f"{found['allocation']}: {best} has the largest share at the end in {leads['share']:.0%} "
        f"(± {leads['error']:.1%}) of runs"
    )
    about = "Share of each arm: mean, and the middle 80 % of runs"
    return alt.layer(band, line).properties(width=WIDTH, height=200, title=_title(title, about))


def _sure(content: Content) -> Any:
    allocations = content["allocations"]
    rows = pd.DataFrame(
        {"allocation": each["allocation"], "day": day, "sure": share}
        for each in allocations
        for day, share in _points(each, "sure")
    )
    colors = _colored([each["allocation"] for each in allocations])
    y = alt.Y("sure:Q", title="share of runs", axis=PERCENT, scale=SHARES)
    line = (
        alt.Chart(rows)
        .mark_line(strokeWidth=2.5, interpolate="step-after")
        .encode(x=_day(content), y=y, color=_color("allocation", colors))
    )
    wrong = ", ".join(f"{each['allocation']} {each['sure']['wrong']['share']:.0%}" for each in allocations)
    title = f"When the posterior was first sure of an arm, and how often of a wrong one: {wrong}"
    about = "Runs in which some arm's probability of being best has exceeded 0.95 so far; not a valid test"
    return line.properties(width=WIDTH, height=150, title=_title(title, about))


def _points(found: Mapping[str, Any], *lines: str) -> Iterator[tuple[float, ...]]:
    plot = found["plot"]
    return zip(plot["days"], *(plot[line] for line in lines), strict=True)


def _said(value: Mapping[str, Any]) -> str:
    mean, error = value["mean"], value["error"]
    if not error:
        return f"{mean:,.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:,.{digits}f} ± {error:,.{digits}f}"


def _day(content: Content) -> alt.X:
    return alt.X("day:Q", title="day", scale=alt.Scale(domain=[0, content["days"]], nice=False))


def _colored(names: Sequence[str]) -> dict[str, str]:
    return dict(zip(names, _cycled(len(names)), strict=True))


def _cycled(count: int) -> list[str]:
    return [TREATMENTS[index % len(TREATMENTS)] for index in range(count)]


def _color(field: str, colors: Mapping[str, str], *, labelled: bool = True) -> alt.Color:
    scale = alt.Scale(domain=list(colors), range=list(colors.values()))
    return alt.Color(f"{field}:N", scale=scale, legend=_LEGEND if labelled else None)


def _title(text: str, about: str) -> alt.TitleParams:
    return alt.TitleParams(
        text=textwrap.wrap(text, _TITLE_LETTERS),
        subtitle=about,
        anchor="start",
        frame="group",
        fontSize=14,
        subtitleColor="#555555",
        subtitleFontSize=12,
        offset=10,
    )


def _table(table: Table) -> str:
    title, columns, rows = table
    lines = "\n".join([_row("th", [title, *columns]), *(_row("td", [label, *cells]) for label, cells in rows)])
    return f'<div class="wide"><table>{lines}</table></div>\n'


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


@cache
def _drawing_script() -> str:
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
