"""Keys in the ledgers of tests."""

from contextlib import nullcontext

from sqlalchemy import Engine

from router.keys import Scope, new_key
from router.ledger.database import upgraded
from router.ledger.keys import KeyTables


def make_key(
    database: str | Engine, *scopes: Scope, name: str = "test", rate: float | None = None, now_ms: int = 1
) -> tuple[str, str]:
    """Store a key and return its id and text."""
    key, text = new_key(name, frozenset(scopes), rate, now_ms)
    with upgraded(database) if isinstance(database, str) else nullcontext(database) as engine:
        KeyTables(engine).create(key, actor="a test")
    return key.id, text


def bearer(text: str) -> dict[str, str]:
    """Return the header that shows a key."""
    return {"Authorization": f"Bearer {text}"}
