"""A report as one HTML page that needs no network: text, table, and charts with the scripts that draw them."""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from html import escape
from typing import Any

import vl_convert

from analysis.errors import UnknownMetric
from analysis.report import Report
from analysis.tables import TEXTS, Table, tables

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } .context { color: #555; margin-top: 0; }
.verdict { border-left: 6px solid #666; background: #f5f5f5; padding: .6rem 1rem; }
.advance { border-color: #0072B2; } .rollback { border-color: #D55E00; }
.wide { overflow-x: auto; margin: 1.5rem 0; } table { border-collapse: collapse; font-size: 14px; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: left; overflow-wrap: anywhere; }
td.number { white-space: nowrap; } .number { text-align: right; font-variant-numeric: tabular-nums; }
"""


def page(report: Report) -> str:
    """Return the whole page; about a megabyte, nearly all of it the drawing scripts."""
    name = escape(report.experiment.name)
    body = "\n".join(_sections(report))
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{name}</title>\n'
        f"<style>{_STYLE}</style>\n<script>{_drawing_script()}</script></head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


@cache
def _drawing_script() -> str:
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def _sections(report: Report) -> Iterator[str]:
    experiment, verdict = report.experiment, report.verdict()
    yield f"<h1>{escape(experiment.name)}</h1>"
    place = f"endpoint {experiment.endpoint}, {experiment.state}, read from {report.source}"
    yield f'<p class="context">{escape(place)}</p>'
    reasons = "<br>".join(escape(reason) for reason in verdict.reasons)
    yield f'<p class="verdict {verdict.decision}"><b>{verdict.decision}: {escape(verdict.arm)}</b><br>{reasons}</p>'
    yield _list(report.notes)
    yield from map(_table, tables(report))
    for number, chart in enumerate(_charts(report)):
        # "<" inside a string of the JSON must not be able to end the script.
        specification = json.dumps(chart).replace("<", "\\u003c")
        yield f'<div class="wide" id="chart-{number}"></div>'
        yield f'<script>vegaEmbed("#chart-{number}", {specification}, {{actions: false}});</script>'


def _charts(report: Report) -> Iterator[dict[str, Any]]:
    for draw in _drawings(report):
        try:
            yield draw().to_dict()
        except UnknownMetric:  # no metric scores a probability, or requests had shares of their own
            continue


def _drawings(report: Report) -> Iterator[Callable[[], Any]]:
    experiment, plot = report.experiment, report.plot
    yield plot.summary
    if not experiment.is_interleaved:
        yield plot.lift
    if experiment.shares_changed:
        yield plot.allocation
    if experiment.is_adaptive:
        yield plot.posteriors
    if not report.shadow().empty:
        yield plot.shadow
    if not experiment.is_interleaved:
        yield from (plot.timeline, plot.sample_ratio, plot.reliability)


def _list(notes: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _table(table: Table) -> str:
    rows = [_row("td", table.headings, row) for row in table.rows]
    return (
        '<div class="wide"><table>' + "\n".join([_row("th", table.headings, table.headings), *rows]) + "</table></div>"
    )


def _row(tag: str, headings: Iterable[str], texts: Iterable[str]) -> str:
    cells = (
        f"<{tag}{'' if heading in TEXTS else ' class=number'}>{escape(text)}</{tag}>"
        for heading, text in zip(headings, texts, strict=True)
    )
    return "<tr>" + "".join(cells) + "</tr>"
