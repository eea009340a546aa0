"""Makes the assets of an endpoint's datasets, and of the periods cut out of them."""

from collections.abc import Sequence

import dagster as dg

from orchestration.code_version import code_version
from orchestration.datasets.declaration import Built, Data, Dataset, Period
from orchestration.datasets.tables import by_name, described, part_of, read_inputs, read_partitions
from orchestration.lake import Lake

_GROUP = "datasets"
_KINDS = {"pandas", "deltalake"}


def dataset_asset(dataset: Dataset, data: Data) -> dg.AssetsDefinition:
    """The asset that builds one dataset, partition by partition where it has some."""
    datasets = by_name(data.datasets)

    @dg.asset(
        name=dataset.name,
        description=dataset.description,
        group_name=_GROUP,
        kinds=_KINDS,
        partitions_def=data.partitions if dataset.partitioned else None,
        deps=[_dep(datasets[name], back) for name, back in dataset.inputs],
        code_version=code_version(dataset.build, *dataset.code),
    )
    def build(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
        key = context.partition_key if dataset.partitioned and data.partitions else ""
        frame, counts = dataset.build(read_inputs(lake, dataset, data, key), key)
        version = lake.write_if_changed(dataset.table, frame, part_of(data.partitions, key))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version.content_hash),
            metadata=described(frame, version, counts, partitioned=bool(key)),
        )

    return build


def period_asset(period: Period, data: Data) -> dg.AssetsDefinition:
    """The asset that cuts a period out of the table of features: whole, or by month."""
    source = by_name(data.datasets)[data.features_from]

    @dg.asset(
        name=period.name,
        description=period.description,
        group_name=_GROUP,
        kinds=_KINDS,
        partitions_def=period.definition,
        deps=[dg.AssetDep(source.name, partition_mapping=_period_mapping(period))],
        code_version=code_version(period.partitions, period.columns, period.required, period.order, *period.code),
    )
    def cut(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
        key = context.partition_key if period.monthly else ""
        frame, counts = cut_out(lake, period, data, (key,) if key else period.partitions)
        version = lake.write_if_changed(period.table, frame, part_of(data.partitions, key))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version.content_hash),
            metadata=described(frame, version, counts, partitioned=bool(key)),
        )

    return cut


def cut_out(lake: Lake, period: Period, data: Data, keys: Sequence[str]) -> Built:
    """The period's rows out of these partitions, or of the whole table when there are none."""
    table = by_name(data.datasets)[data.features_from].table
    rows = read_partitions(lake, table, data, keys) if keys else lake.read(table)
    kept = rows.dropna(subset=list(period.required))
    chosen = period.cut(kept) if period.cut else kept
    ordered = chosen.sort_values(list(period.order), ignore_index=True) if period.order else chosen
    return Built(ordered[list(period.columns)], {"rows_without_label_dropped": len(rows) - len(kept)})


def _dep(source: Dataset, months_back: int) -> dg.AssetDep:
    if not source.partitioned or not months_back:
        return dg.AssetDep(source.name)
    return dg.AssetDep(source.name, partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-months_back))


def _period_mapping(period: Period) -> dg.PartitionMapping | None:
    if period.monthly:
        return dg.TimeWindowPartitionMapping()
    return dg.SpecificPartitionsPartitionMapping(list(period.partitions)) if period.partitions else None
