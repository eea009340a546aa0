"""What bandits' epochs rest on, how many items were decided, what ranks showed, linear models, shadow predictions."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ITEMS = "length(predictions) - length(replace(predictions, ',', '')) + 1"


def upgrade() -> None:
    """Bring revision 0002 up to 0003 without losing a row."""
    op.add_column("epochs", sa.Column("basis", sa.Text))
    op.add_column("decisions", sa.Column("shown", sa.Text))
    op.add_column("decisions", sa.Column("draw", sa.Text))
    _add_spans()
    _count_decisions()
    _add_tables()


def _add_spans() -> None:
    """Every statistic so far is of one minute."""
    op.create_table(
        "statistics_0003",
        sa.Column("experiment_id", sa.Integer, primary_key=True),
        sa.Column("arm", sa.Integer, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("minute", sa.Integer, primary_key=True),
        sa.Column("span", sa.Integer, primary_key=True),
        sa.Column("shard", sa.Integer, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("sum", sa.Float, nullable=False),
        sa.Column("sum_squares", sa.Float, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute(
        "insert into statistics_0003 select experiment_id, arm, metric, minute, 1, shard, count, sum, sum_squares "
        "from statistics"
    )
    op.drop_table("statistics")
    op.rename_table("statistics_0003", "statistics")


def _count_decisions() -> None:
    """Count the items of decisions so far, as new ones are counted when they are recorded."""
    op.execute(
        "insert into statistics select experiment_id, arm, 'decisions/items', decided_ms / 60000, 1, 0, count(*), "  # noqa: S608
        f"sum({_ITEMS}), sum(({_ITEMS}) * ({_ITEMS})) from decisions where experiment_id is not null and epoch <> 0 "
        "group by experiment_id, arm, decided_ms / 60000"
    )


def _add_tables() -> None:
    op.create_table(
        "regressions",
        sa.Column("experiment_id", sa.Integer, primary_key=True),
        sa.Column("arm", sa.Integer, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("minute", sa.Integer, primary_key=True),
        sa.Column("span", sa.Integer, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("sums", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "shadow_predictions",
        sa.Column("decision_id", sa.LargeBinary, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("predictions", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("latency_ms", sa.Float, nullable=False),
        sa.Column("recorded_ms", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
        postgresql_partition_by="range (decision_id)",
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("create table shadow_predictions_rest partition of shadow_predictions default")
