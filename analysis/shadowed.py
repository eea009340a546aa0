"""What shadows would have been worth: scored on the same labels as what was served."""

import json
import math
from collections import defaultdict
from statistics import fmean
from typing import NamedTuple

from analysis import queries
from analysis.experiment import ScoreMetric
from analysis.queries import Log
from analysis.source import Source
from analysis.statistics.scores import score

_Scores = dict[tuple[bytes, int], list[float]]
"""By decision and item."""


class Shadow(NamedTuple):
    """One shadow beside what was served, whichever arm did: mean scores of both over the same labels."""

    model: str
    decisions: int
    """It saw, be it that it failed; what was dropped is not among them."""
    errors: int
    labels: int
    served_mean: float
    shadow_mean: float


def compare_shadows(source: Source, log: Log, metric: ScoreMetric | None) -> list[Shadow]:
    """Compare each shadow with what was served, by the mean score over items with a label; nan without any."""
    predicted = source.tables["shadow_predictions"]
    served: dict[str, _Scores] = defaultdict(lambda: defaultdict(list))
    shadow: dict[str, _Scores] = defaultdict(lambda: defaultdict(list))
    if metric is not None:
        for row in source.rows(queries.shadowed_labels(log, metric, predicted)):
            model, item, label = row["model"], (row["decision_id"], row["item"]), row["value"]
            served[model][item].append(score(metric.score, row["prediction"], label))
            shadow[model][item].append(score(metric.score, json.loads(row["predictions"])[row["item"]], label))
    return [
        Shadow(**row, labels=len(served[model]), served_mean=_mean(served[model]), shadow_mean=_mean(shadow[model]))
        for row in source.rows(queries.shadows(log, predicted))
        if (model := row["model"])
    ]


def _mean(scores: _Scores) -> float:
    """The mean over items of the scores of their labels, of which an item can have several."""
    return fmean(map(fmean, scores.values())) if scores else math.nan
