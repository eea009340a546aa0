from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from router.ledger.database import open_database, upgrade


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A new SQLite ledger."""
    engine = open_database(f"sqlite:///{tmp_path}/ledger.db")
    upgrade(engine)
    yield engine
    engine.dispose()
