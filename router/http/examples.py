"""OpenAPI descriptions, with worked examples, of the bodies that the data plane decodes by itself."""

from dataclasses import dataclass
from typing import Any

from litestar.openapi.spec import Example, OpenAPIMediaType, OpenAPIResponse, Operation, Parameter, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType

from router.serving.requests import FORCED_ARM_HEADER

_OBJECT = Schema(type=OpenAPIType.OBJECT)
_STRING = Schema(type=OpenAPIType.STRING)
_NUMBER = Schema(type=OpenAPIType.NUMBER)
_INTEGER = Schema(type=OpenAPIType.INTEGER)

_LARGEST_INTEGER = 2**31 - 1
_INPUTS = {"origin": "JFK", "carrier": "B6", "distance": 1005.0, "hour": 8.0}
_DECISION_ID = "-NG0M3d1-----k----V--2Q7pI-AyJkVGzXbqG0b5v-R"

PREDICT_EXAMPLES = {
    "one": Example(
        summary="One input",
        value={"unit": "user-17", "inputs": _INPUTS, "context": {"country": "US"}},
    ),
    "list": Example(
        summary="Several inputs in one decision; outcomes name the row in `item`",
        value={"unit": "user-17", "inputs": [_INPUTS, {**_INPUTS, "hour": 17.0}]},
    ),
    "retry": Example(
        summary="With an idempotency key: a retry returns the stored decision",
        value={"unit": "user-17", "inputs": _INPUTS, "id": "order-2041"},
    ),
}
RANK_EXAMPLES = {
    "list": Example(
        summary="The three best of some candidates; outcomes name the candidate in `item`",
        value={
            "unit": "user-17",
            "candidates": [{"id": "B6-915", **_INPUTS}, {"id": "DL-421", **_INPUTS, "carrier": "DL"}],
            "length": 3,
        },
    ),
}
OUTCOME_EXAMPLES = {
    "label": Example(
        summary="The label that the prediction is scored against",
        value={"decision_id": _DECISION_ID, "metric": "late", "value": 1},
    ),
    "list": Example(
        summary="A list; each row gets its own receipt",
        value=[
            {"decision_id": _DECISION_ID, "metric": "click", "value": 1, "at": "2026-03-01T09:30:00Z"},
            {"decision_id": _DECISION_ID, "metric": "revenue", "value": 19.9, "id": "payment-1"},
        ],
    ),
}

_PREDICT = Schema(
    type=OpenAPIType.OBJECT,
    required=["unit", "inputs"],
    properties={
        "unit": Schema(type=OpenAPIType.STRING, min_length=1, max_length=512, description="What is randomised."),
        "inputs": Schema(
            one_of=[_OBJECT, Schema(type=OpenAPIType.ARRAY, items=_OBJECT, min_items=1)],
            description="Features as the endpoint's model declares them: one object or a list.",
        ),
        "context": Schema(type=OpenAPIType.OBJECT, description="Attributes that audiences look at."),
        "id": Schema(type=OpenAPIType.STRING, min_length=1, max_length=128, description="Idempotency key."),
    },
    additional_properties=False,
)
_PREDICT_REPLY = Schema(
    type=OpenAPIType.OBJECT,
    required=["decision_id", "endpoint", "experiment", "epoch", "arm", "model", "propensity"],
    properties={
        "decision_id": _STRING,
        "endpoint": _STRING,
        "experiment": Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL]),
        "epoch": Schema(type=[OpenAPIType.INTEGER, OpenAPIType.NULL]),
        "arm": Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL]),
        "model": _STRING,
        "propensity": _NUMBER,
        "prediction": _NUMBER,
        "predictions": Schema(type=OpenAPIType.ARRAY, items=_NUMBER),
        "served_model": _STRING,
        "fallback": _STRING,
    },
)
_RANK = Schema(
    type=OpenAPIType.OBJECT,
    required=["unit", "candidates"],
    properties={
        "unit": Schema(type=OpenAPIType.STRING, min_length=1, max_length=512, description="What is randomised."),
        "candidates": Schema(
            type=OpenAPIType.ARRAY,
            min_items=1,
            items=Schema(
                type=OpenAPIType.OBJECT,
                required=["id"],
                properties={"id": Schema(type=OpenAPIType.STRING, min_length=1, max_length=128)},
            ),
            description="Each with its `id`, unique in the list, and the features that the endpoint's model declares.",
        ),
        "context": Schema(type=OpenAPIType.OBJECT, description="Attributes that audiences look at."),
        "length": Schema(
            type=[OpenAPIType.INTEGER, OpenAPIType.NULL], minimum=1, maximum=100_000, description="How many to show."
        ),
        "id": Schema(
            type=[OpenAPIType.STRING, OpenAPIType.NULL], min_length=1, max_length=128, description="Idempotency key."
        ),
    },
    additional_properties=False,
)
_RANK_REPLY = Schema(
    type=OpenAPIType.OBJECT,
    required=["decision_id", "endpoint", "experiment", "epoch", "arm", "model", "propensity", "items"],
    properties={
        **{name: each for name, each in (_PREDICT_REPLY.properties or {}).items() if not name.startswith("prediction")},
        "items": Schema(
            type=OpenAPIType.ARRAY,
            items=Schema(
                type=OpenAPIType.OBJECT,
                required=["id", "rank", "item"],
                properties={"id": _STRING, "rank": _INTEGER, "item": _INTEGER},
            ),
            description="The candidate's id, its place from 1 on, and the `item` by which outcomes name it.",
        ),
    },
)
_FORCED_ARM = Parameter(
    name=FORCED_ARM_HEADER,
    param_in="header",
    required=False,
    schema=_STRING,
    description="For testing: an arm, as `arm` or `experiment/arm`, to use instead of drawing one. Such a decision is "
    "never analysed.",
)
_OUTCOME = Schema(
    type=OpenAPIType.OBJECT,
    required=["decision_id", "metric", "value"],
    properties={
        "decision_id": _STRING,
        "metric": _STRING,
        "value": Schema(
            type=[OpenAPIType.NUMBER, OpenAPIType.BOOLEAN, OpenAPIType.NULL],
            description="What was observed; null, with a version, retracts what was said before.",
        ),
        "item": Schema(
            type=OpenAPIType.INTEGER,
            minimum=0,
            maximum=_LARGEST_INTEGER,
            description="The row of the decision's inputs, 0 unless said; of a list, the candidate: required.",
        ),
        "at": Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL], description="RFC 3339 time with offset."),
        "id": Schema(type=[OpenAPIType.STRING, OpenAPIType.NULL], min_length=1, max_length=128),
        "version": Schema(
            type=OpenAPIType.INTEGER,
            minimum=0,
            maximum=_LARGEST_INTEGER,
            default=0,
            description="0 says it first; the highest version counts.",
        ),
    },
    additional_properties=False,
)
_RECEIPT = Schema(
    type=OpenAPIType.OBJECT,
    required=["status"],
    properties={
        "status": Schema(type=OpenAPIType.STRING, enum=["accepted", "duplicate", "rejected"]),
        "reason": _STRING,
        "field": _STRING,
    },
)
_RECEIPTS = Schema(
    type=OpenAPIType.OBJECT,
    required=["accepted", "duplicate", "rejected", "receipts"],
    properties={
        "accepted": _INTEGER,
        "duplicate": _INTEGER,
        "rejected": _INTEGER,
        "receipts": Schema(type=OpenAPIType.ARRAY, items=_RECEIPT),
    },
)


@dataclass
class PredictOperation(Operation):
    """The predict call's body and reply."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or ()), _FORCED_ARM]
        self.request_body = _body(_PREDICT, PREDICT_EXAMPLES)
        _set_reply(self, _PREDICT_REPLY, "The prediction; its decision is durable.")


@dataclass
class RankOperation(Operation):
    """The rank call's body and reply."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or ()), _FORCED_ARM]
        self.request_body = _body(_RANK, RANK_EXAMPLES)
        _set_reply(self, _RANK_REPLY, "What to show; the decision is durable.")


@dataclass
class OutcomesOperation(Operation):
    """The outcomes call's body and reply."""

    def __post_init__(self) -> None:
        # Whatever a row is, the others are recorded, and its own receipt says what is wrong with it.
        row = Schema(any_of=[_OUTCOME, Schema(description="Anything else gets the receipt `rejected`.")])
        one_or_many = Schema(one_of=[_OUTCOME, Schema(type=OpenAPIType.ARRAY, items=row)])
        self.request_body = _body(one_or_many, OUTCOME_EXAMPLES)
        _set_reply(self, Schema(one_of=[_RECEIPT, _RECEIPTS]), "What became of each outcome.")


def _body(schema: Schema, examples: dict[str, Example]) -> RequestBody:
    media: dict[str, Any] = {"application/json": OpenAPIMediaType(schema=schema, examples={**examples})}
    return RequestBody(content=media, required=True)


def _set_reply(operation: Operation, schema: Schema, description: str) -> None:
    operation.responses = {
        **(operation.responses or {}),
        "200": OpenAPIResponse(description=description, content={"application/json": OpenAPIMediaType(schema=schema)}),
    }
