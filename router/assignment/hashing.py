"""FNV-1a hashing of units to buckets, compatible with GrowthBook's hash version 2."""

from analysis.statistics.buckets import BUCKETS as BUCKETS

_OFFSET_BASIS = 0x811C9DC5
_PRIME = 0x01000193
_MASK = 0xFFFFFFFF


def fnv1a_32(data: bytes) -> int:
    """Return the 32-bit FNV-1a hash of `data` (Fowler, Noll and Vo; RFC 9923)."""
    value = _OFFSET_BASIS
    for byte in data:
        value = ((value ^ byte) * _PRIME) & _MASK
    return value


def traffic_seed(experiment: str) -> str:
    """Return the seed under which an experiment's traffic is drawn; its arms are drawn under its name."""
    return f"{experiment}/traffic"


def bucket(seed: str, unit: str) -> int:
    """Return the bucket of `unit` under `seed`, in [0, 10 000).

    Hashes UTF-8 bytes. For ASCII text it equals `n * 10_000` of GrowthBook's hash version 2; official SDKs disagree
    with each other outside ASCII, so there our published vectors are the reference.
    """
    inner = fnv1a_32((seed + unit).encode())
    return fnv1a_32(b"%d" % inner) % BUCKETS
