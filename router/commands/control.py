"""`turnout endpoint`, `experiment` and `audit`: the control calls of a running router."""

from collections.abc import Callable
from typing import IO, Any

import click

from router.client import Turnout
from router.commands.output import json_option, print_json, print_rows, read_document, url_option
from router.settings import load


@click.group()
def endpoint() -> None:
    """Create and look at endpoints."""


@endpoint.command("create")
@click.argument("file", type=click.File("rb"))
@url_option
def create_endpoint(file: IO[bytes], url: str) -> None:
    """Create an endpoint from a JSON document (- for standard input)."""
    with connect(url) as router:
        print_json(router.create_endpoint(read_document(file)))


@endpoint.command("list")
@url_option
@json_option
def list_endpoints(url: str, *, as_json: bool) -> None:
    """List the endpoints."""
    with connect(url) as router:
        found = router.endpoints()
    if as_json:
        print_json([{**each["document"], "revision": each["revision"]} for each in found])
    else:
        rows = [_endpoint_summary(each) for each in found]
        print_rows(rows, as_json=False, empty="no endpoints yet; create one: turnout endpoint create FILE")


@endpoint.command("show")
@click.argument("name")
@url_option
def show_endpoint(name: str, url: str) -> None:
    """Print one endpoint as JSON."""
    with connect(url) as router:
        print_json(router.endpoint(name))


@click.group()
def experiment() -> None:
    """Create, look at and move experiments."""


@experiment.command("create")
@click.argument("file", type=click.File("rb"))
@url_option
def create_experiment(file: IO[bytes], url: str) -> None:
    """Create an experiment, as a draft, from a JSON document (- for standard input)."""
    with connect(url) as router:
        print_json(router.create_experiment(read_document(file)))


@experiment.command("list")
@url_option
@json_option
def list_experiments(url: str, *, as_json: bool) -> None:
    """List the experiments in the order in which they may take a unit."""
    with connect(url) as router:
        rows = [_experiment_summary(each, router) for each in router.experiments()]
    if not as_json:
        rows = [{name: value for name, value in row.items() if name not in ("epoch", "revision")} for row in rows]
    print_rows(rows, as_json=as_json, empty="no experiments yet; create one: turnout experiment create FILE")


@experiment.command("show")
@click.argument("name")
@url_option
def show_experiment(name: str, url: str) -> None:
    """Print one experiment as JSON."""
    with connect(url) as router:
        print_json(router.experiment(name))


def _moving(verb: str, description: str) -> None:
    @experiment.command(verb, help=description)
    @click.argument("name")
    @click.option("--revision", type=int, help="Refuse if somebody changed the experiment since this revision.")
    @url_option
    def move(name: str, revision: int | None, url: str) -> None:
        with connect(url) as router:
            call: Callable[..., Any] = getattr(router, verb)
            moved = call(name, revision)
        click.echo(f"{name} is {moved['state']} (revision {moved['revision']}, epoch {moved['epoch']})")


_moving("start", "Start a draft: it takes units from now on.")
_moving("pause", "Stop taking units; the champion serves them.")
_moving("resume", "Take units again; every unit gets the arm that it had.")
_moving("conclude", "End an experiment for good; late outcomes still count.")


@experiment.command("rollback")
@click.argument("name")
@click.option("--revision", type=int, help="Refuse if somebody changed the experiment since this revision.")
@url_option
def roll_back_experiment(name: str, revision: int | None, url: str) -> None:
    """End an experiment so that the champion serves everybody; with it ends the rollout that runs it."""
    with connect(url) as router:
        moved = router.roll_back(name, revision)
    click.echo(f"{name} is {moved['state']} (revision {moved['revision']})")


@experiment.command("verdict")
@click.argument("name")
@click.option("--arm", help="Which arm to judge beside the control, where there are several.")
@url_option
@json_option
def show_verdict(name: str, arm: str | None, url: str, *, as_json: bool) -> None:
    """Print whether an arm shall advance, be rolled back, or neither yet, and why."""
    with connect(url) as router:
        found = router.verdict(name, arm)
    if as_json:
        print_json(found)
        return
    print_verdict(found)


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many entries.")
@click.option("--before", type=int, metavar="ID", help="Only entries with a lower id.")
@url_option
@json_option
def audit(limit: int, before: int | None, url: str, *, as_json: bool) -> None:
    """List who changed what, newest first; --json has the documents before and after."""
    with connect(url) as router:
        entries = router.audit(limit, before)
    names = ("actor", "action", "subject")
    rows = [{"id": each["id"], "at": f"{each['at'][:19]}Z", **{name: each[name] for name in names}} for each in entries]
    print_rows(entries if as_json else rows, as_json=as_json, empty="nothing was changed yet")


def print_verdict(found: dict[str, Any]) -> None:
    """Print a verdict and its reasons, one a line."""
    click.echo(found["verdict"])
    for reason in found["reasons"]:
        click.echo(f"- {reason}")


def connect(url: str) -> Turnout:
    """Return a client with the key of these settings."""
    return Turnout(url, api_key=load().api_key)


def _endpoint_summary(view: dict[str, Any]) -> dict[str, Any]:
    document = view["document"]
    return {
        "name": document["name"],
        "kind": document["kind"],
        "champion": document["champion"],
        "shadows": ", ".join(document["shadows"]),
        "revision": view["revision"],
    }


def _experiment_summary(view: dict[str, Any], router: Turnout) -> dict[str, Any]:
    document = view["document"]
    return {
        "name": document["name"],
        "endpoint": document["endpoint"],
        "state": view["state"],
        "kind": document["allocation"]["kind"],
        "arms": ", ".join(_shares(view, router)),
        "traffic": f"{document['traffic']:.2%}",
        "epoch": view["epoch"],
        "revision": view["revision"],
    }


def _shares(view: dict[str, Any], router: Turnout) -> list[str]:
    """Return the arms with their shares, where there are any: not by context, of mixed lists, or before the start."""
    document = view["document"]
    names = [arm["name"] for arm in document["arms"]]
    if document["allocation"]["kind"] not in ("split", "thompson") or view["epoch"] is None:
        return names
    (newest,) = router.allocation(document["name"], limit=1)
    return [f"{name} {share:.2%}" for name, share in newest["probabilities"].items()]
