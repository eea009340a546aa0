"""What charts of one metric say in their titles."""

from typing import TYPE_CHECKING

from analysis.experiment import AnyMetric

if TYPE_CHECKING:
    from analysis.report import Report


def finding(report: "Report", metric: AnyMetric | None = None, arm: str | None = None) -> str:
    """What was found of an arm, by default the one that the verdict is about, in a metric, by default the primary."""
    about = (metric or report.experiment.primary).name, arm or report.verdict().arm
    return next(row.reason for row in report.results if (row.metric, row.arm) == about)
