"""`turnout verify-log`: prove the ledger from the ledger."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine, make_url

from router.commands.output import json_option, print_json
from router.decision_id import Signer
from router.errors import CannotStart
from router.ledger.database import HEAD, open_database, revision, shown
from router.settings import load
from router.verification import Failure, Summary, rows_to_check, verify


@click.command("verify-log")
@click.option("--database", metavar="URL", help="The ledger (TURNOUT_DATABASE), such as sqlite:///var/turnout.db.")
@click.option("--experiment", metavar="NAME", help="Check the rows of one experiment only.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=1000, show_default=True, help="Failures to print; 0 prints all."
)
@json_option
def verify_log(database: str | None, experiment: str | None, limit: int, *, as_json: bool) -> None:
    """Re-derive every decision from its signed id and epoch, and every statistic from the outcomes.

    Prints one line per failure; the exit status is 0 only if there is none. It reads one moment of the ledger, writes
    nothing, and may run beside a router.
    """
    console, failures = Console(), list[Failure]()

    def report(failure: Failure) -> None:
        if limit and len(failures) == limit:
            return
        failures.append(failure)
        if not as_json:
            console.out(failure, highlight=False)

    with _ledger(database) as (engine, signer):
        bar = _bar(console, hidden=as_json or not console.is_terminal)
        with bar:
            task = bar.add_task("verifying", total=None if bar.disable else rows_to_check(engine))
            summary = verify(
                engine, signer, experiment=experiment, report=report, progress=lambda rows: bar.advance(task, rows)
            )
    if as_json:
        print_json(_content(summary, failures))
    else:
        _print(console, summary, len(failures))
    if summary.failures:
        raise SystemExit(1)


@contextmanager
def _ledger(database: str | None) -> Iterator[tuple[Engine, Signer]]:
    """Open the ledger as it is: neither database nor secret is made, and nothing is upgraded."""
    settings = load({**os.environ, **({} if database is None else {"TURNOUT_DATABASE": database})})
    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise CannotStart(f"there is no ledger at {shown(url)}; name it with --database or TURNOUT_DATABASE")
    signer = Signer(settings.secrets(make=False))
    engine = open_database(settings.database)
    try:
        if (current := revision(engine)) != HEAD:
            raise CannotStart(
                f"the ledger {shown(url)} is at revision {current or 'none'}, but this command reads {HEAD}: "
                "run turnout db upgrade"
            )
        yield engine, signer
    finally:
        engine.dispose()


def _bar(console: Console, *, hidden: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=hidden)


def _content(summary: Summary, failures: list[Failure]) -> dict[str, Any]:
    return {
        "failures": summary.failures,
        "shown": [failure._asdict() for failure in failures],
        "checked": summary.checked,
        "waiting": summary.waiting,
        "out_of_range": summary.out_of_range,
        "unlike_first": summary.unlike_first,
        "older": summary.older,
        "partial": summary.partial,
        "seconds": round(summary.seconds, 3),
    }


def _print(console: Console, summary: Summary, printed: int) -> None:
    lines = []
    if printed < summary.failures:
        lines.append(f"... and {summary.failures - printed:,} more; --limit 0 prints all")
    checked = ", ".join(f"{rows:,} {table}" for table, rows in sorted(summary.checked.items()))
    lines.append(f"checked in {summary.seconds:.1f} s: {checked or 'nothing'}")
    for note, number in {
        "outcomes that wait for their decision, which another router has yet to hand in": summary.waiting,
        "outcomes that came early, for an item that their decision lacks or did not show": summary.out_of_range,
        "sticky decisions made while their unit's first assignment could not be read": summary.unlike_first,
        "statistics of decisions older than any that the ledger still has, which cannot be rebuilt": summary.older,
        "evidence of experiments whose first decisions it lacks, which cannot be rebuilt": summary.partial,
    }.items():
        if number:
            lines.append(f"{note}: {number:,}")
    lines.append(f"failures: {summary.failures:,}" if summary.failures else "failures: none, every row follows")
    for line in lines:
        console.out(line, highlight=False)
