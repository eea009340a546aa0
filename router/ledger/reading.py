"""Reading decisions and their outcomes back."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select

from router.decision_id import encode
from router.documents import SPECIAL_NAMES
from router.errors import UnknownDecision
from router.ledger import schema
from router.ledger.database import for_reading, transaction
from router.ledger.records import DecisionRow, ShadowRow


class StoredDecision(NamedTuple):
    """A decision with the names of its experiment and arm (None outside experiments)."""

    row: DecisionRow
    experiment: str | None
    arm: str | None
    teams: Mapping[int, str] = MappingProxyType({})
    """The names of the experiment's arms, of a list that mixes their rankings."""


class StoredOutcome(NamedTuple):
    """An outcome of a decision, in one version; times in milliseconds since 1970."""

    metric: str
    item: int
    outcome_id: str
    version: int
    value: float | None
    prediction: float | None
    occurred_ms: int
    received_ms: int


class DecisionTables:
    """Looks single decisions up; safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = for_reading(engine)

    def read(self, decision_id: bytes) -> StoredDecision:
        """Return one decision, or raise UnknownDecision."""
        decisions, experiments, arms = schema.decisions, schema.experiments, schema.arms
        query = (
            select(*decisions.c, experiments.c.name.label("experiment"), arms.c.name.label("arm_name"))
            .outerjoin(experiments, experiments.c.id == decisions.c.experiment_id)
            .outerjoin(arms, (arms.c.experiment_id == decisions.c.experiment_id) & (arms.c.arm == decisions.c.arm))
            .where(decisions.c.id == decision_id)
        )
        with transaction(self._engine) as connection:
            found = connection.execute(query).one_or_none()
            if found is None:
                raise UnknownDecision(encode(decision_id))
            *values, experiment, arm = found
            row = DecisionRow(*values)
            teams = {} if row.draw is None else _arm_names(connection, row.experiment_id)
        return StoredDecision(row, experiment, arm if row.arm is None else SPECIAL_NAMES.get(row.arm, arm), teams)

    def shadows(self, decision_id: bytes) -> list[ShadowRow]:
        """Return what shadows predicted for a decision, by model."""
        table = schema.shadow_predictions
        query = select(table).where(table.c.decision_id == decision_id).order_by(table.c.model)
        with transaction(self._engine) as connection:
            return [ShadowRow(*row) for row in connection.execute(query)]

    def outcomes(self, decision_id: bytes) -> list[StoredOutcome]:
        """Return the decision's outcomes in the order of receipt."""
        table = schema.outcomes
        columns = [table.c[name] for name in StoredOutcome._fields]
        query = select(*columns).where(table.c.decision_id == decision_id).order_by(table.c.received_ms, table.c.metric)
        with transaction(self._engine) as connection:
            return [StoredOutcome(*row) for row in connection.execute(query)]


def _arm_names(connection: Connection, experiment_id: int | None) -> dict[int, str]:
    arms = schema.arms
    query = select(arms.c.arm, arms.c.name).where(arms.c.experiment_id == experiment_id)
    return {row.arm: row.name for row in connection.execute(query)}
