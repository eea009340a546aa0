"""The code location that Dagster loads: every endpoint's assets, over the configured lake and registry."""

import dagster as dg

from orchestration.endpoints import flight_delay
from orchestration.endpoints.assets import endpoint_definitions
from orchestration.lake import Lake
from router import settings

ENDPOINTS = (flight_delay.ENDPOINT,)


def build(configured: settings.Settings) -> dg.Definitions:
    """The definitions over one configuration."""
    resources = {"lake": Lake(configured.lake.resolve())}
    return dg.Definitions.merge(
        *(endpoint_definitions(endpoint) for endpoint in ENDPOINTS), dg.Definitions(resources=resources)
    )


@dg.definitions
def definitions() -> dg.Definitions:
    """What `dg dev` and `workspace.yaml` load."""
    return build(settings.load())
