"""The tables of docs/scaling.md, in Markdown, from what `bench.cost` measured."""

import os
import platform
import time
from collections.abc import Iterator, Mapping

from bench.fleet import ECHO, Cost, Fleet, Model, Part, Setup, needs
from bench.outcomes import Posted

SHARED = "postgresql"
_DAYS_OF_A_MONTH = 30


def report(
    middle: Mapping[Setup, Cost], models: Mapping[str, Model], posted: Mapping[str, Posted], fleet: Fleet, turns: int
) -> str:
    """Return all tables: what was measured, the model fitted to it, outcomes, and what the fleet needs."""
    lines = (*_measured(middle, turns), *_model(models), *_outcomes(posted), *_fleet(models[SHARED], posted, fleet))
    return "\n".join(lines)


def _measured(middle: Mapping[Setup, Cost], turns: int) -> Iterator[str]:
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    yield f"Measured on {machine}, {time.strftime('%Y-%m-%d')}, medians of {turns} turns. One decision:"
    yield ""
    yield from _head(
        "ledger",
        "connections",
        "decisions/s",
        "rows per commit",
        "commit",
        "router, user",
        "router, system",
        "of echo",
        "database",
        "log",
        "tables",
    )
    for setup, cost in middle.items():
        ratio = cost.router_us / middle[setup._replace(name=ECHO)].router_us
        stored = [
            f"{cost.rows_per_commit:.1f}",
            f"{cost.commit_s * 1000:.1f} ms",
            f"{cost.user_us:.0f} µs",
            f"{cost.system_us:.0f} µs",
            f"{ratio:.1f}",
            f"{cost.database_us:.0f} µs",
            f"{cost.log_bytes:,.0f} B",
            f"{cost.table_bytes:,.0f} B",
        ]
        if setup.name == ECHO:
            stored[:2], stored[5:] = ["", ""], ["", "", ""]
        yield _row(setup.name, f"{setup.connections}", f"{cost.requests_per_second:,.0f}", *stored)
    yield ""


def _model(models: Mapping[str, Model]) -> Iterator[str]:
    yield "The model, fitted to these rows by relative error:"
    yield ""
    yield from _head("", *(f"{name}, {part}" for name in models for part in ("per decision", "per commit")))
    for label, field, scale, unit in (
        ("router", "router_us", 1.0, "µs"),
        ("database", "database_us", 1.0, "µs"),
        ("time until it is on disk", "commit_s", 1e6, "µs"),
        ("log", "log_bytes", 1.0, "B"),
    ):
        parts: list[Part] = [getattr(model, field) for model in models.values()]
        yield _row(label, *(f"{value * scale:,.0f} {unit}" for part in parts for value in part))
    yield _row("tables", *(text for model in models.values() for text in (f"{model.table_bytes:,.0f} B", "")))
    yield ""


def _outcomes(posted: Mapping[str, Posted]) -> Iterator[str]:
    yield "Outcomes, one for each decision, in lists of 100:"
    yield ""
    yield from _head("ledger", "rows/s", "router", "database")
    for name, each in posted.items():
        database = "" if name == ECHO else f"{each.database_us_per_row:.0f} µs"
        yield _row(name, f"{each.rows_per_second:,.0f}", f"{each.server_us_per_row:.0f} µs", database)
    yield ""


def _fleet(model: Model, posted: Mapping[str, Posted], fleet: Fleet) -> Iterator[str]:
    yield f"{fleet.per_day:,.0f} decisions a day, {fleet.replicas} replicas, one PostgreSQL:"
    yield ""
    yield from _head("", "on average", f"at {fleet.peak:g} times the average")
    columns = [needs(model, fleet, fleet.mean_rate * factor) for factor in (1.0, fleet.peak)]
    for label, text in _LINES.items():
        yield _row(label, *(text.format(each=each, used=each.router_cores / fleet.replicas) for each in columns))
    stored = fleet.per_day * model.table_bytes / 1e9
    month = stored * _DAYS_OF_A_MONTH / 1000
    yield _row("tables grow", f"{stored:,.0f} GB a day", f"{month:,.1f} TB in a partition of {_DAYS_OF_A_MONTH} days")
    outcomes = posted[SHARED].rows_per_second
    rates = (f"{outcomes / each.rate:.2f} for each decision" for each in columns)
    yield _row("outcomes that can be recorded", *rates)


_LINES = {
    "decisions/s": "{each.rate:,.0f}",
    "of each replica": "{each.rate_of_replica:,.0f}",
    "rows per commit": "{each.rows_per_commit:.1f}",
    "commits/s": "{each.commits_per_s:,.0f}",
    "cores of routers": "{each.router_cores:,.1f}, each replica {used:.0%} of one",
    "cores of the database": "{each.database_cores:,.1f}",
    "log": "{each.log_mb_per_s:,.0f} MB/s",
}


def _head(*columns: str) -> Iterator[str]:
    yield _row(*columns)
    yield f"|{'---|' * len(columns)}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
