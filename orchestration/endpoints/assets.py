"""Makes the asset graph of an endpoint, and of the data that endpoints share, from their declarations."""

import dagster as dg

from orchestration.candidates.assets import registered_asset, trained_asset
from orchestration.candidates.checks import candidate_checks
from orchestration.candidates.names import Candidate
from orchestration.datasets.assets import by_name, dataset_asset, period_asset
from orchestration.datasets.checks import leakage_check, schema_check
from orchestration.datasets.declaration import Data
from orchestration.endpoints.declaration import Endpoint
from orchestration.results import result_asset


def endpoint_definitions(endpoint: Endpoint) -> dg.Definitions:
    """Everything that is the endpoint's own: its candidates and its experiments' results."""
    results = dg.Definitions([result_asset(endpoint.name, each.name) for each in endpoint.experiments])
    return dg.Definitions.merge(candidate_definitions(endpoint), results)


def data_definitions(data: Data) -> dg.Definitions:
    """Datasets and periods, with their checks."""
    datasets = by_name(data.datasets)
    months = data.months.get_partition_keys()
    features = datasets[data.features_from]
    return dg.Definitions(
        assets=[
            *(dataset_asset(dataset, datasets, data.months) for dataset in data.datasets),
            *(period_asset(period, features) for period in (data.train, data.validation, data.replay)),
        ],
        asset_checks=[
            *(schema_check(dataset) for dataset in data.datasets if dataset.schema is not None),
            *(leakage_check(d, d.rewind, datasets, months) for d in data.datasets if d.rewind is not None),
        ],
    )


def candidate_definitions(endpoint: Endpoint) -> dg.Definitions:
    """A trained and a registered asset per recipe, with the checks between them."""
    candidates = [Candidate(endpoint, recipe) for recipe in endpoint.recipes]
    return dg.Definitions(
        assets=[asset for one in candidates for asset in (trained_asset(one), registered_asset(one))],
        asset_checks=[check for one in candidates for check in candidate_checks(one)],
    )
