import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidReference
from models.reference import NAME, ModelReference, checked_name


@given(st.from_regex(NAME, fullmatch=True), st.integers(1, 999_999_999))
def test_reference_reads_back_what_it_writes(name: str, version: int) -> None:
    reference = ModelReference(name, version)
    assert ModelReference.parse(str(reference)) == reference


NOT_NAMES = ["@1", "Delay@1", "../delay@1", ".delay@1", f"{'d' * 101}@1"]
NOT_VERSIONS = ["", "delay", "delay@", "delay@0", "delay@-1", "delay@1.0", "delay@03", "delay@1@2", "delay@٣"]


@pytest.mark.parametrize("text", NOT_NAMES + NOT_VERSIONS)
def test_reference_refuses_other_texts(text: str) -> None:
    with pytest.raises(InvalidReference):
        ModelReference.parse(text)


def test_reference_error_names_the_text_and_the_form() -> None:
    with pytest.raises(InvalidReference, match=r"'delay' is not a model version: write name@version"):
        ModelReference.parse("delay")


def test_references_order_by_name_then_by_number() -> None:
    texts = ["b@1", "a@10", "a@9"]
    assert [str(reference) for reference in sorted(map(ModelReference.parse, texts))] == [
        "a@9",
        "a@10",
        "b@1",
    ]


def test_checked_name_says_what_a_name_is() -> None:
    with pytest.raises(InvalidReference, match="'my model' is not a model name: use 1 to 100 lower-case"):
        checked_name("my model")
