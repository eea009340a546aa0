"""What a reader should know before trusting the numbers of a report, in sentences."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from analysis.experiment import AnyMetric
from analysis.split_check import SplitCheck
from analysis.statistics.sample_ratio import THRESHOLD

if TYPE_CHECKING:
    from analysis.report import Report


def notes(report: "Report") -> Iterator[str]:
    """Yield the notes, those of the split first."""
    yield from _allocation(report)
    if report.experiment.state != "concluded":
        yield f"the experiment's state is {report.experiment.state}: what is said here holds however often it is read"
    if report.held_out:
        yield f"{report.held_out} unit(s) were held out: the champion served them, and they are part of no comparison"
    if report.shared_units and not report.experiment.is_interleaved:
        yield f"{report.shared_units} unit(s) got more than one arm; intervals are by unit, whatever arms it got"
    yield from _fallbacks(report)
    for metric in report.experiment.metrics if not report.experiment.is_interleaved else ():
        yield from _waiting(report, metric)


def _allocation(report: "Report") -> Iterator[str]:
    if report.experiment.is_interleaved:
        units = report.results[0].units
        yield (
            f"{report.decisions:,} lists of {units:,} units mixed the rankings of all arms, so arms have no means; a "
            "list is won by the arm whose items earned more, and one that is tied counts half for each"
        )
        return
    if report.experiment.allocation == "contextual":
        yield "the split was not tested: every request had shares of its own"
    else:
        yield _split(report.srm())
    if report.experiment.is_adaptive:
        yield (
            "traffic followed the outcomes, so an arm's own mean is biased: means and changes are of the whole "
            "traffic, had it been the arm's, and their intervals hold on such traffic"
        )
        yield report.hindsight().cost(report.experiment.primary)


def _split(test: SplitCheck) -> str:
    if math.isnan(test.p_value):
        return "the split was not tested: there is too little traffic"
    state = "broken" if test.mismatch else "as promised"
    return f"the split is {state}: sample ratio p = {test.p_value:.2g}, and below {THRESHOLD} it is called broken"


def _fallbacks(report: "Report") -> Iterator[str]:
    for arm in report.experiment.arms:
        traffic = report.traffic.get(arm.number)
        if traffic and traffic.fallbacks:
            yield (
                f"the champion answered {traffic.fallbacks} of {traffic.decisions} decisions of {arm.name}; they "
                "count for the assigned arm (intention to treat)"
            )


def _waiting(report: "Report", metric: AnyMetric) -> Iterator[str]:
    waiting = report.waiting(metric)
    if waiting and getattr(metric, "default", None) is not None:
        yield f"{waiting} decision(s) wait for their window of {metric.name} ({metric.window_s} s) to close"
