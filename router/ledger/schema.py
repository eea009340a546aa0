"""The ledger's tables: the published schema that analysis and exports read (described in docs/ledger.md)."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

endpoints = Table(
    "endpoints",
    metadata,
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

experiments = Table(
    "experiments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("endpoint", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
)

arms = Table(
    "arms",
    metadata,
    Column("experiment_id", Integer, primary_key=True),
    Column("arm", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("model", Text, nullable=False),
    UniqueConstraint("experiment_id", "name", name="arms_experiment_id_name_key"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("experiment_id", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("runs", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("published_ms", BigInteger, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("decided_ms", BigInteger, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("experiment_id", Integer),
    Column("epoch", Integer),
    Column("arm", Integer),
    Column("propensity", Float, nullable=False),
    Column("unit", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("served_model", Text, nullable=False),
    Column("fallback", Text),
    Column("context", Text),
    Column("inputs", Text, nullable=False),
    Column("predictions", Text, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("decision_id", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("decision_id", LargeBinary, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("item", Integer, primary_key=True),
    Column("outcome_id", Text, primary_key=True),
    Column("value", Float, nullable=False),
    Column("prediction", Float),
    Column("experiment_id", Integer),
    Column("arm", Integer),
    Column("occurred_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

statistics = Table(
    "statistics",
    metadata,
    Column("experiment_id", Integer, primary_key=True),
    Column("arm", Integer, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("sum", Float, nullable=False),
    Column("sum_squares", Float, nullable=False),
    sqlite_with_rowid=False,
)

control_version = Table(
    "control_version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", BigInteger, nullable=False),
)
