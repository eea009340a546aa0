"""Makes an endpoint's whole asset graph from its declaration."""

import dagster as dg

from orchestration.candidates.assets import registered_asset, trained_asset
from orchestration.candidates.checks import candidate_checks
from orchestration.candidates.names import Candidate
from orchestration.datasets.assets import by_name, dataset_asset, period_asset
from orchestration.datasets.checks import leakage_check, schema_check
from orchestration.endpoints.declaration import Endpoint
from orchestration.results import result_asset


def endpoint_definitions(endpoint: Endpoint) -> dg.Definitions:
    """Everything that the endpoint declares."""
    result = dg.Definitions([result_asset(endpoint.name)])
    return dg.Definitions.merge(dataset_definitions(endpoint), candidate_definitions(endpoint), result)


def dataset_definitions(endpoint: Endpoint) -> dg.Definitions:
    """The endpoint's datasets and periods, with their checks."""
    datasets = by_name(endpoint.datasets)
    months = endpoint.months.get_partition_keys()
    features = datasets[endpoint.features_from]
    return dg.Definitions(
        assets=[
            *(dataset_asset(dataset, datasets, endpoint.months) for dataset in endpoint.datasets),
            *(period_asset(period, features) for period in (endpoint.train, endpoint.validation, endpoint.replay)),
        ],
        asset_checks=[
            *(schema_check(dataset) for dataset in endpoint.datasets if dataset.schema is not None),
            *(leakage_check(d, d.rewind, datasets, months) for d in endpoint.datasets if d.rewind is not None),
        ],
    )


def candidate_definitions(endpoint: Endpoint) -> dg.Definitions:
    """A trained and a registered asset per recipe, with the checks between them."""
    candidates = [Candidate(endpoint, recipe) for recipe in endpoint.recipes]
    return dg.Definitions(
        assets=[asset for one in candidates for asset in (trained_asset(one), registered_asset(one))],
        asset_checks=[check for one in candidates for check in candidate_checks(one)],
    )
