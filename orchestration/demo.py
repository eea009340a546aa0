"""`turnout demo`: the whole loop on real flights, from raw data to an honest result."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import click
import dagster as dg
import httpx
from rich.console import Console

import analysis
from analysis.commands import report
from models.registry import Registry
from orchestration import findings, story
from orchestration.datasets.tables import month_of
from orchestration.definitions import build
from orchestration.deployment import deploy, newest_models
from orchestration.endpoints import flight_choice, flight_delay
from orchestration.endpoints.declaration import Endpoint, Experiment
from orchestration.errors import OrchestrationError
from orchestration.flights.datasets import REPLAY
from orchestration.flights.traffic import choice_requests, delay_requests
from orchestration.flights.travellers import BOOKED, BOOKS, SATISFIED, Flight
from orchestration.instance import local_instance
from orchestration.lake import Lake
from orchestration.ledger import Ledger
from orchestration.logs import finding
from orchestration.processes import child
from orchestration.progress import bar, materializing
from orchestration.replay import Replayed, Request, replay
from orchestration.staleness import materialize, materialize_stale
from router.client import Turnout
from router.settings import Settings, load


class Scene(NamedTuple):
    """A replay of one month for one experiment; `most` requests are sent, or all."""

    title: str
    endpoint: Endpoint
    experiment: Experiment
    month: str
    requests: Callable[[Endpoint, Sequence[Flight]], Sequence[Request]]
    most: int | None = None


DAGSTER_PORT = 3000
ENDPOINTS = (flight_delay.ENDPOINT, flight_choice.ENDPOINT, story.ENDPOINT)
"""Those of the demo, whichever else are declared."""

# The sizes of the recipes were chosen with April in sight, so results come from months that nobody looked at.
SCENES = (
    Scene("flights of May", flight_delay.ENDPOINT, flight_delay.SPLIT, "2013-05-01", delay_requests),
    Scene("flights of June", flight_delay.ENDPOINT, flight_delay.BANDIT, "2013-06-01", delay_requests, 12_000),
    Scene("travellers in May", flight_choice.ENDPOINT, flight_choice.CHOICE, "2013-05-01", choice_requests),
)
_COMPETING = (flight_delay.ENDPOINT, flight_choice.ENDPOINT)
"""Whose candidates compete in experiments; at the third, rollouts decide."""
_FIRST_MONTHS = ("2013-01-01", "2013-02-01", "2013-03-01", story.APRIL)
_NEXT_MONTHS = ("2013-05-01", "2013-06-01")
_STATE = Path("var")
_SHADOWS_WAIT_S = 30.0
_SIMULATED = (
    "the flights and delays are real; the travellers are simulated: from the top of the list, each books a flight with "
    f"probability {BOOKS}, whichever it is, so {BOOKED} says nothing of the rankings and {SATISFIED} does"
)

console = Console(highlight=False)


@click.command()
@click.option("--once", is_flag=True, help="End after the result instead of staying up.")
@click.option(
    "--flights",
    type=click.IntRange(1),
    help="Send only so many requests to each experiment; rollouts take what they need.",
)
def demo(once: bool, flights: int | None) -> None:
    """Run the whole loop on real flights: data, models, live traffic, outcomes, result."""
    settings = load()
    definitions = build(settings, ENDPOINTS)
    try:
        with local_instance() as instance:
            _make_candidates(definitions, instance)
            with _router(settings):
                names = _show_result(settings, definitions, instance, flights)
                # From here on Dagster acts by itself, too.
                with nullcontext() if once else _dagster_ui():
                    _print_next(settings, names[flight_delay.SPLIT.name], once=once)
                    if not once:
                        _wait_for_the_end()
    except OrchestrationError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        console.print("\nended; everything is in var/")


def _wait_for_the_end() -> None:
    """Wait for Ctrl-C or SIGTERM, which Dagster's runs have set back to its default, and end the children with us."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Event().wait()


def _show_result(
    settings: Settings, definitions: dg.Definitions, instance: dg.DagsterInstance, flights: int | None
) -> dict[str, str]:
    """Send the traffic, bring what came of it to the lake and print it; return the names of `_deploy`."""
    with bar(console, "a candidate walks to champion") as advance:
        theatre = story.Theatre(settings, definitions, instance, advance)
        story.spring(theatre)
    _let_arrive(definitions, instance, _NEXT_MONTHS)
    names = _deploy(settings)
    replayed = [(scene, _replay(settings, scene, names[scene.experiment.name], flights)) for scene in SCENES]
    _let_arrive(definitions, instance, (story.JULY,))
    with bar(console, "summer comes, and a sabotaged candidate") as advance:
        story.summer(theatre._replace(progress=advance))
    with console.status("exporting the ledger to the lake"):
        _await_shadows(settings)
        _export(settings, definitions, instance)
    console.print()
    for scene, counts in replayed:
        _print_counts(scene, counts)
    console.print(f"{finding(Ledger(settings).verify())}; again with: .venv/bin/turnout verify-log\n", markup=False)
    _print_findings(settings, names)
    console.print()
    story.show(theatre, console)
    return names


def _print_findings(settings: Settings, names: Mapping[str, str]) -> None:
    """Print what each experiment has found, as far as the data carry it."""
    split, bandit, choice = (
        names[each.name] for each in (flight_delay.SPLIT, flight_delay.BANDIT, flight_choice.CHOICE)
    )
    lake = settings.lake
    click.get_current_context().invoke(report, name=split, source=str(lake))
    console.print()
    findings.show(console, findings.bandit(analysis.load(bandit, lake)))
    console.print()
    findings.show(console, findings.lists(analysis.load(choice, lake), (SATISFIED, BOOKED), (_SIMULATED,)))


def _make_candidates(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Materialize what is stale of datasets and candidates; those of the story have their own times."""
    selection = dg.AssetSelection.groups("datasets", "candidates") - story.candidates()
    with materializing(console, "datasets and candidates") as show:
        made = materialize_stale(definitions, instance, selection, partitions=_FIRST_MONTHS, progress=show)
    console.print(f"materialized {len(made)} stale assets" if made else "everything is up to date: nothing to train")


def _let_arrive(definitions: dg.Definitions, instance: dg.DagsterInstance, months: Sequence[str]) -> None:
    """Materialize the datasets of months that come to be known; what learns from them waits for a reason."""
    periods = dg.AssetSelection.assets(*(period.name for period in story.ENDPOINT.data.periods))
    with materializing(console, "new months") as show:
        selection = dg.AssetSelection.groups("datasets") - periods
        materialize_stale(definitions, instance, selection, partitions=months, progress=show)


@contextmanager
def _router(settings: Settings) -> Iterator[None]:
    command = [sys.executable, "-m", "router", "serve"]
    log = _STATE / "log" / "router.log"
    with child("the router", command, f"{settings.router_url}/health/ready", log, wait_s=30, environment={}):
        yield


@contextmanager
def _dagster_ui() -> Iterator[None]:
    dagster = [str(Path(sys.executable).with_name("dg")), "dev", "--port", str(DAGSTER_PORT)]
    log = _STATE / "log" / "dagster.log"
    with child("Dagster", dagster, f"http://127.0.0.1:{DAGSTER_PORT}/server_info", log, wait_s=90, environment={}):
        yield


def _deploy(settings: Settings) -> dict[str, str]:
    """Make endpoints and experiments run on the newest models; return the name under which each experiment runs."""
    registry = Registry(settings.registry)
    with Turnout(settings.router_url, api_key=settings.api_key) as router:
        deployed = [deploy(router, endpoint, newest_models(endpoint, registry)) for endpoint in _COMPETING]
    return {declared: name for names in deployed for declared, name in names.items()}


def _replay(settings: Settings, scene: Scene, experiment: str, flights: int | None) -> Replayed:
    frame = Lake(settings.lake.resolve()).read(REPLAY.table, month_of(scene.month))
    rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    most = min(each for each in (scene.most, flights, len(rows)) if each is not None)
    requests = scene.requests(scene.endpoint, rows)[:most]
    with bar(console, scene.title) as advance:
        return replay(
            settings.router_url,
            requests,
            key=experiment,
            api_key=settings.api_key,
            progress=lambda sent: advance(sent, len(requests), f"replaying {scene.title}"),
        )


def _await_shadows(settings: Settings) -> None:
    """Wait until shadows have seen what waits for them; what they leave unseen is not in the result."""
    headers = {"X-API-Key": settings.api_key} if settings.api_key else {}
    ends = time.monotonic() + _SHADOWS_WAIT_S
    while time.monotonic() < ends:
        metrics = httpx.get(f"{settings.router_url}/metrics", headers=headers).raise_for_status()
        if "turnout_shadow_waiting 0.0" in metrics.text.splitlines():
            return
        time.sleep(0.2)


def _export(settings: Settings, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Bring every day of traffic from the ledger to the lake, then the result."""
    days = [day.isoformat() for day in Ledger(settings).days()]
    materialize(definitions, instance, dg.AssetSelection.groups("logs", "results"), partitions=days)


def _print_counts(scene: Scene, of: Replayed) -> None:
    console.print(
        f"{scene.title}: {of.requests:,} requests, {of.decisions:,} decisions; {of.outcomes:,} outcomes, "
        f"{of.sent_twice:,} of them sent twice: {of.accepted:,} accepted, {of.duplicate:,} duplicates, "
        f"{of.rejected:,} rejected"
    )


def _print_next(settings: Settings, experiment: str, *, once: bool) -> None:
    if once:
        console.print(
            f"\nThe result again: .venv/bin/turnout report {experiment}. With router and Dagster UI: make demo."
        )
        return
    console.print(
        f"\nRouter    {settings.router_url}/schema"
        f"\nDagster   http://127.0.0.1:{DAGSTER_PORT}/asset-groups"
        "\nNotebooks .venv/bin/jupyter lab analysis/notebooks/01-first-experiment.ipynb"
        f"\nResult    .venv/bin/turnout report {experiment} --html var/result.html"
        "\nCtrl-C ends it; everything is kept in var/."
    )
