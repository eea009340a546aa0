import pytest

from router.assignment.hashing import BUCKETS, bucket, fnv1a_32


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0x811C9DC5), (b"a", 0xE40C292C), (b"foobar", 0xBF9CF968)],
)
def test_fnv1a_32_reference_vectors(data: bytes, expected: int) -> None:
    assert fnv1a_32(data) == expected


@pytest.mark.parametrize(
    ("seed", "unit", "expected"),
    [
        ("seed", "a", 505),
        ("seed", "b", 2696),
        ("foo", "ab", 2575),
        ("foo", "def", 2019),
        ("89123klj", "8952klfjas09ujkasdf", 1240),
        ("90850943850283058242805", "123", 7516),
        ("()**(%$##$%#$#", '___)((*":&', 128),
    ],
)
def test_bucket_growthbook_hash_version_2_vectors(seed: str, unit: str, expected: int) -> None:
    assert bucket(seed, unit) == expected


@pytest.mark.parametrize(("unit", "expected"), [("Zürich", 9635), ("東京", 6955), ("🚂", 8326)])
def test_bucket_outside_ascii_hashes_utf8(unit: str, expected: int) -> None:
    assert bucket("turnout", unit) == expected


def test_bucket_is_uniform() -> None:
    counts = [0] * 10
    for number in range(20_000):
        counts[bucket("uniform", f"user-{number}") * 10 // BUCKETS] += 1
    statistic = sum((count - 2000) ** 2 / 2000 for count in counts)
    # Chi-square with 9 degrees of freedom exceeds 27.9 with probability 0.001; units and seed are fixed.
    assert statistic < 27.9
