import pytest

from router.assignment.audience import Condition, Scalar, explain, takes


@pytest.mark.parametrize(
    ("op", "value", "actual", "expected"),
    [
        ("eq", "JFK", "JFK", True),
        ("eq", "JFK", "EWR", False),
        ("ne", "JFK", "EWR", True),
        ("in", ["JFK", "EWR"], "EWR", True),
        ("in", ["JFK", "EWR"], "LGA", False),
        ("not_in", ["JFK"], "LGA", True),
        ("lt", 5, 4.5, True),
        ("le", 5, 5, True),
        ("gt", 5, 5, False),
        ("ge", 5, 5, True),
        ("gt", 5, "many", False),
    ],
)
def test_takes_compares(op: str, value: Scalar | list[Scalar], actual: Scalar, expected: bool) -> None:
    assert takes([Condition("x", op, value)], {"x": actual}) is expected  # type: ignore[arg-type]


def test_takes_needs_every_condition() -> None:
    audience = [Condition("origin", "eq", "JFK"), Condition("hour", "lt", 12)]
    assert takes(audience, {"origin": "JFK", "hour": 9})
    assert not takes(audience, {"origin": "JFK", "hour": 13})


@pytest.mark.parametrize("op", ["eq", "ne", "lt", "ge"])
def test_takes_not_without_the_attribute(op: str) -> None:
    assert not takes([Condition("missing", op, 1)], {"other": 1})  # type: ignore[arg-type]


def test_takes_everybody_without_conditions() -> None:
    assert takes([], {})


def test_explain_names_what_a_condition_takes() -> None:
    assert explain(Condition("x", "in", "JFK")) == "op 'in' takes a list of values"
    assert explain(Condition("x", "lt", [1.0])) == "op 'lt' takes a single value, not a list"
    assert explain(Condition("x", "not_in", ["a"])) is None
