"""An experiment's result as an asset: the summary, the chart and the verdict beside the data that they came from."""

import re
from collections.abc import Collection, Iterator

import dagster as dg

from models import Registry
from orchestration.automation.conditions import REPORT, is_automatic
from orchestration.automation.freshness import RESULTS
from orchestration.errors import NoExperiment
from orchestration.lake import Lake
from orchestration.lineage import metadata_of
from orchestration.logs import logged_experiments, logged_traffic


def result_asset(endpoint: str, experiment: str, assets: Collection[str] = ()) -> dg.AssetsDefinition:
    """The asset that reports a declared experiment from the exported logs, with links to what it rests on."""

    @dg.asset(
        name=f"{experiment.replace('-', '_')}_result",
        description=f"What `{experiment}` on `{endpoint}` has found, by the decisions and outcomes in the lake; "
        "of its repetitions with retrained models, the newest.",
        group_name="results",
        kinds={"duckdb", "altair"},
        deps=[logged_experiments, logged_traffic],
        automation_condition=REPORT,
        freshness_policy=RESULTS,
        output_required=False,
    )
    def result(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], registry: dg.ResourceParam[Registry]
    ) -> Iterator[dg.MaterializeResult[None]]:
        try:
            name = newest_run(lake, endpoint, experiment)
        except NoExperiment as error:
            # Somebody who asks for a result is told; a sensor would only fail again and again.
            if not is_automatic(context.run):
                raise
            context.log.info(str(error))
            return
        from orchestration.reported import read  # seconds, which loading the definitions should not take

        found = read(name, lake)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(found.content_hash),
            metadata={**found.metadata, **metadata_of(registry, found.arms, assets)},
        )

    return result


def newest_run(lake: Lake, endpoint: str, experiment: str) -> str:
    """Name of the experiment, or of its repetition on newer models that was started last.

    Raises:
        NoExperiment: None was started.
        TableMissing: The logs were never exported.
    """
    experiments = lake.read("logs/experiments")
    named = experiments["name"].map(lambda name: bool(re.fullmatch(rf"{re.escape(experiment)}(-\d+)?", name)))
    started = experiments[(experiments["endpoint"] == endpoint) & named & experiments["started_ms"].notna()]
    if started.empty:
        raise NoExperiment(
            f"experiment {experiment} on endpoint {endpoint} was never started: start it, and materialize the logs"
        )
    return str(started.sort_values(["started_ms", "id"])["name"].iloc[-1])
