"""What is compared: the rows that the champion learned from, and the newest of what it was asked since."""

from datetime import date
from typing import NamedTuple

import pandas as pd

from analysis.drifting import recent_inputs, recent_labels, recent_predictions
from analysis.queries import Log, standing
from analysis.source import Source, open_source
from models import ModelReference, Registry, load
from models.errors import ModelError
from models.frame import encode_frame
from models.manifest import DatasetVersion
from orchestration.candidates.rows import present, rows_of
from orchestration.endpoints.declaration import Endpoint
from orchestration.errors import TableMissing
from orchestration.lake import Lake

PREDICTION = "prediction"


class Window(NamedTuple):
    """Rows of one kind of traffic: of each unit at most one."""

    features: pd.DataFrame
    predictions: pd.DataFrame
    labels: pd.DataFrame


class Reference(NamedTuple):
    """The window that live traffic is compared with, and the dataset version that it is."""

    window: Window
    version: DatasetVersion


def reference_window(endpoint: Endpoint, champion: ModelReference, lake: Lake, registry: Registry) -> Reference:
    """Features and labels of the version that the champion learned from; predictions of rows that it had not seen.

    Of a champion that was trained elsewhere, the present training dataset. Raises TableMissing when the lake does not
    have the version's rows any more.
    """
    data, datasets = endpoint.data, registry.manifest(champion).datasets
    version = datasets.get(data.train.name) or present(lake, data.train)
    past = rows_of(lake, data.train, version)
    unseen = rows_of(lake, data.validation, datasets.get(data.validation.name) or present(lake, data.validation))
    features = past[list(endpoint.features)]
    return Reference(Window(features, _predicted(champion, registry, unseen), past[[endpoint.label]]), version)


class Live(NamedTuple):
    """The endpoint's decisions of the newest exported days, and what came of them."""

    source: Source
    log: Log
    most: int
    """Units to look at."""


def live_of(endpoint: Endpoint, lake: Lake) -> Live:
    """Read the logs in the lake; raises TableMissing before any day was exported."""
    source, start_ms = open_source(lake.root), _start_ms(lake, endpoint.drift.days)
    decisions, outcomes = source.tables["decisions"], source.tables["outcomes"]
    mine = decisions.filter(decisions["endpoint"] == endpoint.name, decisions["decided_ms"] >= start_ms)
    log = Log(mine, mine, standing(outcomes.filter(outcomes["counted"])), now_ms=0)
    return Live(source, log, endpoint.drift.units)


def live_window(endpoint: Endpoint, champion: ModelReference, lake: Lake) -> Window:
    """Inputs and labels whichever arm decided, and predictions of the champion's own."""
    live = live_of(endpoint, lake)
    inputs = recent_inputs(*live)
    return Window(
        inputs[[name for name in endpoint.features if name in inputs.columns]],
        recent_predictions(live.source, live.log, str(champion), live.most),
        recent_labels(live.source, live.log, endpoint.label, live.most),
    )


def _predicted(champion: ModelReference, registry: Registry, rows: pd.DataFrame) -> pd.DataFrame:
    try:
        model = load(registry, champion)
        predicted = model.predict(encode_frame(rows, model.signature))
    except ModelError:
        # Features and labels are worth comparing without a model that can be asked here.
        return pd.DataFrame({PREDICTION: pd.Series(dtype=float)})
    return pd.DataFrame({PREDICTION: predicted})


def _start_ms(lake: Lake, days: int) -> int:
    try:
        newest = lake.partitions("logs/decisions")[-days:]
    except TableMissing:
        newest = []
    if not newest:
        raise TableMissing("no day with decisions was exported yet: materialize the logs")
    first = date.fromisoformat(newest[0])
    return (first - date(1970, 1, 1)).days * 86_400_000
