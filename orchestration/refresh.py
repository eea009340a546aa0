"""Brings one endpoint up to date, from its source to its registered models: `turnout materialize`."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import dagster as dg

from orchestration.candidates.names import candidates_of
from orchestration.datasets.assets import cut_out
from orchestration.datasets.declaration import Data, Dataset
from orchestration.datasets.tables import part_of
from orchestration.endpoints.declaration import Endpoint
from orchestration.errors import MaterializationFailed, SourceUnavailable
from orchestration.lake import Lake
from orchestration.staleness import Progress, materialize, materialize_stale

Show = Callable[[Progress], None]


class Refreshed(NamedTuple):
    """What was materialized, and which candidates were not registered."""

    made: list[str]
    failed: dict[str, str]
    """By the name of the model, such as `skill: log loss 0.69, ..`."""


def refresh(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    lake: Lake,
    endpoint: Endpoint,
    progress: Show = lambda _: None,
) -> Refreshed:
    """Materialize what is missing, stale, or changed at its source.

    Dagster sees no change of a source, nor that a table without partitions is older than a month that it is cut from:
    both are found by comparing rows.

    Raises:
        MaterializationFailed: A run of a dataset failed, or a blocking check of it; what was made before stays.
        SourceUnavailable: The source cannot be read.
        SourceInvalid: The source is not what its schema says.
    """
    data = endpoint.data
    outside = [dataset for dataset in data.datasets if dataset.outside]
    changed = [(dataset, key) for dataset in outside for key in _changed(lake, dataset, data, progress)]
    made = []
    for done, (dataset, key) in enumerate(changed):
        progress(Progress((dataset.name,), key or None, done, len(changed)))
        made += _materialize(definitions, instance, dataset.name, key)
    if empty := [dataset.name for dataset in outside if not lake.has_rows(dataset.table)]:
        raise SourceUnavailable(f"the source of {empty[0]} has no rows: correct it, or where its partitions start")
    keys = {key for dataset in outside for key in lake.partitions(dataset.table)} or data.keys
    rows = dg.AssetSelection.assets(*(dataset.name for dataset in data.datasets))
    made += materialize_stale(definitions, instance, rows, partitions=keys, progress=progress)
    for period in data.periods if outside else ():
        if not lake.holds(period.table, cut_out(lake, period, data, period.partitions).frame):
            made += _materialize(definitions, instance, period.name, "")
    periods = dg.AssetSelection.assets(*(period.name for period in data.periods))
    made += materialize_stale(definitions, instance, periods, partitions=keys, progress=progress)
    registered, failed = refresh_candidates(definitions, instance, endpoint, progress=progress)
    return Refreshed(made + registered, failed)


def refresh_candidates(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    endpoint: Endpoint,
    *,
    tags: Mapping[str, str] | None = None,
    progress: Show = lambda _: None,
) -> Refreshed:
    """Bring each candidate up to date by itself: one that fails its checks is not registered, and the others go on."""
    made, failed = [], {}
    for candidate in candidates_of(endpoint):
        selection = dg.AssetSelection.assets(candidate.trained_key, candidate.key)
        try:
            made += materialize_stale(definitions, instance, selection, tags=tags, progress=progress)
        except MaterializationFailed as error:
            failed[candidate.model] = "; ".join(error.reasons)
    return Refreshed(made, failed)


def _changed(lake: Lake, dataset: Dataset, data: Data, progress: Show) -> Iterator[str]:
    """Partitions of which the source now has other rows than the lake; those without rows in both are not."""
    keys = data.keys if dataset.partitioned else [""]
    for done, key in enumerate(keys):
        progress(Progress((f"reading {dataset.name}",), key or None, done, len(keys)))
        rows, part = dataset.build({}, key).frame, part_of(data.partitions, key)
        known = lake.has_rows(dataset.table, part)
        if (known or not rows.empty) and not (known and lake.holds(dataset.table, rows, part)):
            yield key


def _materialize(definitions: dg.Definitions, instance: dg.DagsterInstance, name: str, key: str) -> list[str]:
    return materialize(definitions, instance, dg.AssetSelection.assets(name), partitions=[key] if key else ())
