"""Which arms have had a share all the time, of experiments that may have a million epochs."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, select

from router.ledger import schema

_CHUNK = 1000


class Sharing(NamedTuple):
    """The arms that every epoch up to a number gives a share; None before the first one."""

    epoch: int = 0
    arms: frozenset[int] | None = None

    def includes(self, arms: Iterable[int]) -> bool:
        """Return whether each of these arms has had a share all the time."""
        return self.arms is None or self.arms.issuperset(arms)


def read_sharing(connection: Connection, experiment_id: int, known: Sharing) -> Sharing:
    """Return what is known of an experiment's epochs, with those that came since."""
    table = schema.epochs
    query = (
        select(table.c.epoch, table.c.runs)
        .where(table.c.experiment_id == experiment_id, table.c.epoch > known.epoch)
        .order_by(table.c.epoch)
        .execution_options(yield_per=_CHUNK)
    )
    newest, arms = known
    for number, runs in connection.execute(query):
        drawn = frozenset(arm for _, arm in _read_runs(runs))
        newest, arms = number, drawn if arms is None else arms & drawn
    return Sharing(newest, arms)


_read_runs = msgspec.json.Decoder(list[tuple[int, int]]).decode
