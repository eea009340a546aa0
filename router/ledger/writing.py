"""Inserting decisions, clients' idempotency keys and first assignments."""

from collections.abc import Collection, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import Connection, select

from router.ledger import schema
from router.ledger.records import AssignmentRow, DecisionRow
from router.ledger.statements import equal_to_any, insert_into, insert_missing, insert_new, insert_returning


class Claim(NamedTuple):
    """A client's idempotency key and the decision that was made for it just now."""

    endpoint: str
    key: str
    decision_id: bytes


def insert_decisions(connection: Connection, rows: Sequence[DecisionRow]) -> Sequence[DecisionRow]:
    """Insert the rows that are not there yet, and return them."""
    return insert_returning(connection, schema.decisions, rows)


def insert_new_decisions(connection: Connection, rows: Sequence[DecisionRow]) -> Sequence[DecisionRow]:
    """Insert rows that have never been inserted, and return them; raises IntegrityError where some of many were."""
    return insert_new(connection, schema.decisions, rows)


def claim_keys(connection: Connection, claims: Sequence[Claim]) -> dict[tuple[str, str], bytes]:
    """Bind clients' idempotency keys to decisions; return what each is bound to, which may be an earlier decision."""
    if not claims:
        return {}
    table = schema.idempotency_keys
    columns = (table.c.endpoint, table.c.key, table.c.decision_id)
    claiming = insert_into(connection, table).on_conflict_do_nothing().returning(*columns)
    # In one order everywhere, so that two processes never wait for each other.
    rows = [claim._asdict() for claim in sorted(claims, key=lambda claim: claim[:2])]
    bound = {(endpoint, key): id_ for endpoint, key, id_ in connection.execute(claiming, rows)}
    known = sorted({(claim.endpoint, claim.key) for claim in claims} - bound.keys())
    # SQLite would scan the table for a list of pairs.
    for endpoint, pairs in groupby(known, key=itemgetter(0)):
        for these in equal_to_any(connection, table.c.key, [key for _, key in pairs]):
            query = select(*columns).where(table.c.endpoint == endpoint, these)
            bound.update({(endpoint, key): id_ for endpoint, key, id_ in connection.execute(query)})
    return bound


def assign_first(connection: Connection, rows: Sequence[AssignmentRow]) -> list[AssignmentRow]:
    """Store the first assignment of each unit; return what stands, which may be an earlier assignment."""
    table = schema.assignments
    insert_missing(connection, table, sorted(rows))
    standing: dict[tuple[int, str], AssignmentRow] = {}
    for experiment_id, group in groupby(sorted({row[:2] for row in rows}), key=itemgetter(0)):
        for these in equal_to_any(connection, table.c.unit, [unit for _, unit in group]):
            query = select(table).where(table.c.experiment_id == experiment_id, these)
            for found in connection.execute(query):
                standing[found[0], found[1]] = AssignmentRow(*found)
    return [standing[row.experiment_id, row.unit] for row in rows]


def stored_decisions(connection: Connection, ids: Collection[bytes]) -> dict[bytes, DecisionRow]:
    """Return the decisions with these ids."""
    table = schema.decisions
    found: dict[bytes, DecisionRow] = {}
    for these in equal_to_any(connection, table.c.id, ids):
        for row in connection.execute(select(table).where(these)):
            found[row[0]] = DecisionRow(*row)
    return found
