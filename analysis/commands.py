"""`turnout report`: an experiment's result in the terminal, as JSON, or as a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.errors import AnalysisError
from analysis.rendering import HEADINGS, NUMERIC, Line, line
from analysis.report import Report, load

_VERDICT_STYLES = {"better": "bold green", "worse": "bold red", "insufficient": "yellow"}
_DECISION_STYLES = {"advance": "bold green", "rollback": "bold red", "insufficient": "bold yellow"}
_TRAFFIC_FIELDS = ("arm", "model", "units", "decisions")
_METRIC_FIELDS = ("metric", "arm", "observations", "mean", "change", "verdict")


@click.command()
@click.argument("name")
@click.option(
    "--source", help="Ledger (sqlite:///PATH, postgresql://..) or lake folder; default: exported logs, else the ledger."
)
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Also write a page to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--alpha", default=0.05, show_default=True, help="Chance of a wrong finding that you accept per metric.")
def report(name: str, source: str | None, page: Path | None, as_json: bool, alpha: float) -> None:
    """Print the result of experiment NAME: which arm is better, and how sure that is."""
    try:
        loaded = load(name, source, alpha=alpha)
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(document(loaded))).decode())
        else:
            _print(loaded)
        if page is not None:
            _write_page(loaded, page)
    except AnalysisError as error:
        _refuse(type(error).__name__, str(error), as_json)
    except OSError as error:
        _refuse(type(error).__name__, f"{page} cannot be written: {error.strerror}; choose another file", as_json)


def document(loaded: Report) -> dict[str, Any]:
    """Return the report as plain values; numbers that are unknown are nan, which JSON shows as null."""
    return {
        "experiment": loaded.experiment.name,
        "endpoint": loaded.experiment.endpoint,
        "state": loaded.experiment.state,
        "source": loaded.source,
        "as_of_ms": loaded.now_ms,
        "alpha": loaded.alpha,
        "verdict": loaded.verdict()._asdict(),
        "sample_ratio": {**loaded.srm()._asdict(), "mismatch": loaded.srm().mismatch},
        "notes": loaded.notes,
        "results": [row._asdict() for row in loaded.results],
    }


def _refuse(kind: str, message: str, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({"error": kind, "message": message}).decode())
    else:
        Console(stderr=True).print(f"[bold red]error:[/] {message}", soft_wrap=True)
    raise SystemExit(1)


def _print(loaded: Report) -> None:
    console = Console()
    verdict = loaded.verdict()
    console.print(f"[bold]{loaded.experiment.name}[/] on endpoint {loaded.experiment.endpoint}", highlight=False)
    rows = [(line(row), _VERDICT_STYLES.get(row.verdict)) for row in loaded.results]
    console.print(_table(rows[: len(loaded.experiment.arms)], _TRAFFIC_FIELDS))
    console.print(_table(rows, _METRIC_FIELDS))
    console.print(f"[{_DECISION_STYLES[verdict.decision]}]{verdict.decision}[/]: {verdict.arm}", highlight=False)
    for reason in verdict.reasons:
        console.print(f"  {reason}", highlight=False, markup=False)
    for note in (*loaded.notes, f"read from {loaded.source}"):
        console.print(f"- {note}", style="dim", highlight=False, markup=False)


def _table(rows: Sequence[tuple[Line, str | None]], fields: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for field in fields:
        table.add_column(
            getattr(HEADINGS, field),
            justify="right" if field in NUMERIC else "left",
            no_wrap=field in NUMERIC or field == "verdict",
            overflow="fold",
        )
    for texts, style in rows:
        table.add_row(*(getattr(texts, field) for field in fields), style=style if "verdict" in fields else None)
    return table


def _write_page(loaded: Report, path: Path) -> None:
    from analysis.html import page

    path.write_text(page(loaded), encoding="utf-8")
    click.echo(f"page written to {path}", err=True)
