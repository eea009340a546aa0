"""The code location that Dagster loads: every endpoint's assets, over the configured lake and registry."""

from collections.abc import Sequence

import dagster as dg

from models import Registry
from orchestration import logs
from orchestration.automation.exports import export_definitions
from orchestration.endpoints.assets import graph
from orchestration.endpoints.declaration import Endpoint
from orchestration.endpoints.discovery import discover
from orchestration.lake import Lake
from orchestration.ledger import Ledger
from orchestration.rollouts.router import Router
from router import settings


def build(configured: settings.Settings, endpoints: Sequence[Endpoint] | None = None) -> dg.Definitions:
    """The definitions of these endpoints, by default of every one that is declared, over one configuration."""
    declared = discover() if endpoints is None else endpoints
    shared = dg.Definitions(
        assets=[logs.LEDGER, logs.logged_experiments, logs.logged_traffic],
        asset_checks=[logs.decisions_can_be_proved],
        resources={
            "lake": Lake(configured.lake.resolve()),
            "staging": Registry(configured.lake.resolve() / "staging"),
            "registry": Registry(configured.registry.resolve()),
            "ledger": Ledger(configured),
            "router": Router(configured),
        },
        # A run has its own process; one more for every step would spend most of its time importing.
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(shared, export_definitions(), graph(declared))


@dg.definitions
def definitions() -> dg.Definitions:
    """What `dg dev` and `workspace.yaml` load."""
    return build(settings.load())
