import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.documents import GIVE, Document, Experiment, Fault, fault_at, fault_in, shown
from router.errors import InvalidDocument
from tests.router.documents import experiment


class Circle(Document, frozen=True, kw_only=True, tag_field="kind", tag="circle"):
    radius: Annotated[float, msgspec.Meta(gt=0)]


class Square(Document, frozen=True, kw_only=True, tag_field="kind", tag="square"):
    side: int
    colour: Literal["red", "green"] | None = None


class Drawing(Document, frozen=True, kw_only=True):
    shapes: list[Circle | Square] = msgspec.field(default_factory=list)
    sizes: dict[str, float] = msgspec.field(default_factory=dict)
    nested: dict[str, dict[str, bool]] = msgspec.field(default_factory=dict)
    pair: tuple[int, str] = (0, "")
    code: Annotated[str, msgspec.Meta(pattern="^[a-z]$", extra={GIVE: "one small letter"})] | None = None
    names: dict[Annotated[str, msgspec.Meta(max_length=3)], int] = msgspec.field(default_factory=dict)
    dotted: float = msgspec.field(default=0.0, name="a.b[0]")


def fault(content: Any, type_: Any = Drawing) -> Fault:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(msgspec.DecodeError) as raised:
        msgspec.json.decode(body, type=type_)
    return fault_in(body, raised.value, type_)


CIRCLE = {"kind": "circle", "radius": 1}


@pytest.mark.parametrize(
    ("content", "field", "reason"),
    [
        ([], None, "here stands []; give an object, {..}"),
        ({"shapes": [CIRCLE, {"kind": "oval"}]}, "shapes[1].kind", 'here stands "oval"; give circle or square'),
        ({"shapes": [{"radius": 1}]}, "shapes[0].kind", "it is missing; give circle or square"),
        ({"shapes": [{**CIRCLE, "radius": 0}]}, "shapes[0].radius", "here stands 0; give a number > 0.0"),
        ({"shapes": [{**CIRCLE, "radius": None}]}, "shapes[0].radius", "here stands null; give a number"),
        ({"shapes": [{"kind": "square", "side": 1.5}]}, "shapes[0].side", "here stands 1.5; give a whole number"),
        (
            {"shapes": [{"kind": "square", "side": 1, "colour": "blue"}]},
            "shapes[0].colour",
            'here stands "blue"; give green, red or null',
        ),
        ({"sizes": {"a": 1, "b": "x", "c": 2}}, "sizes.b", 'here stands "x"; give a number'),
        ({"nested": {"a": {}, "b": {"c": True, "d": 0}}}, "nested.b.d", "here stands 0; give true or false"),
        ({"pair": [1, 2]}, "pair[1]", "here stands 2; give a text"),
        ({"code": "AB"}, "code", 'here stands "AB"; give one small letter or null'),
        ({"names": {"a": 1, "long": 2}}, "names", 'here stands the key "long"; give a text of length <= 3'),
        ({"a.b[0]": "x"}, "a.b[0]", 'here stands "x"; give a number'),
        ({"size": {}}, "size", "there is no such field; did you mean sizes?"),
        ({"shapes": [{**CIRCLE, "width": 1}]}, "shapes[0].width", "there is no such field; remove it"),
        (b'{"sizes": {"a": 1e999}}', "sizes[...]", "the number is out of range; give one within 1.8e308 of 0"),
    ],
)
def test_a_fault_names_the_field_the_value_and_the_remedy(content: Any, field: str | None, reason: str) -> None:
    assert fault(content)[:2] == (field, reason)


def test_the_fields_of_the_very_object_are_told() -> None:
    assert fault({"shapes": [{**CIRCLE, "width": 1}]}).known == ("kind", "radius")
    assert fault({"shapes": [{"kind": "square"}]}).known == ("kind", "side", "colour")
    assert fault({"shapes": [{}]}).known == ()


def test_an_error_names_the_whole_where_no_field_is_wrong() -> None:
    error = fault(3).error(InvalidDocument, "the drawing")
    assert (str(error), error.field) == ("the drawing: here stands 3; give an object, {..}", None)
    assert str(fault(b"{").error()).startswith("the body: it is not valid JSON")
    assert fault({"sizes": 5}).within("plan").field == "plan.sizes"
    assert fault([1], list[str]).within("rows").field == "rows[0]"
    assert fault(1, str).within("rows").field == "rows"


@pytest.mark.parametrize("value", ["x" * 1000, {"y" * 1000: 1}, [["z" * 1000]]])
def test_a_long_value_is_cut(value: Any) -> None:
    found = fault({"sizes": {"k" * 1000: value}})
    assert len(found.reason) < 100
    assert len(found.field or "") < 100
    assert len(fault({"u" * 1000: value}).field or "") < 100


def test_an_api_key_is_not_told_again() -> None:
    key = "tk_0123456789ab_abcDEF-_xyz"
    assert shown({"key": key}) == '{"key":"tk_..."}'
    assert key not in str(fault({"sizes": {key: key}}).error())
    assert key not in str(fault({key: key}).error())


def test_of_many_keys_the_wrong_one_is_found() -> None:
    sizes: dict[str, Any] = {f"k{number}": number for number in range(20_000)}
    assert fault({"sizes": {**sizes, "k777": "x"}}).field == "sizes.k777"


def test_what_cannot_be_explained_is_told_as_msgspec_tells_it() -> None:
    other = msgspec.ValidationError("Expected `float`, got `str` - at `$.nowhere[...]`")
    assert fault_at({"sizes": {}}, other, Drawing) == Fault("nowhere[...]", "give a number")
    assert fault_at(object(), msgspec.ValidationError("strange"), Drawing) == Fault(None, "strange")


def test_a_deeply_nested_body_is_no_failure() -> None:
    body = b'{"traffic": "x", "name": ' + b"[" * 100_000
    assert fault(body, Experiment).field == "traffic"


texts = st.text(max_size=4) | st.sampled_from(["kind", "split", "weights", "name", "metrics", "tk_a", "[...]", "."])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(name=st.sampled_from(sorted(experiment())) | texts, value=values)
def test_every_error_can_be_explained(name: str, value: Any) -> None:
    content = experiment() | {name: value}
    body = msgspec.json.encode(content)
    try:
        msgspec.json.decode(body, type=Experiment)
    except msgspec.ValidationError as error:
        found = fault_in(body, error, Experiment)
        assert found.reason.startswith(("here stands", "it is missing", "there is no such field"))
        assert "[...]" not in (found.field or "") or b"[...]" in body
        assert "Expected `" not in found.reason
