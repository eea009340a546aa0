import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.assignment import vectorised
from router.assignment.hashing import bucket, fnv1a_32
from router.assignment.vectorised import buckets, buckets_of_nonces

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(texts, st.lists(texts, max_size=30))
def test_buckets_equal_those_hashed_one_by_one(seed: str, units: list[str]) -> None:
    assert buckets(seed, units).tolist() == [bucket(seed, unit) for unit in units]


@given(texts, st.lists(st.binary(min_size=8, max_size=8), max_size=30))
def test_buckets_of_nonces_hash_their_hexadecimal_digits(seed: str, nonces: list[bytes]) -> None:
    assert buckets_of_nonces(seed, nonces).tolist() == [bucket(seed, nonce.hex()) for nonce in nonces]


def test_buckets_of_more_units_than_one_block_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectorised, "_BLOCK", 7)
    units = ["u" * (number % 5) + str(number * number) for number in range(100)]
    assert buckets("blocks", units).tolist() == [bucket("blocks", unit) for unit in units]


def test_buckets_hash_inner_values_of_every_number_of_digits() -> None:
    inner = np.array([0, 9, 10, 99, 100, 999_999_999, 1_000_000_000, 2**32 - 1], np.uint32)
    expected = [fnv1a_32(str(number).encode()) for number in inner.tolist()]
    assert vectorised._second_round(inner).tolist() == expected
