"""Who may make a call: the keys as they were last read, each key's own rate, and when it was last used."""

from collections.abc import Callable

from router.errors import LedgerUnavailable, RateExceeded
from router.keys import Caller, Keyring, Scope


class TokenBucket:
    """Allows `rate` calls per second on average, and up to a second's worth (at least one) at once."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._size = max(1.0, rate)
        self._clock = clock
        self._tokens = self._size
        self._filled_at = clock()

    def take(self) -> float:
        """Take one token and return 0, or take none and return the seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0


class Gate:
    """Admits calls from what is in memory, so that neither the network nor a thread stands in their way."""

    def __init__(self, *, seconds: Callable[[], float], clock: Callable[[], int]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._keyring: Keyring | None = None
        self._buckets: dict[str, TokenBucket] = {}
        self._used: dict[str, int] = {}

    def install(self, keyring: Keyring) -> None:
        """Admit by these keys from now on."""
        self._keyring = keyring

    def admit(self, text: str | None, scope: Scope) -> Caller:
        """Return who makes a call of this scope with this key.

        Raises:
            KeyRequired, InvalidKey: The key is missing, none of ours, or revoked.
            ScopeMissing: The key does not allow calls of this scope.
            RateExceeded: The key was used more often than it may be.
            LedgerUnavailable: The keys were not read yet.
        """
        if self._keyring is None:
            raise LedgerUnavailable("the router's keys are not read yet; try again in a moment")
        caller = self._keyring.caller(text)
        if caller.key is not None:
            self._used[caller.key.id] = self._clock()
            caller.require(scope)
            if caller.key.rate_per_s is not None:
                self._spend(caller.key.id, caller.key.rate_per_s)
        return caller

    def take_used(self) -> dict[str, int]:
        """Return when the keys used since the last call were last used, in milliseconds since 1970."""
        used, self._used = self._used, {}
        return used

    def _spend(self, key_id: str, rate: float) -> None:
        bucket = self._buckets.get(key_id)
        if bucket is None:
            bucket = self._buckets[key_id] = TokenBucket(rate, self._seconds)
        if wait_s := bucket.take():
            raise RateExceeded(key_id, rate, wait_s)
