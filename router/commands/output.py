"""How commands print: a table for people, JSON for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from router.settings import load

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
url_option = click.option("--url", default=lambda: load().router_url, help="The router's address (TURNOUT_URL).")


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print one row per mapping; all have the same keys."""
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(empty)
    else:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in rows[0]:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*("" if value is None else str(value) for value in row.values()))
        Console().print(table)


def print_json(content: Any) -> None:
    """Print indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())


def read_document(file: Any) -> Any:
    """Return the JSON document of an opened file, or fail naming the file."""
    try:
        return msgspec.json.decode(file.read())
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{file.name} is not JSON: {error}") from error
