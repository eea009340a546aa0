"""`turnout new`: a file that declares an endpoint of one's own."""

from pathlib import Path
from typing import Any

import click

from orchestration.errors import OrchestrationError
from orchestration.scaffolding.new import Written, file_of, write_endpoint
from orchestration.scaffolding.origin import Origin, from_files, from_query, from_sample
from orchestration.scaffolding.sample import LABEL
from router.commands.output import json_option, print_json


@click.group()
def new() -> None:
    """Begin something of your own."""


@new.command("endpoint")
@click.argument("name")
@click.option("--from", "path", type=click.Path(path_type=Path), help="A folder of CSV or Parquet files, or one file.")
@click.option("--sql", "url", help="A database, as SQLAlchemy writes it: sqlite:///shop.db, postgresql+psycopg://..")
@click.option("--query", type=click.Path(path_type=Path), help="File with the SQL query that gives the rows.")
@click.option("--label", help="Column to predict: 0 and 1, yes and no, or true and false.")
@click.option("--time", help="Column that says when a row was; by default the first time without gaps.")
@json_option
def new_endpoint(
    name: str,
    path: Path | None,
    url: str | None,
    query: Path | None,
    label: str | None,
    time: str | None,
    as_json: bool,
) -> None:
    """Write orchestration/endpoints/NAME.py, which declares the endpoint NAME.

    Its columns and types come from rows of yours, or without --from and --sql from a sample in the file.
    """
    try:
        file_of(name)
        origin, found_label = _origin(path, url, query, label)
        written = write_endpoint(name, origin, found_label, time)
    except OrchestrationError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json(_described(written))
    else:
        _print_written(written)


def _origin(path: Path | None, url: str | None, query: Path | None, label: str | None) -> tuple[Origin, str]:
    """What was given, and the label."""
    if path is not None and (url or query):
        raise click.UsageError("--from and --sql exclude each other: rows come from one source")
    if (url is None) != (query is None):
        raise click.UsageError("--sql and --query belong together: an address, and a file with the query")
    if path is None and url is None and label is not None:
        raise click.UsageError("--label says what to predict of --from or --sql; the sample has its own")
    if path is None and url is None:
        return from_sample(), LABEL
    if label is None:
        raise click.UsageError("--label is missing: the column to predict")
    if path is not None:
        return from_files(path), label
    return from_query(str(url), query or Path()), label


def _described(written: Written) -> dict[str, Any]:
    columns = written.columns
    return {
        "endpoint": written.endpoint,
        "file": str(written.file),
        "label": columns.label.name,
        "rows": columns.rows,
        "rate": round(columns.rate, 4),
        "features": [feature.name for feature in columns.features],
        "row_key": columns.row_key.name if columns.row_key else None,
        "time": columns.time.name if columns.time else None,
        "every": written.partitioning.every if written.partitioning else None,
        "left_out": columns.left_out,
    }


def _print_written(written: Written) -> None:
    columns, every = written.columns, written.partitioning.every if written.partitioning else None
    lines = {
        "written": _from_here(written.file),
        "label": f"{columns.label.name}, 1 in {columns.rate:.1%} of {columns.rows:,} rows",
        "features": ", ".join(feature.name for feature in columns.features),
        "row key": columns.row_key.name if columns.row_key else "made from the rows",
        "time": f"{columns.time.name}{f', read by {every}' if every else ''}" if columns.time else "none",
        "left out": ", ".join(f"{name} ({why})" for name, why in columns.left_out.items()) or "nothing",
    }
    for what, value in lines.items():
        click.echo(f"{what:<9} {value}")
    click.echo(f"next: read the file, then: turnout materialize {written.endpoint}")


def _from_here(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
