"""The code location that Dagster loads: every endpoint's assets, over the configured lake and registry."""

import dagster as dg

from models import Registry
from orchestration import logs
from orchestration.endpoints import flight_choice, flight_delay
from orchestration.endpoints.assets import data_definitions, endpoint_definitions
from orchestration.lake import Lake
from orchestration.ledger import Ledger
from router import settings

ENDPOINTS = (flight_delay.ENDPOINT, flight_choice.ENDPOINT)


def build(configured: settings.Settings) -> dg.Definitions:
    """The definitions over one configuration."""
    shared = dg.Definitions(
        assets=[logs.LEDGER, logs.logged_experiments, logs.logged_traffic],
        asset_checks=[logs.decisions_can_be_proved],
        resources={
            "lake": Lake(configured.lake.resolve()),
            "staging": Registry(configured.lake.resolve() / "staging"),
            "registry": Registry(configured.registry.resolve()),
            "ledger": Ledger(configured),
        },
    )
    data = {endpoint.data.name: endpoint.data for endpoint in ENDPOINTS}.values()
    return dg.Definitions.merge(
        shared, *map(data_definitions, data), *(endpoint_definitions(endpoint) for endpoint in ENDPOINTS)
    )


@dg.definitions
def definitions() -> dg.Definitions:
    """What `dg dev` and `workspace.yaml` load."""
    return build(settings.load())
