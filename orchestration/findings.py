"""What the demo prints of bandits, mixed lists and shadows; no intervals where the data do not carry any."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.experiment import ScoreMetric
from analysis.interleaved import Pair
from analysis.report import Report
from analysis.results import Result
from analysis.shadowed import Shadow

_LEFT = {"arm", "outcome"}


class Finding(NamedTuple):
    """A title, a table (headings first) and the sentences below it."""

    title: str
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def show(console: Console, finding: Finding) -> None:
    """Print it."""
    headings, *rows = finding.rows
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in _LEFT else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(finding.title, style="bold", markup=False)
    console.print(table)
    for note in finding.notes:
        console.print(f"- {note}", markup=False)


def bandit(report: Report) -> Finding:
    """Where the traffic of a bandit went, and what it has cost beside equal shares."""
    found = report.hindsight()
    metric = report.experiment.primary.name
    rows = [
        (
            each.arm,
            f"{each.share:.1%}",
            f"{each.decisions:,}",
            f"{each.observations:,}",
            _number(each.mean),
            _number(each.weighted_mean),
        )
        for each in found.arms
    ]
    return Finding(
        f"{report.experiment.name} on endpoint {report.experiment.endpoint}: {found.epochs} epochs published",
        [("arm", "last share", "decisions", "observed", f"mean {metric}", "weighted"), *rows],
        [*_cost(found.best, found.regret, found.uniform_regret, metric), _BIASED],
    )


_BIASED = (
    "an arm's own mean is biased, since traffic followed it; weighted by 1 / propensity it stands for all of the "
    "traffic, with an error that is not shown: intervals for such traffic are still to come"
)


def _cost(best: str | None, regret: float, uniform: float, metric: str) -> Iterator[str]:
    if best is None:
        yield "what the traffic has cost cannot be said: not every arm has a label yet"
        return
    yield (
        f"{best} has the best weighted mean: by these means, this traffic cost {regret:,.1f} more {metric} than {best} "
        f"alone would have, summed over all labels, and equal shares would have cost {uniform:,.1f} more"
    )


def lists(report: Report, metrics: Iterable[str], notes: Sequence[str] = ()) -> Finding:
    """Whose flights did outcomes prefer, in lists that mixed two rankings."""
    first, second = (arm.name for arm in report.experiment.arms)
    pairs = {name: _pair(report.interleaving(name)) for name in metrics}
    rows = [
        (name, f"{pair.impressions:,}", f"{pair.wins:,}", f"{pair.losses:,}", f"{pair.ties:,}", _share_of_second(pair))
        for name, pair in pairs.items()
    ]
    return Finding(
        f"{report.experiment.name} on endpoint {report.experiment.endpoint}",
        [("outcome", "lists", f"to {first}", f"to {second}", "to neither", f"share of {second} (interval)"), *rows],
        [*notes, f"a share counts lists to neither half; intervals have {1 - report.alpha:.0%} and are fixed-horizon"],
    )


def shadows(report: Report) -> list[str]:
    """One line per shadow of an experiment."""
    metric, decisions = report.experiment.primary, sum(row.decisions for row in _rows_of_primary(report))
    if not isinstance(metric, ScoreMetric):
        return []
    return [
        f"in the shadow of {report.experiment.name}, {each.model} saw {each.decisions:,} of {decisions:,} decisions "
        f"({each.errors:,} errors): mean {metric.name} {_number(each.shadow_mean)}, and of what was served "
        f"{_number(each.served_mean)}, on the same {each.labels:,} labels"
        for each in (Shadow(*row) for row in report.shadow().itertuples(index=False))
    ]


def _rows_of_primary(report: Report) -> list[Result]:
    return [row for row in report.results if row.metric == report.experiment.primary.name]


def _pair(found: pd.DataFrame) -> Pair:
    [row] = found.itertuples(index=False)
    return Pair(*row)


def _share_of_second(pair: Pair) -> str:
    share = f"{0.5 - pair.delta:.1%}"
    return share if math.isnan(pair.low) else f"{share} ({0.5 - pair.high:.1%} to {0.5 - pair.low:.1%})"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
