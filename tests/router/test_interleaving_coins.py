import hashlib
from collections import Counter
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from router.interleaving.coins import Coins
from tests.router.interleavings import every_draw


class FixedBits(Coins):
    def __init__(self, *bits: int) -> None:
        self._fixed = iter(bits)

    def _bits(self) -> int:
        return next(self._fixed)


def test_numbers_are_published() -> None:
    coins = Coins("flight-choice", "user-17")
    assert [coins.next() for _ in range(3)] == [0.12362926965580545, 0.9392993104887601, 0.44964061860585636]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.text(alphabet="0123456789abcdef"))
@settings(deadline=None)
def test_a_number_is_the_first_53_bits_of_a_hash(seed: str, value: str) -> None:
    coins = Coins(seed, value)
    for counter in range(3):
        digest = hashlib.sha256(f"{seed}/interleave:{value}:{counter}".encode()).hexdigest()
        assert coins.next() == int(digest[:16], 16) // 2**11 / 2**53


def test_another_seed_or_value_has_other_numbers() -> None:
    first = {Coins(seed, value).next() for seed in ("a", "b") for value in ("u", "v")}
    assert len(first) == 4


def test_numbers_are_uniform_over_units() -> None:
    numbers = [coins.next() for unit in range(5000) for coins in [Coins("uniform", f"user-{unit}")] for _ in range(2)]
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert kstest(numbers, "uniform").pvalue > 0.01


def test_below_has_no_modulo_bias() -> None:
    # 2^53 leaves 2 when divided by 3: the two largest numbers would make 0 and 1 more probable than 2.
    assert 2**53 % 3 == 2
    assert FixedBits(2**53 - 3).below(3) == 2
    assert FixedBits(2**53 - 2, 2**53 - 1, 1).below(3) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10])
def test_below_reaches_everything_equally_often(n: int) -> None:
    coins = Coins("below", str(n))
    counts = Counter(coins.below(n) for _ in range(10_000))
    assert set(counts) == set(range(n))
    assert n == 1 or chisquare(list(counts.values())).pvalue > 0.01


def test_choose_by_hand() -> None:
    # Of the weights 1, 2 and 1 the first quarter of numbers falls to the first, the next half to the second.
    quarter = 2**51
    falls = {0: 0, quarter - 1: 0, quarter: 1, 3 * quarter - 1: 1, 3 * quarter: 2, 2**53 - 1: 2}
    assert {bits: FixedBits(bits).choose([1.0, 2.0, 1.0]) for bits in falls} == falls


def test_choose_stays_in_the_list_where_rounding_reaches_the_total() -> None:
    assert FixedBits(2**53 - 1).choose([5e-324]) == 0


def test_choose_follows_the_weights() -> None:
    weights = np.array([0.5, 3.0, 1.5, 5.0])
    coins = Coins("choose", "")
    counts = np.bincount([coins.choose(weights.tolist()) for _ in range(10_000)], minlength=4)
    assert chisquare(counts, weights / weights.sum() * 10_000).pvalue > 0.01


def test_every_order_is_equally_probable() -> None:
    drawn = every_draw(lambda coins: tuple(coins.shuffled(4)))
    assert sorted(drawn) == sorted((Fraction(1, 24), order) for order in permutations(range(4)))
