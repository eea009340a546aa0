"""The tables of a report, for terminals and pages; which ones depends on how traffic was allocated."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from analysis.evidence import number
from analysis.interleaved import judge_pair
from analysis.rendering import HEADINGS, line, share_of_credit
from analysis.report import Report
from analysis.shadowed import Shadow

TEXTS = frozenset({"metric", "arm", "model", "against", "shadow", "verdict"})
"""Headings of columns that hold words; the others hold numbers."""


INTERVAL = "(interval)"
"""End of the headings of the widest columns of numbers."""


class Table(NamedTuple):
    """Headings, and rows of as many texts."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def verdict(self, row: tuple[str, ...]) -> str:
        """The verdict of a row, empty where it has none."""
        return row[-1] if self.headings[-1] == "verdict" else ""


def tables(report: Report) -> Iterator[Table]:
    """Yield the tables: arms, what they did in each metric, and shadows if there are any."""
    yield arms(report)
    yield rankings(report) if report.experiment.is_interleaved else changes(report)
    shadowed = shadows(report)
    if shadowed.rows:
        yield shadowed


def arms(report: Report) -> Table:
    """What each arm was given."""
    lines = [line(row) for row in report.results[: len(report.experiment.arms)]]
    headings: tuple[str, ...] = (HEADINGS.arm, HEADINGS.model, HEADINGS.units, HEADINGS.decisions)
    rows: list[tuple[str, ...]] = [(each.arm, each.model, each.units, each.decisions) for each in lines]
    if report.experiment.is_adaptive:
        headings = (*headings, "share" if report.experiment.allocation == "contextual" else "last share")
        rows = [(*row, f"{100 * arm.share:.1f} %") for row, arm in zip(rows, report.hindsight().arms, strict=True)]
    return Table(headings, tuple(rows))


def changes(report: Report) -> Table:
    """How the arms differ from the control."""
    fields = ("metric", "arm", "observations", "mean", "change", "p_value", "verdict")
    lines = [HEADINGS, *(line(row) for row in report.results)]
    headings, *rows = (tuple(getattr(each, field) for field in fields) for each in lines)
    return Table(headings, tuple(rows))


def rankings(report: Report, metrics: Iterable[str] | None = None) -> Table:
    """Which of two arms do outcomes prefer, in lists that mixed their rankings; by default of every metric."""
    names = [metric.name for metric in report.experiment.metrics] if metrics is None else metrics
    rows = [
        (
            name,
            pair.second,
            pair.first,
            f"{pair.impressions:,}",
            f"{pair.losses:,}",
            f"{pair.wins:,}",
            f"{pair.ties:,}",
            share_of_credit(pair),
            judge_pair(report.experiment.metric(name), pair, report.confidence).verdict,
        )
        for name in names
        for pair in report.pairs(name)
    ]
    headings = ("metric", "arm", "against", "lists", "won", "lost", "tied", f"credit {INTERVAL}", "verdict")
    return Table(headings, tuple(rows))


def shadows(report: Report) -> Table:
    """What shadows would have been worth, on the labels of what was served in their place."""
    score = report.shadow_score
    decisions = report.decisions
    named = () if score is None else (f"{score.name} change {INTERVAL}", "verdict")
    rows = []
    for each in (Shadow(*row) for row in report.shadow().itertuples(index=False)):
        seen = (each.model, f"{each.decisions:,} of {decisions:,}", f"{each.errors:,}")
        change = _interval((each.difference, each.difference_low, each.difference_high))
        rows.append(seen if score is None else (*seen, change, each.verdict))
    return Table(("shadow", "decisions seen", "errors", *named), tuple(rows))


def _interval(ends: tuple[float, float, float]) -> str:
    if not all(map(math.isfinite, ends)):
        return ""
    value, low, high = (number(each, "+") for each in ends)
    return f"{value} ({low} to {high})"
