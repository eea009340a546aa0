"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first published tables, spelled out so that later changes to the code do not alter them."""
    op.create_table(
        "endpoints",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "experiments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("started_ms", sa.BigInteger),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_table(
        "arms",
        sa.Column("experiment_id", sa.Integer, primary_key=True),
        sa.Column("arm", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.UniqueConstraint("experiment_id", "name", name="arms_experiment_id_name_key"),
    )
    op.create_table(
        "epochs",
        sa.Column("experiment_id", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True),
        sa.Column("runs", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("published_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("decided_ms", sa.BigInteger, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("experiment_id", sa.Integer),
        sa.Column("epoch", sa.Integer),
        sa.Column("arm", sa.Integer),
        sa.Column("propensity", sa.Float, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("served_model", sa.Text, nullable=False),
        sa.Column("fallback", sa.Text),
        sa.Column("context", sa.Text),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("predictions", sa.Text, nullable=False),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("endpoint", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("decision_id", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outcomes",
        sa.Column("decision_id", sa.LargeBinary, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("item", sa.Integer, primary_key=True),
        sa.Column("outcome_id", sa.Text, primary_key=True),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("prediction", sa.Float),
        sa.Column("experiment_id", sa.Integer),
        sa.Column("arm", sa.Integer),
        sa.Column("occurred_ms", sa.BigInteger, nullable=False),
        sa.Column("received_ms", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "statistics",
        sa.Column("experiment_id", sa.Integer, primary_key=True),
        sa.Column("arm", sa.Integer, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("minute", sa.Integer, primary_key=True),
        sa.Column("shard", sa.Integer, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("sum", sa.Float, nullable=False),
        sa.Column("sum_squares", sa.Float, nullable=False),
        sqlite_with_rowid=False,
    )
    control = op.create_table(
        "control_version",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(control, [{"id": 1, "version": 0}])
