"""`turnout demo`: the whole loop on real flights, from raw data to an honest result."""

import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from analysis.commands import report
from models.registry import Registry
from orchestration.datasets.tables import month_of
from orchestration.definitions import build
from orchestration.endpoints.flight_delay import ENDPOINT
from orchestration.errors import OrchestrationError
from orchestration.lake import Lake
from orchestration.ledger import Ledger
from orchestration.logs import finding
from orchestration.processes import child
from orchestration.replay import Replayed, Request, replay
from orchestration.staleness import Progress as Made
from orchestration.staleness import materialize, materialize_stale
from router.client import Turnout
from router.settings import Settings, load

EXPERIMENT = ENDPOINT.experiment
DAGSTER_PORT = 3000

# The sizes of the recipes were chosen with April in sight, so the result comes from a month that nobody looked at.
_MONTH = "2013-05-01"
_MONTHS = ("2013-01-01", "2013-02-01", "2013-03-01", "2013-04-01", _MONTH)
_STATE = Path("var")

console = Console(highlight=False)


@click.command()
@click.option("--once", is_flag=True, help="End after the result instead of staying up.")
@click.option("--flights", type=click.IntRange(1), help="Replay only so many of the month's flights.")
def demo(once: bool, flights: int | None) -> None:
    """Run the whole loop on real flights: data, models, live traffic, outcomes, result."""
    settings = load()
    definitions = build(settings)
    try:
        with _instance() as instance:
            _make_candidates(definitions, instance)
            with _router(settings), nullcontext() if once else _dagster_ui():
                _show_result(settings, definitions, instance, flights)
                _print_next(settings, once=once)
                if not once:
                    _wait_for_the_end()
    except OrchestrationError as error:
        raise click.ClickException(str(error)) from error


def _wait_for_the_end() -> None:
    """Wait for Ctrl-C or SIGTERM, which Dagster's runs have set back to its default, and end the children with us."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Event().wait()


def _show_result(
    settings: Settings, definitions: dg.Definitions, instance: dg.DagsterInstance, flights: int | None
) -> None:
    """Send the traffic, bring what came of it to the lake and print it."""
    experiment = _ensure_experiment(settings)
    replayed = _replay(settings, experiment, flights)
    with console.status("exporting the ledger to the lake"):
        _export(settings, definitions, instance)
    _print_counts(replayed)
    console.print(f"{finding(Ledger(settings).verify())}; again with: turnout verify-log\n", markup=False)
    click.get_current_context().invoke(report, name=experiment, source=str(settings.lake))


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


def _ensure_experiment(settings: Settings) -> str:
    """Return a running experiment on the newest models, making endpoint and experiment where they are missing."""
    registry = Registry(settings.registry)
    newest = {candidate: str(registry.latest(f"{ENDPOINT.name}-{candidate}")) for _, candidate in EXPERIMENT.arms}
    wanted = EXPERIMENT.document(ENDPOINT.name, newest)
    with Turnout(settings.router_url, api_key=settings.api_key) as router:
        _ensure_endpoint(router, wanted["arms"][0]["model"])
        existing = {each["document"]["name"]: each for each in router.experiments()}
        for name in _names(EXPERIMENT.name):
            if name not in existing:
                router.create_experiment({**wanted, "name": name})
                router.start(name)
                return name
            found = existing[name]
            if found["state"] == "running" and found["document"]["arms"] == wanted["arms"]:
                return name
            if found["state"] in {"running", "paused"}:
                router.conclude(name)
    raise AssertionError("names never end")


def _ensure_endpoint(router: Turnout, champion: str) -> None:
    document = {"name": ENDPOINT.name, "champion": champion, "timeout_ms": 200}
    existing = {each["document"]["name"]: each for each in router.endpoints()}
    if ENDPOINT.name not in existing:
        router.create_endpoint(document)
    elif existing[ENDPOINT.name]["document"]["champion"] != champion:
        router.replace_endpoint(document, existing[ENDPOINT.name]["revision"])


def _names(first: str) -> Iterator[str]:
    """Yield the name, then the name with -2, -3, ..: a retrained model is a new arm, so a new experiment."""
    yield first
    number = 2
    while True:
        yield f"{first}-{number}"
        number += 1


def _replay(settings: Settings, experiment: str, flights: int | None) -> Replayed:
    frame = Lake(settings.lake.resolve()).read(ENDPOINT.replay.table, month_of(_MONTH))
    rows = frame.head(flights or len(frame)).to_dict("records")
    requests = [_request({str(name): value for name, value in row.items()}) for row in rows]
    with _bar("replaying flights") as advance:
        return replay(
            settings.router_url,
            ENDPOINT.name,
            requests,
            label=ENDPOINT.label,
            key=experiment,
            api_key=settings.api_key,
            progress=lambda sent: advance(sent, len(requests), "replaying flights"),
        )


def _request(row: dict[str, Any]) -> Request:
    inputs = {name: None if _missing(row[name]) else row[name] for name in ENDPOINT.features}
    return Request(row[ENDPOINT.row_key], inputs, None if _missing(row[ENDPOINT.label]) else row[ENDPOINT.label])


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _export(settings: Settings, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Bring every day of traffic from the ledger to the lake, then the result."""
    days = [day.isoformat() for day in Ledger(settings).days()]
    materialize(definitions, instance, dg.AssetSelection.groups("logs", "results"), partitions=days)


def _print_counts(replayed: Replayed) -> None:
    console.print(
        f"\n{replayed.requests:,} flights replayed, {replayed.decisions:,} decisions"
        f"\n{replayed.labels:,} flights have a label, {replayed.sent_twice:,} of these labels were sent twice: "
        f"{replayed.accepted:,} accepted, {replayed.duplicate:,} duplicates, {replayed.rejected:,} rejected"
    )


def _print_next(settings: Settings, *, once: bool) -> None:
    if once:
        console.print(
            f"\nThe result again: turnout report {EXPERIMENT.name}. With router and Dagster UI: turnout demo."
        )
        return
    console.print(
        f"\nRouter   {settings.router_url}/schema"
        f"\nDagster  http://127.0.0.1:{DAGSTER_PORT}"
        "\nNotebook jupyter lab analysis/notebooks/01-first-experiment.ipynb"
        f"\nResult   turnout report {EXPERIMENT.name} --html result.html"
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
