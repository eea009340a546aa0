import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.assignment.epochs import HOLDOUT
from router.decision_id import TEXT_SIZE, DecisionId, Signer, decode, encode, unpack
from router.errors import InvalidDecisionId

SECRET = "a secret of enough length"

decisions = st.builds(
    DecisionId,
    decided_ms=st.integers(0, 2**48 - 1),
    experiment_id=st.integers(0, 2**24 - 1),
    epoch=st.integers(0, 2**32 - 1),
    arm=st.integers(0, 255),
    slots=st.integers(0, 10_000),
    nonce=st.binary(min_size=8, max_size=8),
)


@given(decisions)
def test_sign_and_parse_round_trip(decision: DecisionId) -> None:
    signer = Signer([SECRET])
    raw = signer.sign(decision)
    text = encode(raw)
    assert len(text) == TEXT_SIZE
    assert signer.parse(text) == (raw, decision)
    assert unpack(raw) == decision
    assert decode(text) == raw


@given(decisions, decisions)
def test_text_sorts_as_the_bytes_and_the_time(one: DecisionId, other: DecisionId) -> None:
    signer = Signer([SECRET])
    raw_one, raw_other = signer.sign(one), signer.sign(other)
    assert (encode(raw_one) < encode(raw_other)) == (raw_one < raw_other)
    if one.decided_ms < other.decided_ms:
        assert raw_one < raw_other


@given(decisions, st.integers(0, TEXT_SIZE - 1), st.characters(codec="ascii", categories=["L", "N"]))
def test_parse_refuses_any_changed_character(decision: DecisionId, position: int, character: str) -> None:
    signer = Signer([SECRET])
    text = encode(signer.sign(decision))
    changed = text[:position] + character + text[position + 1 :]
    if changed == text:
        return
    with pytest.raises(InvalidDecisionId):
        signer.parse(changed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has 0 characters"),
        ("short", "has 5 characters"),
        ("-" * 43, "has 43 characters"),
        ("/" * TEXT_SIZE, "characters that no decision id has"),
        ("é" * TEXT_SIZE, "characters that no decision id has"),
        ("-" * TEXT_SIZE, "it is no decision id of this router"),
    ],
)
def test_parse_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(InvalidDecisionId, match=reason):
        Signer([SECRET]).parse(text)


def test_parse_refuses_a_foreign_signature() -> None:
    decision = DecisionId(1, 2, 3, 4, 5, b"12345678")
    text = encode(Signer(["another secret of enough length"]).sign(decision))
    with pytest.raises(InvalidDecisionId, match="signature is not ours"):
        Signer([SECRET]).parse(text)


def test_parse_accepts_ids_of_older_secrets() -> None:
    decision = DecisionId(1, 2, 3, 4, 5, b"12345678")
    text = encode(Signer([SECRET]).sign(decision))
    assert Signer(["a newer secret of enough length", SECRET]).parse(text)[1] == decision


def test_propensity_is_slots_of_ten_thousand() -> None:
    assert DecisionId(1, 2, 3, 4, 1000, b"12345678").propensity == 0.1


@pytest.mark.parametrize(
    ("experiment_id", "epoch", "drawn"),
    [(2, 3, True), (2, 0, False), (0, 0, False)],
    ids=["drawn", "forced", "outside experiments"],
)
def test_only_what_an_experiment_drew_is_drawn(experiment_id: int, epoch: int, drawn: bool) -> None:
    assert DecisionId(1, experiment_id, epoch, 1, 10_000, b"12345678").is_drawn is drawn


def test_holdout_fits_into_an_id() -> None:
    signer = Signer([SECRET])
    decision = DecisionId(1, 2, 3, HOLDOUT, 500, b"12345678")
    assert signer.parse(encode(signer.sign(decision)))[1] == decision
    assert decision.is_drawn
