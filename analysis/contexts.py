"""What decisions say of their context, as queries: flat JSON objects whose values are texts, numbers and booleans."""

import json
import re

import ibis
import ibis.expr.types as ir

from analysis.queries import Log
from analysis.source import Source

_LATEST = 100


def value_of(context: ir.Value, field: str) -> ir.Value:
    """Return the value of a field as JSON text, or null; the same expression for every engine."""
    # Ibis's own JSON paths end at a dot in the name, fail at a quote, and find nothing in texts of SQLite.
    key = re.escape(json.dumps(field, ensure_ascii=False))
    # Within a text a quote follows a backslash, so that what this begins with can only be before a key.
    found = context.re_extract(rf'[{{,] *{key} *: *("(?:[^"\\]|\\.)*"|[^,}} ]+)', 1)
    return found.nullif("").nullif("null")


def first_values(log: Log, field: str) -> ir.Table:
    """The value of a field in each unit's first decision: unit, value, decided_ms."""
    decisions = log.decisions
    order = ibis.row_number().over(group_by=decisions["unit"], order_by=decisions["id"])
    numbered = decisions.select("unit", "context", "decided_ms", order=order)
    first = numbered.filter(numbered["order"] == 0)
    return first.select("unit", "decided_ms", value=value_of(first["context"], field))


def most_common(source: Source, values: ir.Table, most: int) -> list[str]:
    """Read the values that most units have, as JSON text: at most so many, the most frequent first."""
    known = values.filter(values["value"].notnull())
    counted = known.group_by("value").aggregate(units=known.count(), first_ms=known["decided_ms"].min())
    rows = source.rows(counted.order_by(counted["units"].desc(), "first_ms", "value").limit(most))
    return [row["value"] for row in rows]


def latest_fields(source: Source, log: Log) -> list[str]:
    """Read what fields the latest contexts have, in the order of their names."""
    latest = log.decisions.filter(log.decisions["context"].notnull()).order_by(ibis.desc("id")).limit(_LATEST)
    return sorted({name for row in source.rows(latest.select("context")) for name in json.loads(row["context"])})
