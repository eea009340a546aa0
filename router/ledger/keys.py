"""API keys in the ledger; creating and revoking one raises the control version, so that every replica hears of it."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, bindparam, insert, select, update

from router.errors import UnknownKey
from router.keys import ApiKey
from router.ledger import audit, schema
from router.ledger.control_writing import raise_version
from router.ledger.database import for_reading, transaction


class KeyTables:
    """Reads and writes the keys; safe to use from several threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._writing = engine
        self._reading = for_reading(engine)

    def read_all(self) -> list[ApiKey]:
        """Return every key that was ever made, oldest first."""
        with transaction(self._reading) as connection:
            rows = connection.execute(select(schema.api_keys).order_by(schema.api_keys.c.created_ms)).mappings()
            return [_key(row) for row in rows]

    def create(self, key: ApiKey, *, actor: str) -> None:
        """Store a new key."""
        with transaction(self._writing) as connection:
            values = {**msgspec.structs.asdict(key), "scopes": ",".join(sorted(key.scopes))}
            connection.execute(insert(schema.api_keys).values(**values))
            _record(connection, "create", None, key, key.created_ms, actor)

    def revoke(self, key_id: str, now_ms: int, *, actor: str) -> ApiKey:
        """Revoke a key for good and return it as it was before: revoking it again changes nothing.

        Raises:
            UnknownKey: There is no such key.
        """
        table = schema.api_keys
        with transaction(self._writing) as connection:
            row = connection.execute(select(table).where(table.c.id == key_id)).mappings().one_or_none()
            if row is None:
                raise UnknownKey(key_id)
            key = _key(row)
            statement = update(table).where(table.c.id == key_id, table.c.revoked_ms.is_(None))
            if connection.execute(statement.values(revoked_ms=now_ms)).rowcount:
                _record(connection, "revoke", key, msgspec.structs.replace(key, revoked_ms=now_ms), now_ms, actor)
            return key

    def record_uses(self, used_ms: Mapping[str, int]) -> None:
        """Record when keys were last used, which no replica needs to hear of."""
        table = schema.api_keys
        earlier = table.c.last_used_ms.is_(None) | (table.c.last_used_ms < bindparam("used_ms"))
        statement = (
            update(table).where(table.c.id == bindparam("key_id"), earlier).values(last_used_ms=bindparam("used_ms"))
        )
        with transaction(self._writing) as connection:
            # Every replica takes the rows in one order, so that none waits for another in a circle.
            connection.execute(statement, [{"key_id": each, "used_ms": used_ms[each]} for each in sorted(used_ms)])


def _record(connection: Connection, action: str, before: ApiKey | None, after: ApiKey, now_ms: int, actor: str) -> None:
    raise_version(connection, now_ms)
    entry = audit.Entry(actor, action, f"key {after.id}", _published(before), _published(after))
    audit.record(connection, entry, now_ms)


def _published(key: ApiKey | None) -> dict[str, Any] | None:
    """Return what the audit log keeps of a key, which is neither its text nor its hash."""
    if key is None:
        return None
    return {
        "name": key.name,
        "scopes": sorted(key.scopes),
        "rate_per_s": key.rate_per_s,
        "revoked": key.revoked_ms is not None,
    }


def _key(row: RowMapping) -> ApiKey:
    fields = {name: row[name] for name in ApiKey.__struct_fields__}
    return msgspec.convert({**fields, "scopes": fields["scopes"].split(",")}, ApiKey)
