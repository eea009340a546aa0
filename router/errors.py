"""What can go wrong in the router.

    TurnoutError
    ├── InvalidRequest            the request cannot be understood or contradicts itself
    │   ├── InvalidInput          a feature is missing, unknown, of the wrong type or empty
    │   ├── InvalidDocument       an endpoint or experiment contradicts itself or what is registered
    │   └── InvalidDecisionId     a decision id that this router did not sign
    ├── RequestTooLarge
    ├── Unauthenticated           the call needs an API key
    │   ├── KeyRequired           it carries none
    │   ├── InvalidKey            it carries one that is not ours
    │   └── RevokedKey
    ├── ScopeMissing              the key does not allow this call
    ├── RateExceeded              the key was used more often than it may be
    ├── NotFound
    │   ├── UnknownEndpoint
    │   ├── UnknownExperiment
    │   ├── UnknownRollout
    │   ├── UnknownDecision
    │   └── UnknownKey
    ├── Conflict                  the resource is not in a state that allows this
    │   ├── AlreadyExists
    │   └── NotAdvancing          the evidence does not say what the caller waits for
    ├── RevisionRequired          a write without If-Match
    ├── RevisionMismatch          somebody else wrote first
    ├── PredictionFailed          neither the assigned arm nor the champion answered
    ├── Unavailable               nothing was acknowledged; try again
    │   ├── Overloaded            a bounded queue is full
    │   ├── ChampionUnavailable   the endpoint's champion could not be loaded
    │   ├── LedgerUnavailable     the ledger did not commit or does not answer
    │   └── StaleRoutes           another process made something that this one has not read yet
    └── CannotStart               settings, port, folder or database make it impossible to serve

No HTTP status stands here; `router/http/problems.py` maps every class to one.
"""

from collections.abc import Sequence


class TurnoutError(Exception):
    """Base of every error that the router raises on purpose."""


class InvalidRequest(TurnoutError):
    """The request cannot be understood or contradicts itself."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidInput(InvalidRequest):
    """A feature of a prediction's input is missing, unknown, of the wrong type or empty."""


class InvalidDocument(InvalidRequest):
    """An endpoint or experiment contradicts itself or what is registered."""


class InvalidDecisionId(InvalidRequest):
    """A decision id that this router did not sign."""

    def __init__(self, text: str, reason: str) -> None:
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        super().__init__(f"decision_id {shown!r} is not valid: {reason}", field="decision_id")


class RequestTooLarge(TurnoutError):
    """The body or batch exceeds its limit."""


class Unauthenticated(TurnoutError):
    """The call needs an API key; nothing of what was sent stands in the message."""


class KeyRequired(Unauthenticated):
    """The call carries no key."""

    def __init__(self) -> None:
        super().__init__("this router needs an API key: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`")


class InvalidKey(Unauthenticated):
    """The call carries a key that is not ours."""

    def __init__(self) -> None:
        super().__init__(
            "the API key is not one of this router's; send it whole, as `turnout key create` printed it, or ask an "
            "operator for another"
        )


class RevokedKey(Unauthenticated):
    """The key is ours but was revoked."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"API key {key_id!r} is revoked; ask an operator for another")


class ScopeMissing(TurnoutError):
    """The key does not allow this call."""

    def __init__(self, key_id: str, scopes: list[str], needed: str) -> None:
        super().__init__(
            f"API key {key_id!r} has the scopes {', '.join(scopes)}, but this call needs {needed!r}; use a key that "
            f"has it, such as from: turnout key create --scope {needed} --name NAME"
        )


class RateExceeded(TurnoutError):
    """The key was used more often than it may be."""

    def __init__(self, key_id: str, rate_per_s: float, retry_after_s: float) -> None:
        super().__init__(f"API key {key_id!r} is limited to {rate_per_s:g} calls per second; slow down")
        self.retry_after_s = retry_after_s


class NotFound(TurnoutError):
    """There is no such resource."""


class UnknownEndpoint(NotFound):
    """There is no endpoint of that name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"there is no endpoint {name!r}; known endpoints: {', '.join(known) or 'none yet'}")


class UnknownExperiment(NotFound):
    """There is no experiment of that name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"there is no experiment {name!r}; known experiments: {', '.join(known) or 'none yet'}")


class UnknownRollout(NotFound):
    """There is no rollout of that name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"there is no rollout {name!r}; known rollouts: {', '.join(known) or 'none yet'}")


class UnknownDecision(NotFound):
    """The id is ours but its decision is not in this ledger."""

    def __init__(self, text: str) -> None:
        super().__init__(f"decision {text!r} is not in this ledger")


class UnknownKey(NotFound):
    """There is no API key of that id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no API key {key_id!r}; see: turnout key list")


class Conflict(TurnoutError):
    """The resource is not in a state that allows this."""


class AlreadyExists(Conflict):
    """The name is taken."""


class NotAdvancing(Conflict):
    """The evidence does not say what the caller waits for."""

    def __init__(self, name: str, verdict: str, awaited: str, reasons: Sequence[str]) -> None:
        super().__init__(f"experiment {name!r}: the verdict is {verdict!r}, not {awaited!r}: {'; '.join(reasons)}")


class RevisionRequired(TurnoutError):
    """A write without the revision that it is based on."""


class RevisionMismatch(TurnoutError):
    """Somebody else wrote first."""

    def __init__(self, thing: str, current: int, given: int | str) -> None:
        super().__init__(
            f"{thing} is at revision {current}, not {given}: read it again, then repeat the change with If-Match: "
            f'"{current}"'
        )


class PredictionFailed(TurnoutError):
    """Neither the assigned arm nor the champion answered."""


class Unavailable(TurnoutError):
    """Nothing was acknowledged; the same request may succeed in a moment."""


class Overloaded(Unavailable):
    """A bounded queue is full."""


class ChampionUnavailable(Unavailable):
    """The endpoint's champion could not be loaded."""


class LedgerUnavailable(Unavailable):
    """The ledger did not commit or does not answer."""


class StaleRoutes(Unavailable):
    """Another process made something that this one has not read yet."""


class CannotStart(TurnoutError):
    """Settings, port, folder or database make it impossible to serve."""
