"""The ledger's tables as docs/ledger.md promises them, whichever engine reads them."""

from collections.abc import Mapping
from types import MappingProxyType

import ibis
import ibis.expr.types as ir

from analysis.errors import SchemaMismatch

TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "experiments": {
            "id": "int64",
            "name": "string",
            "endpoint": "string",
            "state": "string",
            "revision": "int64",
            "document": "string",
            "created_ms": "int64",
            "started_ms": "int64",
            "ended_ms": "int64",
        },
        "arms": {"experiment_id": "int64", "arm": "int64", "name": "string", "model": "string"},
        "epochs": {
            "experiment_id": "int64",
            "epoch": "int64",
            "runs": "string",
            "traffic": "int64",
            "reason": "string",
            "published_ms": "int64",
            "basis": "string",
        },
        "decisions": {
            "id": "binary",
            "decided_ms": "int64",
            "endpoint": "string",
            "experiment_id": "int64",
            "epoch": "int64",
            "arm": "int64",
            "propensity": "float64",
            "unit": "string",
            "model": "string",
            "served_model": "string",
            "fallback": "string",
            "context": "string",
            "inputs": "string",
            "predictions": "string",
            "shown": "string",
            "draw": "string",
            "latency_ms": "float64",
        },
        "outcomes": {
            "decision_id": "binary",
            "metric": "string",
            "item": "int64",
            "outcome_id": "string",
            "version": "int64",
            "value": "float64",
            "prediction": "float64",
            "experiment_id": "int64",
            "arm": "int64",
            "counted": "boolean",
            "occurred_ms": "int64",
            "received_ms": "int64",
        },
        "shadow_predictions": {
            "decision_id": "binary",
            "model": "string",
            "predictions": "string",
            "error": "string",
            "latency_ms": "float64",
            "recorded_ms": "int64",
        },
    }
)
"""The columns that docs/ledger.md promises, as Ibis types, by table."""


def typed(name: str, table: str, rows: ir.Table) -> ir.Table:
    """Return the promised columns of a table, with their types; `name` says where it was found.

    Raises:
        SchemaMismatch: A column is missing.
    """
    expected = TABLES[table]
    missing = [column for column in expected if column not in rows.columns]
    if missing:
        raise SchemaMismatch(
            f"{name} has no column {missing[0]!r} in {table!r}; it was written by another version of Turnout: "
            "upgrade it (`turnout db upgrade`) or export the logs again"
        )
    kept = rows.select(*expected)
    casts = {
        column: dtype
        for column, dtype in expected.items()
        if kept[column].type().copy(nullable=True) != ibis.dtype(dtype)
    }
    return kept.cast(casts) if casts else kept
