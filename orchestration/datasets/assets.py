"""Makes the assets of an endpoint's datasets, and of the periods cut out of them."""

from collections.abc import Mapping, Sequence

import dagster as dg

from orchestration.code_version import code_version
from orchestration.datasets.declaration import Dataset, Period
from orchestration.datasets.tables import described, month_of, read_inputs, read_months
from orchestration.lake import Lake

_GROUP = "datasets"
_KINDS = {"pandas", "deltalake"}


def dataset_asset(
    dataset: Dataset, datasets: Mapping[str, Dataset], months: dg.MonthlyPartitionsDefinition
) -> dg.AssetsDefinition:
    """The asset that builds one dataset, month by month where it is monthly."""

    @dg.asset(
        name=dataset.name,
        description=dataset.description,
        group_name=_GROUP,
        kinds=_KINDS,
        partitions_def=months if dataset.monthly else None,
        deps=[_dep(datasets[name], back) for name, back in dataset.inputs],
        code_version=code_version(dataset.build, *dataset.code),
    )
    def build(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
        month = context.partition_key if dataset.monthly else ""
        inputs = read_inputs(lake, dataset, datasets, months.get_partition_keys(), month)
        frame, counts = dataset.build(inputs, month)
        version = lake.write_if_changed(dataset.table, frame, month_of(month))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version.content_hash),
            metadata=described(frame, version, counts, partitioned=dataset.monthly),
        )

    return build


def period_asset(period: Period, source: Dataset) -> dg.AssetsDefinition:
    """The asset that cuts a period out of a table of features: whole, or by month."""

    @dg.asset(
        name=period.name,
        description=period.description,
        group_name=_GROUP,
        kinds=_KINDS,
        partitions_def=period.partitions,
        deps=[dg.AssetDep(source.name, partition_mapping=_period_mapping(period))],
        code_version=code_version(period.months, period.columns, period.required, period.order),
    )
    def cut(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
        month = context.partition_key if period.partitions else ""
        rows = read_months(lake, source.table, [month] if month else period.months)
        kept = rows.dropna(subset=list(period.required)).sort_values(list(period.order), ignore_index=True)
        frame = kept[list(period.columns)]
        version = lake.write_if_changed(period.table, frame, month_of(month))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version.content_hash),
            metadata=described(
                frame, version, {"rows_without_label_dropped": len(rows) - len(kept)}, partitioned=bool(month)
            ),
        )

    return cut


def _dep(source: Dataset, months_back: int) -> dg.AssetDep:
    if not source.monthly or not months_back:
        return dg.AssetDep(source.name)
    return dg.AssetDep(source.name, partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-months_back))


def _period_mapping(period: Period) -> dg.PartitionMapping:
    if period.partitions:
        return dg.TimeWindowPartitionMapping()
    return dg.SpecificPartitionsPartitionMapping(list(period.months))


def by_name(datasets: Sequence[Dataset]) -> dict[str, Dataset]:
    """The datasets by their names."""
    return {dataset.name: dataset for dataset in datasets}
