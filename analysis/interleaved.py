"""Which of the interleaved rankings do outcomes prefer? Read from the ledger, compared by unit."""

import json
import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis import queries
from analysis.evidence import Judgement, insufficient, judge_credit
from analysis.experiment import INTERLEAVED, AnyMetric, Experiment
from analysis.queries import Log
from analysis.source import Source
from analysis.statistics.interleaving import Comparison, Method, compare, pair_preferences, preferences
from analysis.statistics.paired import LEAST_UNITS, mean_evidence, mean_sequence
from analysis.statistics.ratios import moments

Floats = NDArray[np.float64]


class Pair(NamedTuple):
    """How two arms compare: `delta` is half the mean preference for the first one, between -0.5 and 0.5."""

    first: str
    second: str
    delta: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    ties: int
    units: int
    impressions: int

    @property
    def share(self) -> float:
        """The second arm's share of the credit, where ties count half; with its interval nan if it is unknown."""
        return 0.5 - self.delta

    @property
    def share_low(self) -> float:
        """Lower end of its interval."""
        return 0.5 - self.high

    @property
    def share_high(self) -> float:
        """Upper end of its interval."""
        return 0.5 - self.low


class _Impressions(NamedTuple):
    units: NDArray[Any]
    clicked: NDArray[np.intp]
    """The impression of every credited outcome [outcomes]."""
    credits: NDArray[np.float64]
    """What it gives to each arm [outcomes, arms]."""
    comparable: NDArray[np.bool_]
    """Whether an arm has a place of its own in the list [impressions, arms]."""


def compare_rankings(source: Source, log: Log, experiment: Experiment, metric: AnyMetric, level: float) -> list[Pair]:
    """Compare every two arms by the outcomes of a metric above 0, with intervals at this level, valid at every look."""
    seen = _impressions(source, log, experiment, metric)
    arms = [arm.name for arm in experiment.arms]
    pairs = _preferred(seen, experiment.method or "team_draft", len(arms))
    return [
        Pair(arms[first], arms[second], *_at_every_look(preferred, units, experiment.planned_decisions, level))
        for (first, second), preferred, units in pairs
    ]


def _preferred(seen: _Impressions, method: Method, arms: int) -> Iterator[tuple[tuple[int, int], Floats, NDArray[Any]]]:
    """Yield two arms' places, and the preference and unit of each list that compares them."""
    if arms == 2:
        yield (0, 1), preferences(method, seen.clicked, seen.credits, len(seen.units)), seen.units
        return
    credit = np.zeros((len(seen.units), arms))
    np.add.at(credit, seen.clicked, seen.credits)
    for first, second in combinations(range(arms), 2):
        both = seen.comparable[:, first] & seen.comparable[:, second]
        yield (first, second), pair_preferences(credit[both], first, second), seen.units[both]


def _at_every_look(preferred: Floats, units: NDArray[Any], planned: float, level: float) -> Comparison:
    """Return the comparison with a confidence sequence by unit in place of the t interval, and its p-value."""
    found = compare(preferred, units)
    if math.isnan(found.p_value):
        return found
    unit = np.unique(units, return_inverse=True)[1].reshape(-1)
    sums = moments(unit, preferred / 2, np.ones(len(preferred)))
    _, low, high = mean_sequence(sums, planned, 1 - level)
    p_value = math.exp(-max(mean_evidence(sums, planned, 1 - level), 0.0))
    return found._replace(low=max(low, -0.5), high=min(high, 0.5), p_value=p_value)


def judge_pair(metric: AnyMetric, pair: Pair, confidence: float) -> Judgement:
    """What may be said of the second arm beside the first."""
    of_both = f"lists of {pair.first} and {pair.second}"
    if pair.units < LEAST_UNITS:
        return insufficient(f"{pair.units} units saw {of_both}, and an interval needs {LEAST_UNITS}")
    if math.isnan(pair.p_value):
        return insufficient(f"all {pair.units} units with {of_both} say the same of {metric.name}")
    share = (pair.share, pair.share_low, pair.share_high)
    return judge_credit(metric, pair.second, pair.first, share, confidence)


def _impressions(source: Source, log: Log, experiment: Experiment, metric: AnyMetric) -> _Impressions:
    # Without a draw the champion ranked alone, and nothing can be compared.
    lists = log.decisions.filter(log.decisions["arm"] == INTERLEAVED, log.decisions["draw"].notnull())
    rows = source.rows(lists.select("id", "unit", "shown", "draw"))
    number = {row["id"]: index for index, row in enumerate(rows)}
    draws = [json.loads(row["draw"]) for row in rows]
    shown = [json.loads(row["shown"]) for row in rows]
    clicked, credits_ = [], []
    for row in source.rows(queries.posted_items(log, metric)):
        index = number.get(row["decision_id"])
        if index is not None and row["item"] in shown[index]:
            clicked.append(index)
            credits_.append(draws[index]["credits"][shown[index].index(row["item"])])
    arms = range(len(experiment.arms))
    return _Impressions(
        np.array([row["unit"] for row in rows], dtype=np.str_),
        np.array(clicked, dtype=np.intp),
        np.array(credits_, dtype=np.float64).reshape(-1, len(experiment.arms)),
        np.array([[arm in draw["teams"] for arm in arms] for draw in draws], dtype=np.bool_).reshape(-1, len(arms)),
    )
