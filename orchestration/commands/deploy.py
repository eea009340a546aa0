"""`turnout deploy`: an endpoint, and what is to become of its candidates, on a running router."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import click
import dagster as dg
import msgspec

from models.reference import ModelReference
from models.registry import Registry
from orchestration import deployment
from orchestration.candidates.names import candidates_of
from orchestration.commands.explaining import declared, explained
from orchestration.definitions import build
from orchestration.endpoints.declaration import Endpoint
from orchestration.errors import MaterializationFailed, NotProven
from orchestration.instance import local_instance
from orchestration.rollouts.assets import proven_version
from orchestration.staleness import materialize
from router.client import Turnout
from router.commands.output import json_option, print_json, url_option
from router.settings import Settings, load


class _Deployed(NamedTuple):
    """What became of what the endpoint declares, each with its name."""

    running: dict[str, str]
    left_out: dict[str, str]
    """Why something was not handed over."""
    failed: dict[str, str]
    """Why something could not be handed over that should have been."""


@click.command("deploy")
@click.argument("name")
@url_option
@json_option
def deploy(name: str, url: str, as_json: bool) -> None:
    """Bring endpoint NAME and its newest models to a running router.

    With a rollout plan its champion serves, and the router moves the other candidates along the plan. Without one the
    declared experiments run. Candidates whose checks have not passed are left out.
    """
    settings = msgspec.structs.replace(load(), url=url)
    with explained():
        endpoint = declared(name)
        with Turnout(url, api_key=settings.api_key) as router:
            deployed = (_rollouts if endpoint.rollout else _experiments)(router, settings, endpoint)
            champion = str(router.endpoint(name)["document"]["champion"])
    if as_json:
        print_json({"endpoint": name, "champion": champion, **deployed._asdict()})
    else:
        click.echo(f"{name} is served by {champion}")
        for what, state in deployed.running.items():
            click.echo(f"{what}: {state}")
        for what, reason in deployed.left_out.items():
            click.echo(f"{what} is left out: {reason}")
    if deployed.failed:
        raise click.ClickException("; ".join(f"{what}: {reason}" for what, reason in deployed.failed.items()))
    if not as_json:
        sample = Registry(settings.registry).manifest(ModelReference.parse(champion)).sample.inputs[0]
        click.echo(f"a first request:\n{_call(url, endpoint, sample)}")


def _experiments(router: Turnout, settings: Settings, endpoint: Endpoint) -> _Deployed:
    models = deployment.newest_models(endpoint, Registry(settings.registry))
    ready, left_out = deployment.without_missing(endpoint, models)
    return _Deployed(dict.fromkeys(deployment.deploy(router, ready, models).values(), "running"), left_out, {})


def _rollouts(router: Turnout, settings: Settings, endpoint: Endpoint) -> _Deployed:
    """Hand the candidates over as Dagster does, behind their checks, each by itself."""
    # One that does not answer is said so now, and not after all retries.
    router.endpoints()
    definitions = build(settings, (endpoint,))
    staging, registry = Registry(settings.lake / "staging"), Registry(settings.registry)
    left_out, failed = {}, {}
    with local_instance() as instance:
        for candidate in candidates_of(endpoint):
            try:
                proven_version(candidate, instance, staging, registry)
                materialize(definitions, instance, dg.AssetSelection.assets(f"{candidate.key}_rollout"))
            except NotProven as error:
                left_out[candidate.model] = str(error)
            except MaterializationFailed as error:
                failed[candidate.model] = "; ".join(error.reasons)
    if endpoint.name not in {each["document"]["name"] for each in router.endpoints()}:
        reasons = "; ".join(f"{model}: {reason}" for model, reason in (left_out | failed).items())
        raise NotProven(f"no candidate of {endpoint.name} could be handed over to {settings.router_url}: {reasons}")
    found = [each for each in router.rollouts() if each["document"]["endpoint"] == endpoint.name]
    running = {each["document"]["name"]: f"{each['state']}, stage {each['stage_kind']}" for each in found}
    return _Deployed(running, left_out, failed)


def _call(url: str, endpoint: Endpoint, row: Mapping[str, Any]) -> str:
    """A request, ready for the shell."""
    request = {"inputs": row} if endpoint.kind == "predict" else {"candidates": [{"id": "first", **row}]}
    body = msgspec.json.encode({"unit": "somebody", **request}).decode().replace("'", "'\\''")
    return f"curl -s {url}/v1/endpoints/{endpoint.name}/{endpoint.kind} -d '{body}'"
