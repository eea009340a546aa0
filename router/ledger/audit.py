"""The audit log: who changed what, with what it was before and after, written in the transaction of the change."""

from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, insert, select

from router.ledger import schema
from router.ledger.database import for_reading, transaction


class Entry(NamedTuple):
    """A change of a subject such as `endpoint delay`; `before` is None for what was created."""

    actor: str
    action: str
    subject: str
    before: Any
    after: Any


class AuditRecord(NamedTuple):
    """An entry as stored; before and after are JSON."""

    id: int
    at_ms: int
    actor: str
    action: str
    subject: str
    before: str | None
    after: str | None


def record(connection: Connection, entry: Entry, now_ms: int) -> None:
    """Add an entry, after the change has raised the control version: entries are then numbered as they commit."""
    values = {
        "at_ms": now_ms,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "before": _dump(entry.before),
        "after": _dump(entry.after),
    }
    connection.execute(insert(schema.audit).values(**values))


class AuditTables:
    """Reads the audit log; safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = for_reading(engine)

    def page(self, limit: int, before: int | None) -> list[AuditRecord]:
        """Return the newest entries, or the newest of those with an id below `before`."""
        table = schema.audit
        query = select(*(table.c[name] for name in AuditRecord._fields)).order_by(table.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.id < before)
        with transaction(self._engine) as connection:
            return [AuditRecord(*row) for row in connection.execute(query)]


def _dump(content: Any) -> str | None:
    return None if content is None else msgspec.json.encode(content).decode()
