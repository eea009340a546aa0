"""A SQL query as a source, on any database that SQLAlchemy has a driver for."""

from typing import Any, NamedTuple

import pandas as pd
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from orchestration.errors import SourceUnavailable
from orchestration.sources.address import expanded, redacted, shown
from orchestration.sources.types import typed
from orchestration.sources.wanted import Wanted, require_span

_REMEDY = "write WHERE time >= :start AND time < :end; SQLite compares texts, so write datetime(time) there"


class Query(NamedTuple):
    """The rows of a query; `:start` and `:end` in it are the bounds of a partition, in UTC.

    `${NAME}` in the address stands for an environment variable, so that no password is in the file; it holds the
    password as it is, without %40 for @.
    """

    url: str
    text: str

    @property
    def code(self) -> tuple[Any, ...]:
        """The address, without what its variables stand for, and the query."""
        return (self.url, self.text)

    def rows(self, wanted: Wanted) -> pd.DataFrame:
        """What the database answers for this span, or for all time."""
        span = wanted.span
        bounds = {"start": span.start.to_pydatetime(), "end": span.end.to_pydatetime()} if span else {}
        origin = f"the query on {shown(self.url)}"
        rows = typed(self.answer(bounds), wanted.types, origin)
        return require_span(rows, span, origin, _REMEDY)

    def answer(self, bounds: dict[str, Any]) -> pd.DataFrame:
        """The query's rows as the database gives them; raises SourceUnavailable."""
        url = expanded(self.url)
        try:
            engine = create_engine(url, poolclass=NullPool)
            with engine.connect() as connection:
                if engine.dialect.name == "postgresql":
                    # Bounds are in UTC, whatever the server's time zone.
                    connection.exec_driver_sql("SET TIME ZONE 'UTC'")
                # Whole numbers stay whole beside gaps.
                return pd.read_sql(text(self.text), connection, params=bounds, dtype_backend="numpy_nullable")
        except Exception as error:  # noqa: BLE001 (whatever the driver does)
            cause = error.__cause__ or error if isinstance(error, pd.errors.DatabaseError) else error
            reason = str(getattr(cause, "orig", None) or cause) or type(cause).__name__
        said = redacted(reason, self.url, url).splitlines()[0]
        # Without the driver's own error, which is stored beside this one and may hold the password.
        raise SourceUnavailable(f"the query on {shown(self.url)} failed: {said}; correct the query, or the address")
