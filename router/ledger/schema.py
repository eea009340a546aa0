"""The ledger's tables: the published schema that analysis and exports read (described in docs/ledger.md)."""

from sqlalchemy import (
    BigInteger,
    Boolean,
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

# SQLite's integers have eight bytes, whatever they are called.
_Epoch = BigInteger().with_variant(Integer, "sqlite")

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
    Column("epoch", _Epoch, primary_key=True),
    Column("runs", Text, nullable=False),
    Column("traffic", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("published_ms", BigInteger, nullable=False),
    Column("basis", Text),
)

assignments = Table(
    "assignments",
    metadata,
    Column("experiment_id", Integer, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("epoch", _Epoch, nullable=False),
    Column("arm", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("assigned_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("decided_ms", BigInteger, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("experiment_id", Integer),
    Column("epoch", _Epoch),
    Column("arm", Integer),
    Column("propensity", Float, nullable=False),
    Column("unit", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("served_model", Text, nullable=False),
    Column("fallback", Text),
    Column("context", Text),
    Column("inputs", Text, nullable=False),
    Column("predictions", Text, nullable=False),
    Column("shown", Text),
    Column("draw", Text),
    Column("latency_ms", Float),
    postgresql_partition_by="range (id)",
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
    Column("version", Integer, primary_key=True),
    Column("value", Float),
    Column("prediction", Float),
    Column("experiment_id", Integer),
    Column("arm", Integer),
    Column("counted", Boolean, nullable=False),
    Column("occurred_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    postgresql_partition_by="range (decision_id)",
)

statistics = Table(
    "statistics",
    metadata,
    Column("experiment_id", Integer, primary_key=True),
    Column("arm", Integer, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("span", Integer, primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("sum", Float, nullable=False),
    Column("sum_squares", Float, nullable=False),
    sqlite_with_rowid=False,
)

regressions = Table(
    "regressions",
    metadata,
    Column("experiment_id", Integer, primary_key=True),
    Column("arm", Integer, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("span", Integer, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("sums", Text, nullable=False),
    sqlite_with_rowid=False,
)

evidence = Table(
    "evidence",
    metadata,
    Column("experiment_id", Integer, primary_key=True),
    Column("arm", Integer, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("sums", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

evidence_scales = Table(
    "evidence_scales",
    metadata,
    Column("experiment_id", Integer, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("scale", Float, nullable=False),
    sqlite_with_rowid=False,
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("endpoint", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("champion", Text),
    Column("experiments", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("stage_ms", BigInteger),
    Column("stage_decisions", BigInteger, nullable=False),
    Column("before_stage", LargeBinary),
    Column("ended_ms", BigInteger),
)

rollout_transitions = Table(
    "rollout_transitions",
    metadata,
    Column("rollout_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("findings", Text, nullable=False),
)

shadow_predictions = Table(
    "shadow_predictions",
    metadata,
    Column("decision_id", LargeBinary, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("predictions", Text),
    Column("error", Text),
    Column("latency_ms", Float, nullable=False),
    Column("recorded_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
    postgresql_partition_by="range (decision_id)",
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("rate_per_s", Float),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("last_used_ms", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
)

control_version = Table(
    "control_version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
)
