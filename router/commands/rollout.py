"""`turnout rollout`: candidates on their way to champion, and back."""

from typing import IO, Any

import click

from router.commands.control import connect, print_verdict
from router.commands.output import json_option, print_json, print_rows, read_document, url_option


@click.group()
def rollout() -> None:
    """Create, look at and move rollouts."""


@rollout.command("create")
@click.argument("file", type=click.File("rb"))
@url_option
def create_rollout(file: IO[bytes], url: str) -> None:
    """Create a rollout from a JSON document (- for standard input)."""
    with connect(url) as router:
        print_json(router.create_rollout(read_document(file)))


@rollout.command("list")
@url_option
@json_option
def list_rollouts(url: str, *, as_json: bool) -> None:
    """List the rollouts, oldest first."""
    with connect(url) as router:
        found = router.rollouts()
    if as_json:
        print_json(found)
        return
    print_rows([_summary(each) for each in found], as_json=False, empty="no rollouts yet: turnout rollout create FILE")


@rollout.command("show")
@click.argument("name")
@url_option
@json_option
def show_rollout(name: str, url: str, *, as_json: bool) -> None:
    """Print where a rollout is, every step that it has taken and why, and what is still to be shown."""
    with connect(url) as router:
        found = router.rollout(name)
        verdict = router.rollout_verdict(name)
    if as_json:
        print_json({**found, "verdict": verdict})
        return
    stages = len(found["document"]["stages"])
    click.echo(f"{name} is {found['state']} in stage {found['stage'] + 1} of {stages}, {found['stage_kind']}")
    for step in found["transitions"]:
        click.echo(f"{step['at'][:19]}Z {step['action']:<9} {step['actor']}: {step['reason'] or 'created'}")
    if found["state"] in ("running", "held"):
        print_verdict(verdict)


def _moving(verb: str, description: str) -> None:
    @rollout.command(verb, help=description)
    @click.argument("name")
    @click.option("--revision", type=int, help="Refuse if the rollout has changed since this revision.")
    @url_option
    def move(name: str, revision: int | None, url: str) -> None:
        with connect(url) as router:
            moved = router.move_rollout(name, verb, revision)
        click.echo(f"{name} is {moved['state']} in stage {moved['stage'] + 1}, {moved['stage_kind']}")


_moving("hold", "Stay in this stage; a breached guardrail still ends it.")
_moving("resume", "Go on after a hold.")
_moving("advance", "Enter the next stage whatever the evidence says.")
_moving("rollback", "Take the candidate out at once; the champion of before serves again.")


def _summary(view: dict[str, Any]) -> dict[str, Any]:
    document = view["document"]
    return {
        "name": document["name"],
        "endpoint": document["endpoint"],
        "candidate": document["candidate"],
        "champion": view["champion"] or "",
        "state": view["state"],
        "stage": f"{view['stage'] + 1} of {len(document['stages'])}, {view['stage_kind']}",
    }
