"""Traffic in epochs, first assignments, versions of outcomes, API keys, the audit log; partitions on PostgreSQL."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BUCKETS = 10_000


def upgrade() -> None:
    """Bring revision 0001 up to 0002 without losing a row."""
    _add_traffic()
    _add_tables()
    _version_outcomes()
    op.add_column("control_version", sa.Column("changed_ms", sa.BigInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("control_version") as batch:
        batch.alter_column("changed_ms", server_default=None)
    if op.get_context().dialect.name == "postgresql":
        _widen_epochs()
        _partition("decisions", "id")
        _partition("outcomes", "decision_id")


def _add_traffic() -> None:
    """The newest epoch gets its experiment's traffic; what it was under older ones is not known, so they get all."""
    op.add_column("epochs", sa.Column("traffic", sa.Integer, nullable=False, server_default=str(_BUCKETS)))
    connection = op.get_bind()
    for key, document in connection.execute(sa.text("select id, document from experiments")).all():
        traffic = round(json.loads(document).get("traffic", 1.0) * _BUCKETS)
        newest = "select max(epoch) from epochs where experiment_id = :key"
        statement = f"update epochs set traffic = :traffic where experiment_id = :key and epoch = ({newest})"  # noqa: S608
        connection.execute(sa.text(statement), {"key": key, "traffic": traffic})
    with op.batch_alter_table("epochs") as batch:
        batch.alter_column("traffic", server_default=None)


def _add_tables() -> None:
    op.create_table(
        "assignments",
        sa.Column("experiment_id", sa.Integer, primary_key=True),
        sa.Column("unit", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("arm", sa.Integer, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("assigned_ms", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("rate_per_s", sa.Float),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
        sa.Column("last_used_ms", sa.BigInteger),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
    )


def _version_outcomes() -> None:
    """Outcomes so far are version 0 and were counted when they came."""
    op.create_table(
        "outcomes_0002",
        sa.Column("decision_id", sa.LargeBinary, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("item", sa.Integer, primary_key=True),
        sa.Column("outcome_id", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("value", sa.Float),
        sa.Column("prediction", sa.Float),
        sa.Column("experiment_id", sa.Integer),
        sa.Column("arm", sa.Integer),
        sa.Column("counted", sa.Boolean, nullable=False),
        sa.Column("occurred_ms", sa.BigInteger, nullable=False),
        sa.Column("received_ms", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute(
        "insert into outcomes_0002 select decision_id, metric, item, outcome_id, 0, value, prediction, experiment_id, "
        "arm, true, occurred_ms, received_ms from outcomes"
    )
    op.drop_table("outcomes")
    op.rename_table("outcomes_0002", "outcomes")


def _widen_epochs() -> None:
    for table in ("epochs", "decisions"):
        op.alter_column(table, "epoch", type_=sa.BigInteger)


def _partition(table: str, key: str) -> None:
    """Make a table partitioned by the time that its key begins with; months are added as they come."""
    op.rename_table(table, f"{table}_0001")
    op.execute(f"create table {table} (like {table}_0001 including defaults) partition by range ({key})")
    op.execute(f"create table {table}_rest partition of {table} default")
    op.execute(f"insert into {table} select * from {table}_0001")  # noqa: S608 (our own names)
    primary_key = sa.inspect(op.get_bind()).get_pk_constraint(f"{table}_0001")["constrained_columns"]
    op.drop_table(f"{table}_0001")
    op.create_primary_key(f"{table}_pkey", table, primary_key)
