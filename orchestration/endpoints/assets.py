"""Makes the asset graph of an endpoint, and of the data that endpoints share, from their declarations."""

from collections.abc import Iterator, Sequence

import dagster as dg

from orchestration.automation.attributes import of_data, of_endpoint
from orchestration.automation.conditions import sensor
from orchestration.automation.retraining import retraining_definitions
from orchestration.candidates.assets import registered_asset, trained_asset
from orchestration.candidates.checks import candidate_checks
from orchestration.candidates.names import Candidate
from orchestration.datasets.assets import dataset_asset, period_asset
from orchestration.datasets.checks import leakage_check, row_key_check, schema_check
from orchestration.datasets.declaration import Data, Dataset
from orchestration.drift.assets import drift_asset
from orchestration.drift.quality import quality_asset
from orchestration.endpoints.declaration import Endpoint
from orchestration.labelling import queue_asset
from orchestration.lineage import lineage_asset
from orchestration.results import result_asset
from orchestration.rollouts.assets import rollout_asset
from orchestration.rollouts.observation import observed_asset, rollouts_sensor


def graph(endpoints: Sequence[Endpoint]) -> dg.Definitions:
    """Everything that these endpoints declare; what several share is made once."""
    common = dg.Definitions([lineage_asset(endpoints)], sensors=_sensors(endpoints))
    return dg.Definitions.merge(*_data(endpoints), *map(endpoint_definitions, endpoints), common)


def _data(endpoints: Sequence[Endpoint]) -> Iterator[dg.Definitions]:
    """Yield what is made of each data, without the datasets that others before have too."""
    made: set[str] = set()
    for data in {endpoint.data.name: endpoint.data for endpoint in endpoints}.values():
        users = [endpoint for endpoint in endpoints if endpoint.data.name == data.name]
        yield data_definitions(data, users, [dataset for dataset in data.datasets if dataset.name not in made])
        made |= {dataset.name for dataset in data.datasets}


def endpoint_definitions(endpoint: Endpoint) -> dg.Definitions:
    """Everything that is the endpoint's own: candidates, rollouts, results, drift, live quality, labelling queue."""
    linked = {period.name for period in endpoint.data.periods}
    linked |= {Candidate(endpoint, recipe).key for recipe in endpoint.recipes}
    results = [result_asset(endpoint.name, each.name, linked) for each in endpoint.experiments]
    # Of a list no single item waits for a label.
    queue = [queue_asset(endpoint)] if endpoint.kind == "predict" else []
    own = dg.Definitions(of_endpoint([*results, drift_asset(endpoint), quality_asset(endpoint), *queue], endpoint))
    return dg.Definitions.merge(
        candidate_definitions(endpoint), retraining_definitions(endpoint), rollout_definitions(endpoint), own
    )


def data_definitions(
    data: Data, endpoints: Sequence[Endpoint] = (), datasets: Sequence[Dataset] | None = None
) -> dg.Definitions:
    """Datasets, by default all of the data's, and periods, with their checks; `endpoints` learn from them."""
    datasets = data.datasets if datasets is None else datasets
    assets = [
        *(dataset_asset(dataset, data) for dataset in datasets),
        *(period_asset(period, data) for period in data.periods),
    ]
    return dg.Definitions(
        assets=of_data(assets, data, endpoints),
        asset_checks=[
            *(schema_check(dataset, data) for dataset in datasets if dataset.schema is not None),
            *(leakage_check(d, d.rewind, data) for d in datasets if d.rewind is not None),
            *(row_key_check(period, data) for period in (data.train, data.validation)),
        ],
    )


def rollout_definitions(endpoint: Endpoint) -> dg.Definitions:
    """A promotion asset per recipe, and what the router says of all of them; nothing without a rollout plan."""
    if endpoint.rollout is None:
        return dg.Definitions()
    promotions = [rollout_asset(Candidate(endpoint, recipe)) for recipe in endpoint.recipes]
    return dg.Definitions([*of_endpoint(promotions, endpoint), observed_asset(endpoint)])


def _sensors(endpoints: Sequence[Endpoint]) -> list[dg.SensorDefinition]:
    rolled_out = [endpoint for endpoint in endpoints if endpoint.rollout is not None]
    return [sensor(), *([rollouts_sensor(rolled_out)] if rolled_out else [])]


def candidate_definitions(endpoint: Endpoint) -> dg.Definitions:
    """A trained and a registered asset per recipe, with the checks between them."""
    candidates = [Candidate(endpoint, recipe) for recipe in endpoint.recipes]
    assets = [asset for one in candidates for asset in (trained_asset(one), registered_asset(one))]
    return dg.Definitions(
        assets=of_endpoint(assets, endpoint),
        asset_checks=[check for one in candidates for check in candidate_checks(one)],
    )
