"""An experiment's result as an asset: the summary, the chart and the verdict beside the data that they came from."""

import dagster as dg
import pandas as pd

import analysis
from orchestration.content import content_hash
from orchestration.datasets.tables import markdown_table
from orchestration.lake import Lake
from orchestration.logs import logged_experiments, logged_traffic
from orchestration.pictures import picture

_SHOWN = ["metric", "arm", "model", "units", "decisions", "mean", "lift_percent", "p_value", "verdict"]


def result_asset(key: str, experiment: str) -> dg.AssetsDefinition:
    """The asset that reports one experiment from the exported logs."""

    @dg.asset(
        name=f"{key}_result",
        description=f"What the experiment `{experiment}` has found so far, by the decisions and outcomes in the lake.",
        group_name="results",
        kinds={"duckdb", "altair"},
        deps=[logged_experiments, logged_traffic],
    )
    def result(lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
        report = analysis.load(experiment, lake.root)
        summary = report.summary()
        verdict = report.verdict()
        return dg.MaterializeResult(
            data_version=dg.DataVersion(content_hash(summary.astype("string"))),
            metadata={
                "summary": dg.MetadataValue.md(markdown_table(_rounded(summary))),
                "chart": picture(report.plot.summary(), f"Result of {experiment}"),
                "verdict": f"{verdict.decision} ({verdict.arm}): {'; '.join(verdict.reasons)}",
                "sample_ratio_p_value": report.srm().p_value,
                "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in report.notes)),
            },
        )

    return result


def _rounded(summary: pd.DataFrame) -> pd.DataFrame:
    shown = summary[[column for column in _SHOWN if column in summary.columns]]
    return shown.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value)
