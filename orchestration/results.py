"""An experiment's result as an asset: the summary, the chart and the verdict beside the data that they came from."""

import re

import dagster as dg
import pandas as pd

import analysis
from analysis.report import Report
from analysis.tables import arms, rankings, shadows
from orchestration.content import content_hash
from orchestration.datasets.tables import markdown_table
from orchestration.errors import NoExperiment
from orchestration.lake import Lake
from orchestration.logs import logged_experiments, logged_traffic
from orchestration.pictures import picture

# What fits the width of the page; the verdict must not be cut off.
_SHOWN = ["metric", "arm", "decisions", "mean", "lift_percent", "verdict"]


def result_asset(endpoint: str, experiment: str) -> dg.AssetsDefinition:
    """The asset that reports a declared experiment from the exported logs."""

    @dg.asset(
        name=f"{experiment.replace('-', '_')}_result",
        description=f"What `{experiment}` on `{endpoint}` has found, by the decisions and outcomes in the lake; "
        "of its repetitions with retrained models, the newest.",
        group_name="results",
        kinds={"duckdb", "altair"},
        deps=[logged_experiments, logged_traffic],
    )
    def result(lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
        report = analysis.load(newest_run(lake, endpoint, experiment), lake.root)
        summary = report.summary()
        verdict = report.verdict()
        return dg.MaterializeResult(
            data_version=dg.DataVersion(content_hash(summary.astype("string"))),
            metadata={
                "experiment": report.experiment.name,
                "summary": dg.MetadataValue.md(markdown_table(_rounded(summary))),
                **_more(report),
                "chart": picture(report.plot.summary(), f"Result of {report.experiment.name}"),
                **_over_time(report),
                "verdict": f"{verdict.decision} ({verdict.arm}): {'; '.join(verdict.reasons)}",
                "sample_ratio_p_value": report.srm().p_value,
                "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in report.notes)),
            },
        )

    return result


def newest_run(lake: Lake, endpoint: str, experiment: str) -> str:
    """Name of the experiment, or of its repetition on newer models that was started last.

    Raises:
        NoExperiment: None was started.
        TableMissing: The logs were never exported.
    """
    experiments = lake.read("logs/experiments")
    named = experiments["name"].map(lambda name: bool(re.fullmatch(rf"{re.escape(experiment)}(-\d+)?", name)))
    started = experiments[(experiments["endpoint"] == endpoint) & named & experiments["started_ms"].notna()]
    if started.empty:
        raise NoExperiment(
            f"experiment {experiment} on endpoint {endpoint} was never started: start it, and materialize the logs"
        )
    return str(started.sort_values(["started_ms", "id"])["name"].iloc[-1])


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
