"""Whether the ledger holds what was acknowledged, exactly once: compared without the router's own code for counting."""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, create_engine, make_url, select

from router.decision_id import decode, unpack
from router.ledger import schema
from router.ledger.contributions import ITEMS
from tests.system.processes import Launch, Router, launch_command
from tests.system.traffic import Book, Outcome

_Cell = tuple[int, int, str, int]
_Sums = tuple[int, float, float]

# Sums are added up in another order, and corrections subtract.
_TOLERANCE = 1e-6


class Audit(NamedTuple):
    """What was acknowledged, and what the ledger made of it."""

    decisions: int
    outcomes: int
    missing: int
    counted_twice: int
    decided_twice: int
    """Clients' keys that were answered with more than one decision, or for which more than one is stored."""
    uncounted: int
    """Outcomes that still wait for a decision."""
    verified: str
    """What `turnout verify-log` said."""

    def __str__(self) -> str:
        return (
            f"acknowledged {self.decisions} decisions and {self.outcomes} outcomes, missing {self.missing}, "
            f"counted twice {self.counted_twice}, decided twice {self.decided_twice}, {self.verified}"
        )

    def assert_clean(self, *, keys_shared: bool = True) -> None:
        """Assert that nothing is missing and nothing counted twice; `keys_shared` where no key met two spools."""
        assert self.decisions > 0
        assert self.outcomes > 0
        assert (self.missing, self.counted_twice, self.uncounted) == (0, 0, 0), str(self)
        assert self.decided_twice == 0 or not keys_shared, str(self)


def audit(
    book: Book, routers: Collection[Router], state: Path, *, direct: str, launch: Launch = launch_command
) -> Audit:
    """Wait until these routers have drained every spool, then compare the ledger, reached directly, with the book.

    Outcomes that were posted, but never acknowledged, would make the statistics ambiguous: settle them before.
    """
    assert not book.owed
    wait_until_drained(routers)
    engine = create_engine(make_url(direct))
    with engine.connect() as connection:
        stored = {row.id: row for row in connection.execute(select(schema.decisions))}
        missing = [text for text, reply in book.decisions.items() if not _is_stored(stored.get(decode(text)), reply)]
        outcomes = _stored_outcomes(connection)
        missing += [str(row) for row in book.outcomes if _identity(row) not in outcomes.items()]
        uncounted = connection.execute(select(schema.outcomes).where(schema.outcomes.c.counted.is_(False))).all()
        expected, folded = clean_fold(book, book.outcomes), stored_statistics(connection)
    engine.dispose()
    twice = [cell for cell in expected.keys() | folded.keys() if not _agree(expected.get(cell), folded.get(cell))]
    return Audit(
        decisions=len(book.decisions),
        outcomes=len(book.outcomes),
        missing=len(missing),
        counted_twice=len(twice),
        decided_twice=_decided_twice(book, stored.values()),
        uncounted=len(uncounted),
        verified=_verify(next(iter(routers)).environment | {"TURNOUT_DATABASE": direct}, state, launch),
    )


def wait_until_drained(routers: Collection[Router], seconds: float = 60.0) -> None:
    """Return when the routers are ready, and no spool is left but their own, empty ones."""
    deadline = time.monotonic() + seconds
    folders = {Path(router.environment["TURNOUT_SPOOL"]) for router in routers}
    while True:
        spools = [path for folder in folders for path in folder.glob("*.spool")]
        states = [router.health() for router in routers]
        if len(spools) == len(routers) and set(states) == {"ready"}:
            return
        assert time.monotonic() < deadline, f"not drained: {states}, {spools}"
        time.sleep(0.05)


def clean_fold(book: Book, outcomes: Iterable[Outcome]) -> dict[_Cell, _Sums]:
    """Return the statistics that the outcomes add up to, of experiment `four`."""
    newest: dict[tuple[str, str], dict[str, Outcome]] = defaultdict(dict)
    for row in sorted(outcomes, key=lambda row: row.version):
        newest[row.decision_id, row.metric][row.outcome_id] = row
    cells: dict[_Cell, _Sums] = {}
    for (text, metric), rows in newest.items():
        values = [row.value for row in rows.values() if row.value is not None]
        if values:
            said = unpack(decode(text))
            prediction = book.decisions[text]["prediction"]
            name, value = ("brier", (prediction - values[0]) ** 2) if metric == "late" else (metric, sum(values))
            cell = (said.experiment_id, said.arm, name, said.decided_ms // 60_000)
            n, total, squares = cells.get(cell, (0, 0.0, 0.0))
            cells[cell] = (n + 1, total + value, squares + value * value)
    return cells


def stored_statistics(connection: Connection) -> dict[_Cell, _Sums]:
    """Return the statistics of outcomes as they are, all shards together."""
    table = schema.statistics
    cells: dict[_Cell, _Sums] = {}
    for row in connection.execute(select(table).where(table.c.metric != ITEMS)).mappings():
        cell = (row["experiment_id"], row["arm"], row["metric"], row["minute"])
        n, total, squares = cells.get(cell, (0, 0.0, 0.0))
        cells[cell] = (n + row["count"], total + row["sum"], squares + row["sum_squares"])
    return cells


def _is_stored(row: Any, reply: dict[str, Any]) -> bool:
    """Return whether a row of `decisions` is what the client was told."""
    if row is None:
        return False
    told = (reply["propensity"], reply["epoch"], reply["model"], [reply["prediction"]])
    return told == (row.propensity, row.epoch, row.model, msgspec.json.decode(row.predictions))


def _identity(row: Outcome) -> tuple[tuple[bytes, str, str, int], float | None]:
    return (decode(row.decision_id), row.metric, row.outcome_id, row.version), row.value


def _stored_outcomes(connection: Connection) -> dict[tuple[bytes, str, str, int], float | None]:
    table = schema.outcomes
    columns = (table.c.decision_id, table.c.metric, table.c.outcome_id, table.c.version, table.c.value)
    return {(row[0], row[1], row[2], row[3]): row[4] for row in connection.execute(select(*columns))}


def _agree(expected: _Sums | None, found: _Sums | None) -> bool:
    pairs = zip(expected or (0, 0.0, 0.0), found or (0, 0.0, 0.0), strict=True)
    return all(abs(mine - theirs) <= _TOLERANCE * max(1.0, abs(mine)) for mine, theirs in pairs)


def _decided_twice(book: Book, stored: Iterable[Any]) -> int:
    """Count the keys with several decisions; a unit of the traffic is asked about once, with a key or without one."""
    decided = Counter(row.unit for row in stored)
    return sum(len(ids) > 1 or decided[book.units[next(iter(ids))]] > 1 for ids in book.keyed.values())


def _verify(environment: Mapping[str, str], state: Path, launch: Launch) -> str:
    log = state / f"verify-{time.monotonic_ns()}.log"
    status = launch(["verify-log"], environment, log).wait(120)
    assert status == 0, log.read_text()
    return "verify-log clean"
