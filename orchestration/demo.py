"""`turnout demo`: the whole loop on real flights, from raw data to an honest result."""

import asyncio
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from analysis.commands import report
from models.registry import Registry
from orchestration.definitions import build
from orchestration.endpoints.flight_delay import ENDPOINT, FEATURES, LABEL
from orchestration.lake import Lake, Partition
from orchestration.processes import child
from orchestration.replay import Replayed, Request, replay
from orchestration.staleness import Progress as Made
from orchestration.staleness import materialize, materialize_stale
from router.client import AsyncTurnout, Turnout
from router.settings import Settings, load

EXPERIMENT = "boosting-vs-logistic"
DAGSTER_PORT = 3000

_MONTH = "2013-04-01"
_MONTHS = ("2013-01-01", "2013-02-01", "2013-03-01", _MONTH)
_CONTROL, _TREATMENT = "flight-delay-logistic", "flight-delay-boosting"
_STATE = Path("var")

console = Console(highlight=False)


@click.command()
@click.option("--once", is_flag=True, help="End after the result instead of staying up.")
@click.option("--flights", type=click.IntRange(1), help="Replay only so many of the month's flights.")
def demo(once: bool, flights: int | None) -> None:
    """Run the whole loop on real flights: data, models, live traffic, outcomes, result."""
    settings = load()
    definitions = build(settings)
    with _instance() as instance:
        _make_candidates(definitions, instance)
        with _router(settings), nullcontext() if once else _dagster_ui():
            experiment = _ensure_experiment(settings)
            replayed = _replay(settings, experiment, flights)
            _export(definitions, instance)
            _print_counts(replayed)
            click.get_current_context().invoke(report, name=experiment, source=str(settings.lake))
            _print_next(settings, experiment, once=once)
            if not once:
                threading.Event().wait()


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
    control, treatment = (str(registry.latest(name)) for name in (_CONTROL, _TREATMENT))
    with Turnout(settings.router_url) as router:
        _ensure_endpoint(router, control)
        existing = {each["document"]["name"]: each for each in router.experiments()}
        for name in _names(EXPERIMENT):
            if name not in existing:
                router.create_experiment(_experiment(name, control, treatment))
                router.start(name)
                return name
            found = existing[name]
            models = [arm["model"] for arm in found["document"]["arms"]]
            if found["state"] == "running" and models == [control, treatment]:
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


def _experiment(name: str, control: str, treatment: str) -> dict[str, Any]:
    def score(metric: str, direction: str, role: str) -> dict[str, Any]:
        fields = {"name": metric, "kind": "score", "score": metric, "label": LABEL}
        return {**fields, "direction": direction, "role": role, "window_s": 86_400}

    return {
        "name": name,
        "endpoint": ENDPOINT.name,
        "arms": [{"name": "control", "model": control}, {"name": "boosting", "model": treatment}],
        "allocation": {"kind": "split", "weights": {"control": 0.5, "boosting": 0.5}},
        "metrics": [
            score("brier", "decrease", "primary"),
            score("log_loss", "decrease", "secondary"),
            score("correct", "increase", "secondary"),
        ],
    }


def _replay(settings: Settings, experiment: str, flights: int | None) -> Replayed:
    frame = Lake(settings.lake.resolve()).read(ENDPOINT.replay.table, Partition("month", _MONTH))
    requests = [_request(row) for row in frame.head(flights or len(frame)).to_dict("records")]
    with _bar("replaying flights") as advance:
        sent = 0

        def show(number: int) -> None:
            nonlocal sent
            sent += number
            advance(sent, len(requests), "replaying flights")

        return asyncio.run(_send(settings.router_url, experiment, requests, show))


async def _send(url: str, experiment: str, requests: Sequence[Request], show: Callable[[int], None]) -> Replayed:
    async with AsyncTurnout(url) as client:
        return await replay(client, ENDPOINT.name, requests, label=LABEL, key=experiment, progress=show)


def _request(row: dict[str, Any]) -> Request:
    inputs = {name: None if _missing(row[name]) else row[name] for name in FEATURES}
    return Request(row["flight_id"], inputs, None if _missing(row[LABEL]) else row[LABEL])


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _export(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    """Bring the ledger's days since the experiment began to the lake, then the result."""
    today = datetime.now(UTC).date()
    for day in _days(today - timedelta(days=1), today):
        materialize(definitions, instance, dg.AssetSelection.assets("logged_traffic"), partition=day.isoformat())
    materialize(definitions, instance, dg.AssetSelection.assets("logged_experiments"))
    materialize(definitions, instance, dg.AssetSelection.groups("results"))


def _days(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += timedelta(days=1)


def _print_counts(replayed: Replayed) -> None:
    console.print(
        f"\n{replayed.requests:,} flights replayed, {replayed.decisions:,} decisions; {replayed.labels:,} flights have a "
        f"label, {replayed.sent_twice:,} labels were sent twice: {replayed.accepted:,} accepted, "
        f"{replayed.duplicate:,} duplicates, {replayed.rejected:,} rejected\n"
    )


def _print_next(settings: Settings, experiment: str, *, once: bool) -> None:
    if once:
        console.print(f"\nLook again: turnout report {experiment}; with router and Dagster UI: turnout demo")
        return
    console.print(
        f"\nRouter   {settings.router_url}/schema"
        f"\nDagster  http://127.0.0.1:{DAGSTER_PORT}"
        "\nNotebook jupyter lab analysis/notebooks/01-first-experiment.ipynb"
        f"\nResult   turnout report {experiment} --html result.html"
        "\nCtrl-C ends it; everything is kept in var/."
    )


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    columns = (TextColumn("{task.description:<60}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None)

        def advance(done: int, total: int, description: str) -> None:
            shown = description if len(description) <= 60 else f"{description[:57]}..."
            progress.update(task, completed=done, total=total, description=shown)

        yield advance
