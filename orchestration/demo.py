"""`turnout demo`: the whole loop on real flights, from raw data to an honest result."""

import os
import shutil
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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import analysis
from analysis.commands import report
from models.registry import Registry
from orchestration import findings
from orchestration.datasets.tables import month_of
from orchestration.definitions import ENDPOINTS, build
from orchestration.deployment import deploy, newest_models
from orchestration.endpoints import flight_choice, flight_delay
from orchestration.endpoints.declaration import Endpoint, Experiment
from orchestration.errors import OrchestrationError
from orchestration.flights.traffic import choice_requests, delay_requests
from orchestration.flights.travellers import BOOKED, BOOKS, SATISFIED, Flight
from orchestration.lake import Lake
from orchestration.ledger import Ledger
from orchestration.logs import finding
from orchestration.processes import child
from orchestration.replay import Replayed, Request, replay
from orchestration.staleness import Progress as Made
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

# The sizes of the recipes were chosen with April in sight, so results come from months that nobody looked at.
SCENES = (
    Scene("flights of May", flight_delay.ENDPOINT, flight_delay.SPLIT, "2013-05-01", delay_requests),
    Scene("flights of June", flight_delay.ENDPOINT, flight_delay.BANDIT, "2013-06-01", delay_requests, 12_000),
    Scene("travellers in May", flight_choice.ENDPOINT, flight_choice.CHOICE, "2013-05-01", choice_requests),
)
_MONTHS = ("2013-01-01", "2013-02-01", "2013-03-01", "2013-04-01", "2013-05-01", "2013-06-01")
_STATE = Path("var")
_SHADOWS_WAIT_S = 30.0
_SIMULATED = (
    "the flights and delays are real; the travellers are simulated: from the top of the list, each books a flight with "
    f"probability {BOOKS}, whichever it is, so {BOOKED} says nothing of the rankings and {SATISFIED} does"
)

console = Console(highlight=False)


@click.command()
@click.option("--once", is_flag=True, help="End after the result instead of staying up.")
@click.option("--flights", type=click.IntRange(1), help="Send only so many requests of each kind.")
def demo(once: bool, flights: int | None) -> None:
    """Run the whole loop on real flights: data, models, live traffic, outcomes, result."""
    settings = load()
    definitions = build(settings)
    try:
        with _instance() as instance:
            _make_candidates(definitions, instance)
            with _router(settings), nullcontext() if once else _dagster_ui():
                names = _show_result(settings, definitions, instance, flights)
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
    names = _deploy(settings)
    replayed = [(scene, _replay(settings, scene, names[scene.experiment.name], flights)) for scene in SCENES]
    with console.status("exporting the ledger to the lake"):
        _await_shadows(settings)
        _export(settings, definitions, instance)
    console.print()
    for scene, counts in replayed:
        _print_counts(scene, counts)
    console.print(f"{finding(Ledger(settings).verify())}; again with: .venv/bin/turnout verify-log\n", markup=False)
    _print_findings(settings, names)
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


@contextmanager
def _instance() -> Iterator[dg.DagsterInstance]:
    """The Dagster instance in var/dagster, unless DAGSTER_HOME says otherwise."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str((_STATE / "dagster").resolve())))
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copy(Path(__file__).with_name("dagster.yaml"), home)
    with dg.DagsterInstance.get() as instance:
        yield instance


def _make_candidates(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Materialize what is stale of datasets and candidates."""
    selection = dg.AssetSelection.groups("datasets", "candidates")
    with _bar("datasets and candidates") as advance:

        def show(made: Made) -> None:
            what = ", ".join(made.assets) or "datasets and candidates"
            advance(made.done, made.total, f"{what} {made.partition[:7]}" if made.partition else what)

        made = materialize_stale(definitions, instance, selection, partitions=_MONTHS, progress=show)
    console.print(f"materialized {len(made)} stale assets" if made else "everything is up to date: nothing to train")


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
        deployed = [deploy(router, endpoint, newest_models(endpoint, registry)) for endpoint in ENDPOINTS]
    return {declared: name for names in deployed for declared, name in names.items()}


def _replay(settings: Settings, scene: Scene, experiment: str, flights: int | None) -> Replayed:
    frame = Lake(settings.lake.resolve()).read(scene.endpoint.data.replay.table, month_of(scene.month))
    rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    most = min(each for each in (scene.most, flights, len(rows)) if each is not None)
    requests = scene.requests(scene.endpoint, rows)[:most]
    with _bar(scene.title) as advance:
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


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    columns = (TextColumn("{task.description:<38}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None)

        def advance(done: int, total: int, description: str) -> None:
            shown = description if len(description) <= 38 else f"{description[:35]}..."
            progress.update(task, completed=done, total=total, description=shown)

        yield advance
