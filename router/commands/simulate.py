"""`turnout simulate`: rehearse an experiment before it runs."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import click
import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from router.commands.output import json_option, print_json, read_document
from router.commands.simulation_ledger import logged_values, stored_experiment
from router.commands.simulation_rows import Row, heading, tables
from router.simulation.logged import read_csv
from router.simulation.plans import LONGEST_DAYS, Rehearsal, read_plan
from router.simulation.rehearsing import Effort, Option, Rehearsed, options, rehearse
from router.simulation.settings import Rule, prepare
from router.simulation.steps import update_minutes
from router.simulation.traffic import MINUTES_PER_DAY
from router.simulation.values import AnyValues

_WIDTH = 240
"""Of what is not printed to a terminal: wide enough for any table."""

_page_option = click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a page with charts to this file.",
)
_picture_option = click.option(
    "--png", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Also write the charts as a picture."
)


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--days",
    type=click.FloatRange(0, LONGEST_DAYS, min_open=True),
    default=14,
    show_default=True,
    help="How long the experiment runs.",
)
@click.option("--runs", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Repetitions.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Equal seeds give equal results.")
@click.option(
    "--against",
    type=click.Choice(["split", "thompson", "top-two"]),
    multiple=True,
    help="Also play this allocation, with its defaults; may be repeated.",
)
@click.option("--aa", is_flag=True, help="Also play a world where every arm is like the control, for false calls.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Chance of a wrong finding that a split's test accepts.",
)
@click.option("--step", type=click.IntRange(1), metavar="MINUTES", help="The same time between all updates.")
@click.option("--processes", type=click.IntRange(1), help="At once; unless said, as many as there are processors.")
@_page_option
@_picture_option
@json_option
def simulate(
    file: IO[bytes],
    days: float,
    runs: int,
    seed: int,
    against: tuple[Rule, ...],
    alpha: float,
    step: int | None,
    processes: int | None,
    page: Path | None,
    picture: Path | None,
    *,
    aa: bool,
    as_json: bool,
) -> None:
    """Rehearse the experiment of FILE in the world that it describes (- for standard input).

    FILE is {"experiment": .., "world": ..}: an experiment as the API takes it, or the name of one in the ledger, and
    what its arms are really like, how many requests come, and when outcomes do. Tables are made by the router's code.
    """
    for path in (page, picture):
        _check_folder(path)
    rehearsal = read_plan(read_document(file), stored_experiment)
    _check_time(rehearsal, days, step)
    setting = prepare(rehearsal, days, logged=_logged(rehearsal, Path(file.name).parent), step=step)
    compared = options(setting, against)
    effort = Effort(runs, seed, min(processes or os.cpu_count() or 1, runs))
    result = _with_progress(compared, effort, alpha, aa=aa, hidden=as_json)
    if as_json:
        print_json(result)
    else:
        _print(result)
    _draw(result, page, picture)


def _check_folder(path: Path | None) -> None:
    """Refuse before anything is played what could not be written afterwards."""
    if path is not None and not path.parent.is_dir():
        raise click.ClickException(f"{path} cannot be written: {path.parent} is no folder; choose another file")


def _check_time(rehearsal: Rehearsal, days: float, step: int | None) -> None:
    if not math.isfinite(days):
        raise click.BadParameter(f"{days} is not finite; give a number of days", param_hint="--days")
    if step is None:
        return
    least, most = update_minutes(rehearsal.experiment), round(days * MINUTES_PER_DAY)
    if step < least:
        raise click.BadParameter(
            f"{step} is shorter than the experiment's own update_every_s, {least} minutes; give at least that",
            param_hint="--step",
        )
    if step > most:
        raise click.BadParameter(
            f"{step} is longer than the rehearsal, {most} minutes; give less, or more --days", param_hint="--step"
        )


def _logged(rehearsal: Rehearsal, folder: Path) -> Mapping[str, AnyValues] | None:
    logged, metric = rehearsal.world.logged, rehearsal.metric
    if logged is None:
        return None
    if logged.csv is not None:
        return read_csv(folder / logged.csv, metric, rehearsal.live)
    return logged_values(logged.experiment or "", metric, rehearsal.live)


def _with_progress(compared: Sequence[Option], effort: Effort, alpha: float, *, aa: bool, hidden: bool) -> Rehearsed:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=hidden or not console.is_terminal) as bar:
        task = bar.add_task("rehearsing", total=(1 + aa) * len(compared) * effort.runs)
        return rehearse(compared, effort, alpha=alpha, aa=aa, progress=lambda: bar.advance(task))


def _print(result: Rehearsed) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for line in heading(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for title, names, lines in tables(result):
        console.print(_table(title, names, lines))
    for note in result.notes:
        console.print(f"- {note}", style="dim", highlight=False, markup=False, soft_wrap=True)


def _table(title: str, names: Sequence[str], lines: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(title)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for line in lines:
        table.add_row(line.label, *line.cells)
    return table


def _draw(result: Rehearsed, page: Path | None, picture: Path | None) -> None:
    if page is None and picture is None:
        return
    try:
        from analysis.simulation_charts import page_of, picture_of
    except ModuleNotFoundError as error:
        raise click.ClickException(f"--html and --png need pip install 'turnout[analysis]' ({error})") from error
    content = msgspec.to_builtins(result)
    if page is not None:
        _write(page, page_of(content, heading(result), tables(result)).encode())
    if picture is not None:
        _write(picture, picture_of(content))


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}; choose another file") from error
    click.echo(f"written to {path}", err=True)
