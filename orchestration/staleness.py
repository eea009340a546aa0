"""Materializes what is missing or stale, and nothing else.

Whether an asset is stale is asked of Dagster's own `CachingStaleStatusResolver`, the object behind the badges of the
user interface and behind `RunRequest(stale_assets_only=True)`: it compares the code version and the data versions
recorded with the last materialization with those of now, partition by partition. Dagster has no public call for it:
declarative automation remembers ticks rather than looking at the state, and a comparison of our own would be a second
truth beside the badges. Dagster is pinned to one version, and the tests fail if the resolver moves.

On top of that an asset counts as stale while a blocking check of it has not passed for its last materialization. If
that is all, its checks alone are run again, since the same code would make the same of the same. It is made again when
they cannot be run, and so is a partition, since Dagster's checks know no partitions.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.loader import LoadingContext

from orchestration.errors import MaterializationFailed
from orchestration.proof import unproven

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Progress(NamedTuple):
    """How far a materialization is: `done` of `total` assets (each partition counts) are up to date."""

    assets: tuple[str, ...]
    """What is being materialized now; empty when the step before has just ended."""
    partition: str | None
    done: int
    total: int


class _Batch(NamedTuple):
    """Assets that one run can materialize: connected, and alike in their partitions."""

    keys: tuple[dg.AssetKey, ...]
    partition: str | None

    @property
    def names(self) -> list[str]:
        """The assets, with the partition in brackets."""
        suffix = f"[{self.partition}]" if self.partition else ""
        return [key.to_user_string() + suffix for key in self.keys]


def materialize_stale(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    selection: dg.AssetSelection,
    *,
    partitions: Collection[str] = (),
    tags: Mapping[str, str] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> list[str]:
    """Bring the selection up to date in dependency order, in this process, and return what was materialized.

    Partitioned assets are looked at for those of `partitions` that they have. A run covers everything stale of one
    partition and one chain of assets, since a run costs about half a second by itself; each gets the tags. The result
    names each asset, with its partition in brackets.

    Raises:
        MaterializationFailed: A run failed, or a blocking check did; what had been materialized before stays.
    """
    graph = definitions.resolve_asset_graph()
    batches = _batches(graph, selection, partitions)
    total = sum(len(batch.keys) for batch in batches)
    done = 0
    materialized: list[str] = []
    for batch in batches:
        # What is stale below a changed asset shows only once that asset is made again, and may turn out unchanged.
        for _ in range(2 * len(batch.keys)):
            changed = _changed(graph, instance, batch)
            doubted = {key: _unproven(graph, instance, key, batch.partition) for key in batch.keys}
            stale = batch._replace(keys=tuple(key for key in batch.keys if key in changed or doubted[key]))
            if not stale.keys:
                break
            progress(Progress(tuple(key.to_user_string() for key in stale.keys), batch.partition, done, total))
            first = stale.keys[0]
            only_doubted = batch.partition is None and first not in changed
            if only_doubted and _passes_now(definitions, instance, first, doubted[first], tags):
                continue
            _run(definitions, instance, stale, tags)
            materialized += stale.names
        done += len(batch.keys)
        progress(Progress((), batch.partition, done, total))
    return materialized


def materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    selection: dg.AssetSelection,
    *,
    partitions: Collection[str] = (),
) -> list[str]:
    """Materialize the whole selection, stale or not: for what reads a source that Dagster does not see change.

    Raises:
        MaterializationFailed: A run failed, or a blocking check did; what had been materialized before stays.
    """
    batches = _batches(definitions.resolve_asset_graph(), selection, partitions)
    for batch in batches:
        _run(definitions, instance, batch)
    return [name for batch in batches for name in batch.names]


def _changed(graph: AssetGraph, instance: dg.DagsterInstance, batch: _Batch) -> set[dg.AssetKey]:
    """Those of the assets that are missing or stale by Dagster's own account."""
    resolver = CachingStaleStatusResolver(instance, graph, _Loading(instance))
    return {key for key in batch.keys if resolver.get_status(key, batch.partition) != StaleStatus.FRESH}


def _unproven(
    graph: AssetGraph, instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None
) -> list[dg.AssetCheckKey]:
    """The asset's blocking checks that have not passed."""
    return unproven(instance, key, [c for c in graph.get(key).check_keys if graph.get(c).blocking], partition)


def _batches(graph: AssetGraph, selection: dg.AssetSelection, partitions: Collection[str]) -> list[_Batch]:
    """Batches in an order in which each only needs what came before it."""
    selected = {key for key in selection.resolve(graph) if graph.get(key).is_materializable}
    stages = _stages(graph, selected)
    batches = []
    for stage in range(max(stages.values(), default=-1) + 1):
        for chain in _chains(graph, [key for key in stages if stages[key] == stage]):
            definition = graph.get(chain[0]).partitions_def
            wanted = [p for p in definition.get_partition_keys() if p in partitions] if definition else [None]
            batches += [_Batch(tuple(chain), partition) for partition in wanted]
    return batches


def _stages(graph: AssetGraph, selected: Collection[dg.AssetKey]) -> dict[dg.AssetKey, int]:
    """A number per asset, in topological order, that grows from parent to child where their partitions differ.

    Each asset comes as late as its children allow, so that it shares their run.
    """
    order = [key for key in graph.toposorted_asset_keys if key in selected]
    stages: dict[dg.AssetKey, int] = {}
    for key in order:
        steps = [stages[p] + _differ(graph, p, key) for p in graph.get(key).parent_keys if p in stages]
        stages[key] = max(steps, default=0)
    for key in reversed(order):
        latest = [stages[c] - _differ(graph, key, c) for c in graph.get(key).child_keys if c in stages]
        stages[key] = max(stages[key], min(latest, default=0))
    return stages


def _differ(graph: AssetGraph, one: dg.AssetKey, other: dg.AssetKey) -> bool:
    return graph.get(one).partitions_def != graph.get(other).partitions_def


def _chains(graph: AssetGraph, keys: Sequence[dg.AssetKey]) -> list[list[dg.AssetKey]]:
    """The assets, given in topological order, in groups for one run each.

    A month's assets share a run. Assets without partitions share one only while they follow each other singly, so that
    every candidate has a run, and a line of progress, of its own.
    """
    chains: list[list[dg.AssetKey]] = []
    for key in keys:
        parents = {parent for parent in graph.get(key).parent_keys if _shares_run(graph, parent, key)}
        mine = [chain for chain in chains if not parents.isdisjoint(chain)]
        chains = [chain for chain in chains if chain not in mine] + [[k for chain in mine for k in chain] + [key]]
    return chains


def _shares_run(graph: AssetGraph, parent: dg.AssetKey, child: dg.AssetKey) -> bool:
    return not _differ(graph, parent, child) and (
        graph.get(child).is_partitioned or graph.get(parent).child_keys == {child}
    )


def _run(
    definitions: dg.Definitions, instance: dg.DagsterInstance, batch: _Batch, tags: Mapping[str, str] | None = None
) -> None:
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        run_config=_QUIET,
        tags=dict(tags or {}),
        instance=instance,
        partition_key=batch.partition,
        asset_selection=list(batch.keys),
        raise_on_error=False,
    )
    if not result.success:
        raise _failed(result, f"materializing {', '.join(batch.names)}")


def _passes_now(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    checks: Sequence[dg.AssetCheckKey],
    tags: Mapping[str, str] | None,
) -> bool:
    """Run the checks again: False when one could not be run, as on lost files; MaterializationFailed when one fails."""
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.get_subset(asset_selection=set(), asset_check_selection=set(checks)).execute_in_process(
        run_config=_QUIET, tags=dict(tags or {}), instance=instance, raise_on_error=False
    )
    if any(_failed_checks(result)):
        raise _failed(result, f"checking {key.to_user_string()}")
    return result.success


def _failed(result: dg.ExecuteInProcessResult, what: str) -> MaterializationFailed:
    failures = [*_failed_checks(result), *_failed_steps(result)]
    said = "; ".join(f"{each.where}: {each.why}" for each in failures)
    reasons = [f"{each.name}: {each.why}" for each in failures]
    return MaterializationFailed(f"{what} failed: {said} (run {result.run_id})", reasons)


class _Failure(NamedTuple):
    """A check or step that failed, and why."""

    name: str
    where: str
    why: str


def _failed_checks(result: dg.ExecuteInProcessResult) -> Iterator[_Failure]:
    evaluations: Sequence[AssetCheckEvaluation] = result.get_asset_check_evaluations()
    for found in evaluations:
        if not found.passed:
            where = f"check {found.check_name} of {found.asset_key.to_user_string()}"
            yield _Failure(found.check_name, where, found.description or "failed")


def _failed_steps(result: dg.ExecuteInProcessResult) -> Iterator[_Failure]:
    for event in result.filter_events(lambda event: event.is_step_failure):
        error: Any = event.step_failure_data.error
        if error.cls_name != DagsterAssetCheckFailedError.__name__:  # which the check says better
            yield _Failure(str(event.step_key), str(event.step_key), (error.cause or error).message.strip())


class _Loading(LoadingContext):
    """The cache in which the resolver batches its queries; one per look, since it never forgets."""

    def __init__(self, instance: dg.DagsterInstance):
        self._instance = instance
        self._loaders: dict[type, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[type, Any]:
        return self._loaders
