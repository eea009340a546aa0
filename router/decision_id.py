"""Decision ids: self-describing, signed, and sorted by time, so that an outcome needs no look-up to be attributed."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple

from router.assignment.hashing import BUCKETS
from router.errors import InvalidDecisionId

SIZE = 33
TEXT_SIZE = 44
NO_EXPERIMENT = 0
FORCED = 0
"""The epoch of decisions whose arm the client named: it was not drawn, so it counts nowhere."""

_NOT_OURS = (
    "its signature is not ours; send the id exactly as predict returned it, or put the secret that signed it back into "
    "TURNOUT_SECRET if that was rotated too early"
)
_NO_ID = "it is no decision id of this router; send the id exactly as predict or rank returned it"
_VERSION = 1
_MAC_SIZE = 8
_BLOCK_SIZE = 64
_BODY_SIZE = SIZE - _MAC_SIZE

# Base64 with its 64 characters in ASCII order, so that the text sorts as the bytes do; all are safe in a URL.
_ORDERED = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_STANDARD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_ORDERED = bytes.maketrans(_STANDARD, _ORDERED)
_TO_STANDARD = bytes.maketrans(_ORDERED, _STANDARD)


class DecisionId(NamedTuple):
    """What a decision id says about its decision."""

    decided_ms: int
    experiment_id: int
    epoch: int
    arm: int
    slots: int
    nonce: bytes

    @property
    def is_drawn(self) -> bool:
        """Whether an experiment drew the arm, so that the decision and its outcomes count."""
        return self.experiment_id != NO_EXPERIMENT and self.epoch != FORCED

    @property
    def propensity(self) -> float:
        """The probability with which the arm was chosen."""
        return self.slots / BUCKETS


class Signer:
    """Signs decision ids with the first of its secrets and accepts those of any of them, so that secrets can rotate."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [(_key_id(secret), _Mac(secret.encode())) for secret in secrets]
        self._header = _VERSION << 4 | self._keys[0][0]
        self._mac = self._keys[0][1]

    def sign(self, decision: DecisionId) -> bytes:
        """Return the 33 raw bytes of the id."""
        decided_ms, experiment_id, epoch, arm, slots, nonce = decision
        body = b"".join(
            (
                decided_ms.to_bytes(6),
                bytes((self._header,)),
                experiment_id.to_bytes(3),
                epoch.to_bytes(4),
                bytes((arm,)),
                slots.to_bytes(2),
                nonce,
            )
        )
        return body + self._mac.of(body)

    def parse(self, text: str) -> tuple[bytes, DecisionId]:
        """Return the raw bytes and content of an id.

        Raises:
            InvalidDecisionId: It is not 44 characters of the alphabet, of another version, or not signed by us.
        """
        raw = decode(text)
        if raw[6] >> 4 != _VERSION:
            raise InvalidDecisionId(text, _NO_ID)
        if not self.signed(raw):
            raise InvalidDecisionId(text, _NOT_OURS)
        return raw, unpack(raw)

    def signed(self, raw: bytes) -> bool:
        """Return whether raw bytes are an id of this version that one of our secrets signed."""
        if len(raw) != SIZE or raw[6] >> 4 != _VERSION:
            return False
        body, mac = raw[:_BODY_SIZE], raw[_BODY_SIZE:]
        key_id = raw[6] & 15
        return any(hmac.compare_digest(mac, key.of(body)) for known, key in self._keys if known == key_id)


def encode(raw: bytes) -> str:
    """Return the 44-character text of an id's raw bytes."""
    return base64.urlsafe_b64encode(raw).translate(_TO_ORDERED).decode()


def decode(text: str) -> bytes:
    """Return the 33 raw bytes of an id's text.

    Raises:
        InvalidDecisionId: It is not 44 characters of the alphabet.
    """
    if len(text) != TEXT_SIZE:
        raise InvalidDecisionId(text, f"it has {len(text)} characters; a decision id has {TEXT_SIZE}")
    data = text.encode(errors="replace")
    if data.translate(None, _ORDERED):
        raise InvalidDecisionId(text, "it has characters that no decision id has")
    return base64.urlsafe_b64decode(data.translate(_TO_STANDARD))


def unpack(raw: bytes) -> DecisionId:
    """Return the content of raw bytes whose signature is known to be good, such as those in the ledger."""
    return DecisionId(
        decided_ms=int.from_bytes(raw[:6]),
        experiment_id=int.from_bytes(raw[7:10]),
        epoch=int.from_bytes(raw[10:14]),
        arm=raw[14],
        slots=int.from_bytes(raw[15:17]),
        nonce=raw[17:25],
    )


class _Mac:
    """Truncated HMAC-SHA-256 (RFC 2104), the key hashed once: a quarter of the time of `hmac.digest`."""

    def __init__(self, secret: bytes) -> None:
        key = hashlib.sha256(secret).digest() if len(secret) > _BLOCK_SIZE else secret
        key = key.ljust(_BLOCK_SIZE, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    def of(self, body: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.digest()[:_MAC_SIZE]


def epoch_of(raw: bytes) -> int:
    """Return the epoch alone of raw bytes whose signature is known to be good."""
    return int.from_bytes(raw[10:14])


def _key_id(secret: str) -> int:
    """Return four bits that narrow down which secret signed; secrets that share them are all tried."""
    return hashlib.sha256(secret.encode()).digest()[0] & 15
