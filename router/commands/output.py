"""How commands print: a table for people, JSON for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from router.settings import load

_WRAPPED_WIDTH = 12
"""How narrow, in characters, a column may get so that the others need not wrap."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
url_option = click.option("--url", default=lambda: load().router_url, help="The router's address (TURNOUT_URL).")


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print one row per mapping; all have the same keys."""
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(empty)
    else:
        _print_table([["" if value is None else str(value) for value in row.values()] for row in rows], list(rows[0]))


def _print_table(rows: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    """Print a table; on a narrow terminal its widest column wraps, and others only if that is not enough."""
    console = Console()
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    widest = widths.index(max(widths))
    pieces = sum(widths) - widths[widest] + len(widths) + _WRAPPED_WIDTH <= console.width
    table = Table(box=None, header_style="bold", pad_edge=False)
    for position, name in enumerate(names):
        table.add_column(name, overflow="fold", no_wrap=position == 0 or (pieces and position != widest))
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_json(content: Any) -> None:
    """Print indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())


def read_document(file: Any) -> Any:
    """Return the JSON document of an opened file, or fail naming the file."""
    try:
        return msgspec.json.decode(file.read())
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{file.name} is not JSON: {error}") from error
