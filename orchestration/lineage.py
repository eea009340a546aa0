"""Which experiment rests on which model versions, and those on which code and which versions of which datasets.

Both ways: a result links to the models and datasets of its arms; a dataset is told which experiments used it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import dagster as dg
import pandas as pd

from models import ModelReference, Registry
from models.errors import ModelError
from models.manifest import Manifest
from orchestration.automation.conditions import REPORT
from orchestration.automation.freshness import RESULTS
from orchestration.datasets.tables import markdown_table
from orchestration.endpoints.declaration import DEFAULT_OWNERS, Endpoint
from orchestration.lake import Lake
from orchestration.logs import logged_experiments

TABLE = "lineage"
_SHORT = 12
_UNKNOWN = "not in this registry"


class Use(NamedTuple):
    """A model version's dataset; without any, one row says so."""

    model: str
    code_version: str
    dataset: str
    dataset_version: int | None
    content_hash: str


def uses(registry: Registry, models: Iterable[str]) -> list[Use]:
    """What each of the model versions was made from."""
    return [use for model in dict.fromkeys(models) for use in _of(registry, model)]


def metadata_of(registry: Registry, arms: Sequence[tuple[str, str]], assets: Collection[str]) -> dict[str, Any]:
    """A result's metadata: what every arm (name and model) rests on, and links to assets."""
    found = uses(registry, (model for _, model in arms))
    names = {model: ", ".join(arm for arm, of in arms if of == model) for _, model in arms}
    table = pd.DataFrame([{"arm": names[use.model], **use._asdict()} for use in found], dtype=object).fillna("")
    linked = [*(use.model.partition("@")[0].replace("-", "_") for use in found), *(use.dataset for use in found)]
    return {
        "rests_on": dg.MetadataValue.md(markdown_table(table)),
        **{
            f"asset {name}": dg.MetadataValue.asset(dg.AssetKey(name))
            for name in dict.fromkeys(linked)
            if name in assets
        },
    }


def lineage_asset(endpoints: Sequence[Endpoint]) -> dg.AssetsDefinition:
    """The asset with every use of a dataset by an experiment; the datasets are told too, by observations."""
    periods = {period.name for each in endpoints for period in (each.data.train, each.data.validation)}

    @dg.asset(
        name="lineage",
        description="Dataset version, model version with its code version, experiment and arm: one row per use.",
        group_name="results",
        kinds={"deltalake"},
        owners=DEFAULT_OWNERS,
        deps=[logged_experiments, *sorted(periods)],
        automation_condition=REPORT,
        freshness_policy=RESULTS,
    )
    def lineage(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], registry: dg.ResourceParam[Registry]
    ) -> dg.MaterializeResult[None]:
        rows = used(lake, registry)
        version = lake.write_if_changed(TABLE, rows)
        for dataset in sorted(periods & set(rows["dataset"])):
            context.log_event(_observation(dataset, rows))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version.content_hash),
            metadata={"dagster/row_count": len(rows), "uses": dg.MetadataValue.md(markdown_table(rows))},
        )

    return lineage


def used(lake: Lake, registry: Registry) -> pd.DataFrame:
    """One row per experiment, arm and dataset, from the exported logs and the manifests."""
    experiments = lake.read("logs/experiments", columns=["id", "name", "endpoint", "state"])
    arms = lake.read("logs/arms", columns=["experiment_id", "name", "model"])
    rows = pd.DataFrame(uses(registry, arms["model"]), columns=pd.Index(Use._fields))
    named = experiments.rename(columns={"id": "experiment_id", "name": "experiment"})
    joined = named.merge(arms.rename(columns={"name": "arm"}), on="experiment_id").merge(rows, on="model")
    columns = ["dataset", "dataset_version", "content_hash", "model", "code_version", "endpoint", "experiment", "arm"]
    ordered = joined.sort_values(["dataset", "dataset_version", "experiment_id", "arm"], ignore_index=True)
    return ordered[[*columns, "state"]].astype({"dataset_version": "Int64"})


def _observation(dataset: str, rows: pd.DataFrame) -> dg.AssetObservation:
    mine = rows[rows["dataset"] == dataset]
    return dg.AssetObservation(
        asset_key=dataset,
        description=f"{mine['experiment'].nunique()} experiments, {mine['model'].nunique()} model versions",
        metadata={"used_by": dg.MetadataValue.md(markdown_table(mine.drop(columns="dataset")))},
    )


def _of(registry: Registry, model: str) -> Iterator[Use]:
    try:
        manifest: Manifest = registry.manifest(ModelReference.parse(model))
    except ModelError:
        yield Use(model, _UNKNOWN, "", None, "")
        return
    if not manifest.datasets:
        yield Use(model, manifest.code_version or "", "", None, "")
    for name, version in sorted(manifest.datasets.items()):
        yield Use(model, manifest.code_version or "", name, version.version, version.content_hash[:_SHORT])
