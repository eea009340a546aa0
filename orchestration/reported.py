"""An experiment's report as metadata: tables, charts and the verdict."""

from typing import Any, NamedTuple

import dagster as dg
import pandas as pd

import analysis
from analysis.report import Report
from analysis.tables import arms, rankings, shadows
from orchestration.content import content_hash
from orchestration.datasets.tables import markdown_table
from orchestration.lake import Lake
from orchestration.pictures import picture

# What fits the width of the page; the verdict must not be cut off.
_SHOWN = ["metric", "arm", "decisions", "mean", "lift_percent", "verdict"]


class Reported(NamedTuple):
    """What a result shows, the hash of its summary, and each arm with its model."""

    content_hash: str
    metadata: dict[str, Any]
    arms: list[tuple[str, str]]


def read(name: str, lake: Lake) -> Reported:
    """The report of the experiment by the logs in the lake."""
    report = analysis.load(name, lake.root)
    summary, verdict = report.summary(), report.verdict()
    metadata = {
        "experiment": report.experiment.name,
        "summary": dg.MetadataValue.md(markdown_table(_rounded(summary))),
        **_more(report),
        "chart": picture(report.plot.summary(), f"Result of {report.experiment.name}"),
        **_over_time(report),
        "verdict": f"{verdict.decision} ({verdict.arm}): {'; '.join(verdict.reasons)}",
        "sample_ratio_p_value": report.srm().p_value,
        "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in report.notes)),
    }
    named = [(arm.name, arm.model) for arm in report.experiment.arms]
    return Reported(content_hash(summary.astype("string")), metadata, named)


def _over_time(report: Report) -> dict[str, dg.MarkdownMetadataValue]:
    """Pictures of how the result came about, where arms have means and shares."""
    if report.experiment.is_interleaved:
        return {}
    name = report.experiment.name
    pictures = {"lift_over_time": picture(report.plot.lift(), f"Change at every look, {name}")}
    if report.experiment.shares_changed:
        pictures["allocation"] = picture(report.plot.allocation(), f"Shares of the traffic, {name}")
    return pictures


def _more(report: Report) -> dict[str, dg.MarkdownMetadataValue]:
    """What only some ways to allocate have, as tables."""
    more = {}
    if report.experiment.is_interleaved:
        more["rankings"] = rankings(report)
    if report.experiment.is_adaptive:
        more["arms"] = arms(report)
    if (shadowed := shadows(report)).rows:
        more["shadows"] = shadowed
    frames = {name: pd.DataFrame(table.rows, columns=pd.Index(table.headings)) for name, table in more.items()}
    return {name: dg.MetadataValue.md(markdown_table(frame)) for name, frame in frames.items()}


def _rounded(summary: pd.DataFrame) -> pd.DataFrame:
    shown = summary[[column for column in _SHOWN if column in summary.columns]]
    return shown.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value)
