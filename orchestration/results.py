"""An experiment's result as an asset: the summary, the chart and the verdict beside the data that they came from."""

import dagster as dg
import pandas as pd

import analysis
from orchestration.content import content_hash
from orchestration.datasets.tables import markdown_table
from orchestration.errors import NoExperiment
from orchestration.lake import Lake
from orchestration.logs import logged_experiments, logged_traffic
from orchestration.pictures import picture

# What fits the width of the page; the verdict must not be cut off.
_SHOWN = ["metric", "arm", "decisions", "mean", "lift_percent", "verdict"]


def result_asset(endpoint: str) -> dg.AssetsDefinition:
    """The asset that reports an endpoint's newest experiment from the exported logs."""

    @dg.asset(
        name=f"{endpoint.replace('-', '_')}_result",
        description=f"What the newest experiment on `{endpoint}` has found, by the decisions and outcomes in the lake.",
        group_name="results",
        kinds={"duckdb", "altair"},
        deps=[logged_experiments, logged_traffic],
    )
    def result(lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
        experiment = newest_experiment(lake, endpoint)
        report = analysis.load(experiment, lake.root)
        summary = report.summary()
        verdict = report.verdict()
        return dg.MaterializeResult(
            data_version=dg.DataVersion(content_hash(summary.astype("string"))),
            metadata={
                "experiment": experiment,
                "summary": dg.MetadataValue.md(markdown_table(_rounded(summary))),
                "chart": picture(report.plot.summary(), f"Result of {experiment}"),
                "verdict": f"{verdict.decision} ({verdict.arm}): {'; '.join(verdict.reasons)}",
                "sample_ratio_p_value": report.srm().p_value,
                "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in report.notes)),
            },
        )

    return result


def newest_experiment(lake: Lake, endpoint: str) -> str:
    """Name of the experiment on the endpoint that was started last; raises NoExperiment or TableMissing."""
    experiments = lake.read("logs/experiments")
    started = experiments[(experiments["endpoint"] == endpoint) & experiments["started_ms"].notna()]
    if started.empty:
        raise NoExperiment(f"no experiment on endpoint {endpoint} was started: start one, and materialize the logs")
    return str(started.sort_values(["started_ms", "id"])["name"].iloc[-1])


def _rounded(summary: pd.DataFrame) -> pd.DataFrame:
    shown = summary[[column for column in _SHOWN if column in summary.columns]]
    return shown.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value)
