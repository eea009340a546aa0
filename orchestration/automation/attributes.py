"""What assets have in common that are made in different places: who answers for them, and what they are found by.

Datasets get their conditions and their freshness here too, so that what makes them knows nothing of when.
"""

from collections.abc import Iterable, Sequence

import dagster as dg

from orchestration.automation import conditions, freshness
from orchestration.datasets.declaration import Data
from orchestration.endpoints.declaration import Endpoint

ENDPOINT_TAG = "turnout/endpoint"
"""Tag of assets and runs that belong to one endpoint."""
DATA_TAG = "turnout/data"
"""Tag of assets that endpoints share."""


def of_endpoint(assets: Iterable[dg.AssetsDefinition], endpoint: Endpoint) -> Sequence[dg.AssetsDefinition]:
    """The assets with the endpoint's owners and its tag."""
    return dg.map_asset_specs(
        lambda spec: spec.merge_attributes(owners=endpoint.owners, tags={ENDPOINT_TAG: endpoint.name}), assets
    )


def of_data(
    assets: Iterable[dg.AssetsDefinition], data: Data, endpoints: Sequence[Endpoint]
) -> Sequence[dg.AssetsDefinition]:
    """The assets with the owners of all endpoints that learn from them, and when they are made and grow old."""
    owners = sorted({owner for endpoint in endpoints for owner in endpoint.owners})
    made = {each.name: conditions.of_dataset(each, data) for each in data.datasets}
    made |= {each.name: conditions.of_period(each, data) for each in data.periods}
    old = {each.name: freshness.of_dataset(each, data) for each in data.datasets}

    def attributed(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.to_user_string()
        timed = spec.replace_attributes(automation_condition=made[name], freshness_policy=old.get(name))
        return timed.merge_attributes(owners=owners, tags={DATA_TAG: data.name})

    return dg.map_asset_specs(attributed, assets)
