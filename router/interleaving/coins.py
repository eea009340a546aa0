"""Chance that can be replayed: uniform numbers that follow from a seed and a value, the same on every machine."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

_BITS = 53
_RANGE: int = 2**_BITS


class Coins:
    """The uniform numbers of one draw.

    Number n is the first 53 bits of the SHA-256 hash of `{seed}/interleave:{value}:{n}`, from n = 0 on. The seed is the
    experiment's name, the value what is randomised: the unit, or the decision's nonce in hexadecimal digits.
    """

    def __init__(self, seed: str, value: str) -> None:
        self._prefix = hashlib.sha256(f"{seed}/interleave:{value}:".encode())
        self._counter = 0

    def next(self) -> float:
        """Return the next number in [0, 1), a multiple of 2 to the power of -53."""
        return self._bits() / _RANGE

    def below(self, n: int) -> int:
        """Return one of 0 .. n - 1, each with exactly the same probability."""
        fair = _RANGE - _RANGE % n
        while (bits := self._bits()) >= fair:
            pass
        return bits % n

    def choose(self, weights: Sequence[float]) -> int:
        """Return the index of one of the positive weights, with a probability in proportion to it."""
        bounds = list(accumulate(weights))
        return min(bisect_right(bounds, self.next() * bounds[-1]), len(bounds) - 1)

    def shuffled(self, n: int) -> list[int]:
        """Return 0 .. n - 1 in one of all orders, each as probable (Fisher and Yates)."""
        order = list(range(n))
        for last in range(n - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def _bits(self) -> int:
        digest = self._prefix.copy()
        digest.update(b"%d" % self._counter)
        self._counter += 1
        return int.from_bytes(digest.digest()[:8], "big") >> (64 - _BITS)
