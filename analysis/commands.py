"""`turnout report`: an experiment's result in the terminal, as JSON, or as a page."""

from pathlib import Path
from typing import Any

import click
import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Printed

from analysis.certificate import Certificate
from analysis.errors import AnalysisError
from analysis.hindsight import Hindsight
from analysis.rendering import HEADINGS
from analysis.report import Report, load
from analysis.tables import INTERVAL, TEXTS, Table, tables

_VERDICT_STYLES = {"better": "bold green", "worse": "bold red", "insufficient": "yellow"}
_DECISION_STYLES = {"advance": "bold green", "rollback": "bold red", "insufficient": "bold yellow"}


@click.command()
@click.argument("name")
@click.option(
    "--source",
    help="Ledger (sqlite:///PATH, postgresql://..), lake folder, or spark:FOLDER to read that with Spark; default: "
    "exported logs if they have NAME, else the ledger.",
)
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Also write a page to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--alpha", default=0.05, show_default=True, help="Chance of a wrong finding that you accept per metric.")
@click.option("--certify", is_flag=True, help="Also replay the experiment to see how often this report would be wrong.")
def report(name: str, source: str | None, page: Path | None, as_json: bool, alpha: float, certify: bool) -> None:
    """Print the result of experiment NAME: which arm is better, and how sure that is."""
    try:
        loaded = load(name, source, alpha=alpha)
        certificate = _certificate(loaded) if certify else None
        if as_json:
            more = {} if certificate is None else {"certificate": certificate.document()}
            click.echo(msgspec.json.format(msgspec.json.encode(document(loaded) | more)).decode())
        else:
            _print(loaded)
            if certificate is not None:
                Console().print(f"certificate: {certificate.summary}", highlight=False, markup=False)
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
        **_more(loaded),
    }


def _more(loaded: Report) -> dict[str, Any]:
    """What only some experiments have."""
    names = [metric.name for metric in loaded.experiment.metrics]
    more: dict[str, Any] = {}
    if loaded.experiment.is_interleaved:
        more["pairs"] = [{"metric": name, **pair._asdict()} for name in names for pair in loaded.pairs(name)]
    if loaded.experiment.is_adaptive:
        more["hindsight"] = {name: _plain(loaded.hindsight(name)) for name in names}
    if not (shadows := loaded.shadow()).empty:
        more["shadows"] = shadows.to_dict("records")
    return more


def _plain(found: Hindsight) -> dict[str, Any]:
    return {**found._asdict(), "arms": [arm._asdict() for arm in found.arms]}


def _certificate(loaded: Report) -> Certificate:
    with Console(stderr=True).status("replaying the experiment"):
        return loaded.certificate()


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
    for table in tables(loaded):
        console.print(printed(table), "")
    console.print(f"[{_DECISION_STYLES[verdict.decision]}]{verdict.decision}[/]: {verdict.arm}", highlight=False)
    for reason in verdict.reasons:
        console.print(f"  {reason}", highlight=False, markup=False)
    for note in (*loaded.notes, f"read from {loaded.source}"):
        console.print(f"- {note}", style="dim", highlight=False, markup=False)


def printed(table: Table) -> Printed:
    """Return the table as a terminal shows it, which has little room: none for p-values beside intervals."""
    in_two_lines = {heading for heading in table.headings if heading.endswith(INTERVAL)} - {HEADINGS.change}
    between = 0 if in_two_lines else 1
    shown = Printed(box=box.SIMPLE_HEAD, padding=(0, between, 0, 0), pad_edge=False, show_edge=False)
    kept = [place for place, heading in enumerate(table.headings) if heading != HEADINGS.p_value]
    for heading in (table.headings[place] for place in kept):
        is_text = heading in TEXTS
        shown.add_column(
            _in_two_lines(heading) if heading in in_two_lines else heading,
            justify="left" if is_text else "right",
            no_wrap=heading == HEADINGS.verdict or not is_text,
            overflow="fold",
        )
    for row in table.rows:
        texts = (_in_two_lines(row[place]) if table.headings[place] in in_two_lines else row[place] for place in kept)
        shown.add_row(*map(escape, texts), style=_VERDICT_STYLES.get(table.verdict(row)))
    return shown


def _in_two_lines(value_and_interval: str) -> str:
    return value_and_interval.replace(" (", "\n(")


def _write_page(loaded: Report, path: Path) -> None:
    from analysis.html import page

    path.write_text(page(loaded), encoding="utf-8")
    click.echo(f"page written to {path}", err=True)
