"""`turnout key`: the API keys, straight in the ledger, so that the first can be made before a router runs."""

import getpass
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from router.commands.output import json_option, print_json, print_rows
from router.keys import SCOPES, ApiKey, Scope, new_key
from router.ledger.database import upgraded
from router.ledger.keys import KeyTables
from router.settings import load

_LONGEST_NAME = 100


@click.group()
def key() -> None:
    """Make, list and revoke API keys."""


def _checked_name(_: click.Context, __: click.Parameter, name: str) -> str:
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise click.BadParameter(f"needs 1 to {_LONGEST_NAME} printable characters, such as checkout-service")
    return name


def _checked_rate(_: click.Context, __: click.Parameter, rate: float | None) -> float | None:
    if rate is not None and not math.isfinite(rate):
        raise click.BadParameter(f"{rate} is no number of calls per second")
    return rate


@key.command("create")
@click.option(
    "--name", required=True, callback=_checked_name, help="Who will use it; shown in lists and the audit log."
)
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    type=click.Choice(SCOPES),
    help="What it allows, once per scope; admin implies all.",
)
@click.option(
    "--rate", type=click.FloatRange(min=0.001), callback=_checked_rate, help="Calls per second, in each router process."
)
def create_key(name: str, scopes: tuple[Scope, ...], rate: float | None) -> None:
    """Make a key and print it, once: the ledger keeps only its hash."""
    made, text = new_key(name, frozenset(scopes), rate, _now_ms())
    with _tables() as tables:
        is_first = not tables.read_all()
        tables.create(made, actor=_actor())
    click.echo(f"Key {made.id} ({made.name}) allows {_scopes(made)}. This is the only time it is shown:", err=True)
    click.echo(text)
    if is_first:
        click.echo("It is the first: from now on every call needs a key, see TURNOUT_API_KEY.", err=True)


@key.command("list")
@json_option
def list_keys(*, as_json: bool) -> None:
    """List the keys that were ever made, oldest first."""
    with _tables() as tables:
        keys = tables.read_all()
    if as_json:
        print_json([_published(each) for each in keys])
    else:
        empty = "no keys: anybody on the router's machine may call it; make one: turnout key create --name N --scope S"
        print_rows([_row(each) for each in keys], as_json=False, empty=empty)


@key.command("revoke")
@click.argument("key_id", metavar="ID")
def revoke_key(key_id: str) -> None:
    """Revoke a key for good; every router refuses it within a second."""
    with _tables() as tables:
        before = tables.revoke(key_id, _now_ms(), actor=_actor())
    if before.revoked_ms is not None:
        click.echo(f"key {before.id} ({before.name}) was revoked already, at {_time(before.revoked_ms)}")
    else:
        click.echo(f"key {before.id} ({before.name}) is revoked; routers refuse it within a second")


@contextmanager
def _tables() -> Iterator[KeyTables]:
    with upgraded(load().database) as engine:
        yield KeyTables(engine)


def _actor() -> str:
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):
        # In a container the user may have no name.
        return "command line"


def _published(each: ApiKey) -> dict[str, object]:
    return {
        "id": each.id,
        "name": each.name,
        "scopes": sorted(each.scopes),
        "rate_per_s": each.rate_per_s,
        "created_at": _time(each.created_ms),
        "last_used_at": _time(each.last_used_ms),
        "revoked_at": _time(each.revoked_ms),
    }


def _row(each: ApiKey) -> dict[str, object]:
    return {
        "id": each.id,
        "name": each.name,
        "scopes": _scopes(each),
        "rate": each.rate_per_s,
        "last used": _time(each.last_used_ms) or "never",
        "state": "active" if each.revoked_ms is None else "revoked",
    }


def _scopes(each: ApiKey) -> str:
    return ", ".join(sorted(each.scopes))


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds // 1000, UTC).isoformat().replace("+00:00", "Z")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
