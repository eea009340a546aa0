"""Charts of a report; each carries only its aggregates, and its title says what was found."""

from typing import TYPE_CHECKING

from analysis.charts import allocation, intervals, reliability, timeline
from analysis.charts.style import Drawing

if TYPE_CHECKING:
    from analysis.report import Report


class Plots:
    """The charts of one report, reached as `report.plot`."""

    def __init__(self, report: "Report") -> None:
        self._report = report

    def summary(self) -> Drawing:
        """What was found: changes against the control, shares of credit of mixed lists, or a bandit's shares."""
        if self._report.experiment.is_interleaved:
            return intervals.credit(self._report)
        if self._report.experiment.is_adaptive:
            return allocation.shares(self._report)
        return intervals.changes(self._report)

    def timeline(self, metric: str | None = None) -> Drawing:
        """Mean of a metric (default: the primary) per arm over the time of the decisions, with 95 % bands."""
        return timeline.means(self._report, metric)

    def reliability(self, metric: str | None = None) -> Drawing:
        """Observed frequency against predicted probability per arm; on the diagonal predictions mean what they say."""
        return reliability.reliability(self._report, metric)
