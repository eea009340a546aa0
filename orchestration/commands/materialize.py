"""`turnout materialize`: from an endpoint's source to its registered models."""

from typing import Any

import click

from models.registry import Registry
from orchestration.candidates.names import candidates_of, declared_champion
from orchestration.commands.explaining import PROGRESS, declared, explained
from orchestration.definitions import build
from orchestration.deployment import champion_missing
from orchestration.endpoints.declaration import Endpoint
from orchestration.instance import local_instance
from orchestration.lake import Lake
from orchestration.progress import materializing
from orchestration.refresh import refresh
from router.commands.output import json_option, print_json, print_rows
from router.settings import load


@click.command("materialize")
@click.argument("name")
@json_option
def materialize(name: str, as_json: bool) -> None:
    """Bring the datasets and candidates of endpoint NAME up to date, from its source on.

    A candidate that fails its checks is not registered. The exit status is 1 only while no version of the champion is.
    """
    settings = load()
    with explained(), local_instance() as instance:
        endpoint = declared(name)
        definitions, lake = build(settings, (endpoint,)), Lake(settings.lake.resolve())
        with materializing(PROGRESS, name) as show:
            made, failed = refresh(definitions, instance, lake, endpoint, show)
    registry = Registry(settings.registry)
    models = _models(endpoint, registry)
    if as_json:
        print_json({"endpoint": name, "materialized": made, "models": models, "not_registered": failed})
    else:
        if made or not failed:
            click.echo(f"materialized {len(made)} assets" if made else "everything is up to date")
        print_rows(models, as_json=False, empty="no candidate is registered")
        for model, reason in failed.items():
            click.echo(f"{model} not registered: {reason}")
    if not registry.versions(declared_champion(endpoint).model):
        raise click.ClickException(champion_missing(endpoint))
    if not as_json:
        click.echo(f"next, with `turnout serve` in another terminal: turnout deploy {name}")


def _models(endpoint: Endpoint, registry: Registry) -> list[dict[str, Any]]:
    """The newest version of every candidate that has one, with what was found about it."""
    versions = [registry.latest(each.model) for each in candidates_of(endpoint) if registry.versions(each.model)]
    metrics = {version: registry.manifest(version).metrics for version in versions}
    return [
        {"model": str(version), **{name: round(metric.value, 4) for name, metric in metrics[version].items()}}
        for version in versions
    ]
