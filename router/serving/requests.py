"""The predict request of an endpoint, decoded straight into a type made from its signature, and its reply."""

from functools import lru_cache
from typing import Annotated, Any

import msgspec

from models.signature import Signature, input_struct
from router.assignment.audience import Scalar
from router.documents import GIVE, fault_in
from router.errors import InvalidInput, InvalidRequest

FORCED_ARM_HEADER = "X-Turnout-Arm"
"""Names the arm to use instead of drawing one, as `arm` or `experiment/arm`."""


def _text(longest: int) -> msgspec.Meta:
    """Return what a text has to be; PostgreSQL stores no NUL in it."""
    give = f"a text without NUL, of 1 to {longest} characters"
    return msgspec.Meta(min_length=1, max_length=longest, pattern=r"^[^\x00]*$", extra={GIVE: give})


Unit = Annotated[str, _text(512)]
Key = Annotated[str, _text(128)]
Length = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Context = dict[Annotated[str, msgspec.Meta(max_length=128)], Scalar]


class PredictReply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a prediction was and how its arm was chosen. `prediction` answers a single input, `predictions` a list."""

    decision_id: str
    endpoint: str
    experiment: str | None
    epoch: int | None
    arm: str | None
    model: str
    propensity: float
    prediction: float | msgspec.UnsetType | None = msgspec.UNSET
    predictions: list[float | None] | msgspec.UnsetType = msgspec.UNSET
    served_model: str | None = None
    """The model version that answered, where it is not the assigned one."""
    fallback: str | None = None
    """Why."""


class RankedItem(msgspec.Struct, frozen=True):
    """A candidate in a list: its id, its place from 1 on, and the number by which outcomes name it."""

    id: str
    rank: int
    item: int


class RankReply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What to show, and how it was chosen."""

    decision_id: str
    endpoint: str
    experiment: str | None
    epoch: int | None
    arm: str | None
    model: str
    propensity: float
    items: list[RankedItem]
    served_model: str | None = None
    fallback: str | None = None


@lru_cache(maxsize=256)
def rank_decoder(signature: Signature) -> msgspec.json.Decoder[Any]:
    """Return the decoder of `{unit, candidates, context?, length?, id?}`; a candidate is its `id` and its features."""
    candidate = msgspec.defstruct(
        "Candidate", [("id", Key)], bases=(input_struct(signature),), frozen=True, forbid_unknown_fields=True
    )
    request = msgspec.defstruct(
        "RankRequest",
        [
            ("unit", Unit),
            ("candidates", list[candidate]),  # type: ignore[valid-type]
            ("context", Context, msgspec.field(default_factory=dict)),
            ("length", Length | None, None),
            ("id", Key | None, None),
        ],
        frozen=True,
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(request)


@lru_cache(maxsize=256)
def request_decoder(signature: Signature) -> msgspec.json.Decoder[Any]:
    """Return the decoder of `{unit, inputs, context?, id?}`, where inputs is one row or a list of rows."""
    row = input_struct(signature)
    request = msgspec.defstruct(
        "PredictRequest",
        [
            ("unit", Unit),
            ("inputs", row | list[row]),  # type: ignore[valid-type]
            ("context", Context, msgspec.field(default_factory=dict)),
            ("id", Key | None, None),
        ],
        frozen=True,
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(request)


def explain_invalid_request(
    body: bytes, error: msgspec.DecodeError, decoder: msgspec.json.Decoder[Any], signature: Signature
) -> InvalidRequest:
    """Return the error to answer with: the field, the value found there, and what the endpoint takes."""
    fault = fault_in(body, error, decoder.type)
    if not isinstance(error, msgspec.ValidationError):
        return fault.error()
    if (fault.field or "").startswith(("inputs", "candidates")):
        kinds = {feature.name: f"{feature.name} ({feature.kind})" for feature in signature.features}
        fault = fault._replace(known=tuple(kinds.get(name, name) for name in fault.known))
    return fault.error(InvalidInput)
