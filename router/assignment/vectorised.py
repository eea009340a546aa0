"""The buckets of `hashing.bucket` for whole columns of units: a million of them in half a second."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from router.assignment.hashing import BUCKETS, fnv1a_32

_Bytes = npt.NDArray[np.uint8]
_Hashes = npt.NDArray[np.uint32]

_OFFSET_BASIS = np.uint32(fnv1a_32(b""))
_PRIME = np.uint32(0x01000193)
_BLOCK = 1 << 16
_DECIMALS = 10


def buckets(seed: str, units: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Return the bucket of every unit under `seed`."""
    # Shortest first, so that at each column the texts that go on are the last ones and need no mask.
    texts = [unit.encode() for unit in units]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    order = np.argsort(lengths, kind="stable")
    result = np.empty(len(texts), np.uint32)
    start = np.uint32(fnv1a_32(seed.encode()))
    for first in range(0, len(texts), _BLOCK):
        block = order[first : first + _BLOCK]
        joined = np.frombuffer(b"".join([texts[index] for index in block.tolist()]), np.uint8)
        result[block] = _second_round(_first_round(start, joined, lengths[block])) % np.uint32(BUCKETS)
    return result


def buckets_of_nonces(seed: str, nonces: Iterable[bytes]) -> npt.NDArray[np.uint32]:
    """Return the bucket of every decision that is drawn by its nonce (`randomise: request`)."""
    return buckets(seed, [nonce.hex() for nonce in nonces])


def _first_round(start: np.uint32, joined: _Bytes, lengths: npt.NDArray[np.int64]) -> _Hashes:
    """Return FNV-1a of texts that lie one after the other, shortest first, continued from `start`."""
    hashes = np.full(len(lengths), start, np.uint32)
    offsets = np.cumsum(lengths) - lengths
    begins = np.searchsorted(lengths, np.arange(lengths[-1]), side="right")
    for column, begin in enumerate(begins.tolist()):
        hashes[begin:] = (hashes[begin:] ^ joined[offsets[begin:] + column]) * _PRIME
    return hashes


def _second_round(inner: _Hashes) -> _Hashes:
    """Return FNV-1a of the numbers' decimal digits, without leading zeros."""
    hashes = np.full(len(inner), _OFFSET_BASIS, np.uint32)
    for position in range(_DECIMALS - 1, -1, -1):
        power = np.uint32(10**position)
        digits = inner // power % np.uint32(10) + np.uint32(ord("0"))
        hashed = (hashes ^ digits) * _PRIME
        written = True if position == 0 else inner >= power
        hashes = np.where(written, hashed, hashes)
    return hashes
