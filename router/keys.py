"""API keys: their text, what is kept of it, and which calls they allow."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Set
from typing import Literal, get_args

import msgspec

from router.errors import InvalidKey, KeyRequired, RevokedKey, ScopeMissing

Scope = Literal["predict", "outcome", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
LOCAL = "local"
"""Who acts in the audit log where no key was ever made: whoever is on the router's machine."""

_PREFIX = "tk"
_ID_BYTES = 6
_SECRET_BYTES = 32
_NO_HASH = bytes(hashlib.sha256().digest_size)


class ApiKey(msgspec.Struct, frozen=True):
    """A key as it is stored: a hash of its text, never the text."""

    id: str
    name: str
    scopes: frozenset[Scope]
    hash: bytes
    rate_per_s: float | None
    created_ms: int
    revoked_ms: int | None = None
    last_used_ms: int | None = None

    def allows(self, scope: Scope) -> bool:
        """Return whether calls of this scope are allowed; admin implies all."""
        return scope in self.scopes or "admin" in self.scopes


class Caller(msgspec.Struct, frozen=True):
    """Who makes a call: a key, or anybody on this machine while there are no keys."""

    key: ApiKey | None = None

    @property
    def actor(self) -> str:
        """What the audit log calls the caller."""
        return LOCAL if self.key is None else f"key {self.key.id} ({self.key.name})"

    def require(self, scope: Scope) -> None:
        """Raise ScopeMissing unless the caller may make calls of this scope."""
        if self.key is not None and not self.key.allows(scope):
            raise ScopeMissing(self.key.id, sorted(self.key.scopes), scope)


class Keyring:
    """Every key that was ever made, at one moment; it never changes."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.id: key for key in keys}
        self._open = Caller()
        self._callers = {key.id: Caller(key) for key in self._keys.values()}

    @property
    def is_open(self) -> bool:
        """Whether no key was ever made, so that calls need none; revoking the last key does not open again."""
        return not self._keys

    @property
    def has_usable_key(self) -> bool:
        """Whether some key is not revoked."""
        return any(key.revoked_ms is None for key in self._keys.values())

    def caller(self, text: str | None) -> Caller:
        """Return who shows this key.

        Raises:
            KeyRequired: There are keys, and none is shown.
            InvalidKey: It is none of ours, or revoked.
        """
        if not self._keys:
            return self._open
        if text is None:
            raise KeyRequired
        # A key that does not exist takes the same work as one whose secret is wrong.
        caller = self._callers.get(_id_of(text))
        key = None if caller is None else caller.key
        matches = hmac.compare_digest(hash_of(text), _NO_HASH if key is None else key.hash)
        if caller is None or key is None or not matches:
            raise InvalidKey
        if key.revoked_ms is not None:
            raise RevokedKey(key.id)
        return caller


def new_key(name: str, scopes: Set[Scope], rate_per_s: float | None, now_ms: int) -> tuple[ApiKey, str]:
    """Return a key to store, and its text: `tk_ID_SECRET`, the secret 256 random bits."""
    key_id = secrets.token_hex(_ID_BYTES)
    text = f"{_PREFIX}_{key_id}_{secrets.token_hex(_SECRET_BYTES)}"
    return ApiKey(key_id, name, frozenset(scopes), hash_of(text), rate_per_s, now_ms), text


def hash_of(text: str) -> bytes:
    """Return what is stored of a key; its secret is random, so that no slow hash is needed."""
    return hashlib.sha256(text.encode()).digest()


def _id_of(text: str) -> str:
    prefix, _, rest = text.partition("_")
    return rest.partition("_")[0] if prefix == _PREFIX else ""
