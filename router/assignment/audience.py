"""Conditions on a request's context that decide whether an experiment takes the unit."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

Scalar = str | int | float | bool
Context = Mapping[str, Scalar]


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One test of one context attribute, such as `{"attribute": "origin", "op": "in", "value": ["JFK"]}`."""

    attribute: str
    op: Literal["eq", "ne", "in", "not_in", "lt", "le", "gt", "ge"]
    value: Scalar | list[Scalar]


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "in": lambda actual, values: actual in values,
    "not_in": lambda actual, values: actual not in values,
}


def takes(audience: Sequence[Condition], context: Context) -> bool:
    """Return whether the context meets every condition.

    A missing attribute meets none, not even `ne` or `not_in`; nor does one that cannot be compared with the value.
    """
    return all(_holds(condition, context) for condition in audience)


def _holds(condition: Condition, context: Context) -> bool:
    if condition.attribute not in context:
        return False
    try:
        return _OPERATORS[condition.op](context[condition.attribute], condition.value)
    except TypeError:
        return False


def explain(condition: Condition) -> str | None:
    """Return why the condition could never work, or None when it is sound."""
    wants_list = condition.op in {"in", "not_in"}
    if wants_list != isinstance(condition.value, list):
        return f"op {condition.op!r} takes {'a list of values' if wants_list else 'a single value, not a list'}"
    return None
