"""Rollouts, the evidence that they go by, and how long arms take."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Bring revision 0003 up to 0004 without losing a row; evidence begins with what is decided from now on."""
    op.add_column("decisions", sa.Column("latency_ms", sa.Float))
    op.create_table(
        "evidence",
        sa.Column("experiment_id", sa.Integer, primary_key=True),
        sa.Column("arm", sa.Integer, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("minute", sa.Integer, primary_key=True),
        sa.Column("shard", sa.Integer, primary_key=True),
        sa.Column("sums", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    _mark_begun()
    op.create_table(
        "evidence_scales",
        sa.Column("experiment_id", sa.Integer, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("scale", sa.Float, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("champion", sa.Text),
        sa.Column("experiments", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("stage_ms", sa.BigInteger),
        sa.Column("stage_decisions", sa.BigInteger, nullable=False),
        sa.Column("before_stage", sa.LargeBinary),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_table(
        "rollout_transitions",
        sa.Column("rollout_id", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("findings", sa.Text, nullable=False),
    )


def _mark_begun() -> None:
    """Mark experiments that have decisions already: what these would have added is missing."""
    zeros = "decode(repeat('00', 2120), 'hex')" if op.get_context().dialect.name == "postgresql" else "zeroblob(2120)"
    op.execute(
        f"insert into evidence select distinct experiment_id, 255, 'decisions/before', 0, 0, {zeros} from statistics"  # noqa: S608
    )
