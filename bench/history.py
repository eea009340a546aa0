"""Fills a ledger with decisions of the past, as fast as its database takes them."""

import itertools
import sqlite3
from collections.abc import Iterator

import psycopg
from rich.console import Console
from rich.progress import track
from sqlalchemy import make_url

from router.decision_id import DecisionId, Signer
from router.ledger import schema
from router.ledger.records import DecisionRow
from router.service import system_clock

SPAN_MS = 86_400_000
"""The decisions are spread over the last day, so that most are where new ones go: in the partition of this month."""

_CHUNK = 50_000
_SIGNER = Signer(["the secret of a benchmark"])
_SHARES = (0.5, 0.3, 0.2)
_INPUTS = '[{"distance":1400.0,"carrier":"UA","hour":17,"wind":12.5,"plane_age":null}]'
_COLUMNS = ", ".join(schema.decisions.columns.keys())


def fill(url: str, rows: int) -> None:
    """Add so many decisions of experiment 1 to a ledger that no router is using; they are in no statistics."""
    chunks = range(0, rows, _CHUNK)
    decisions = _decisions(rows)
    for start in track(chunks, description=f"writing {rows:,} rows", console=Console(stderr=True)):
        _insert(url, itertools.islice(decisions, min(_CHUNK, rows - start)))


def _decisions(rows: int) -> Iterator[DecisionRow]:
    """Yield decisions in order of time, with ids as the router signs them."""
    began_ms = system_clock() - SPAN_MS
    for index in range(rows):
        at_ms, arm = began_ms + index * SPAN_MS // rows, index % len(_SHARES)
        id_ = _SIGNER.sign(DecisionId(at_ms, 1, 1, arm, round(_SHARES[arm] * 10_000), index.to_bytes(8)))
        model = f"flight-delay-{arm}@1"
        yield DecisionRow(
            id_,
            at_ms,
            "tumour",
            1,
            1,
            arm,
            _SHARES[arm],
            f"unit-{index}",
            model,
            model,
            None,
            None,
            _INPUTS,
            "[0.25]",
            latency_ms=0.02,
        )


def _insert(url: str, rows: Iterator[DecisionRow]) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        marks = ", ".join("?" * len(schema.decisions.columns))
        with sqlite3.connect(str(parsed.database)) as file:
            file.executemany(f"insert into decisions ({_COLUMNS}) values ({marks})", rows)  # noqa: S608
        file.close()
        return
    with (
        psycopg.connect(parsed.set(drivername="postgresql").render_as_string(hide_password=False)) as connection,
        connection.cursor().copy(f"copy decisions ({_COLUMNS}) from stdin") as copy,
    ):
        for row in rows:
            copy.write_row(row)
