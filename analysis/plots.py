"""Charts of a report; each carries only its aggregates, and its title says what was found."""

from typing import TYPE_CHECKING

from analysis.charts import allocation, intervals, lift, off_policy, posterior, reliability, shadows, split, timeline
from analysis.charts.style import Drawing
from analysis.what_if import WhatIf

if TYPE_CHECKING:
    from analysis.report import Report


class Plots:
    """The charts of one report, reached as `report.plot`."""

    def __init__(self, report: "Report") -> None:
        self._report = report

    def summary(self) -> Drawing:
        """What was found: changes against the control, or shares of credit of mixed lists."""
        if self._report.experiment.is_interleaved:
            return intervals.credit(self._report)
        return intervals.changes(self._report)

    def lift(self, metric: str | None = None, arm: str | None = None) -> Drawing:
        """Change against the control at every look, with its confidence sequence; by default of the leading arm."""
        return lift.lift(self._report, metric, arm)

    def allocation(self) -> Drawing:
        """Each arm's share of the traffic over the epochs."""
        return allocation.shares(self._report)

    def sample_ratio(self) -> Drawing:
        """Evidence against the promised split over time."""
        return split.sample_ratio(self._report)

    def timeline(self, metric: str | None = None) -> Drawing:
        """Mean of a metric (default: the primary) per arm over the time of the decisions, with 95 % bands."""
        return timeline.means(self._report, metric)

    def reliability(self, metric: str | None = None) -> Drawing:
        """Observed frequency against predicted probability per arm; on the diagonal predictions mean what they say."""
        return reliability.reliability(self._report, metric)

    def posteriors(self, metric: str | None = None) -> Drawing:
        """What is believed of every arm's mean of a metric (default: the primary)."""
        return posterior.densities(self._report, metric)

    def shadow(self, metric: str | None = None) -> Drawing:
        """Every shadow's score difference from what was served, and its agreement with that."""
        return shadows.comparison(self._report, metric)

    def off_policy(self, found: WhatIf) -> Drawing:
        """What `report.off_policy` found, by every estimator, beside the traffic as it was."""
        return off_policy.estimates(self._report, found)

    def off_policy_weights(self, found: WhatIf) -> Drawing:
        """How far the log covers the policy of `report.off_policy`: the weights of what was observed."""
        return off_policy.weights(self._report, found)
