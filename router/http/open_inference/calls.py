"""What an inference call says besides its tensors, and its reply."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.open_inference.bodies import Body, read_request, write_response
from models.open_inference.messages import BINARY_OUTPUT, BINARY_OUTPUTS, InferRequest, InferResponse, RequestedOutput
from models.open_inference.tensors import Tensor
from models.signature import Signature
from router.assignment.audience import Context
from router.decision_id import encode
from router.documents import fault_at
from router.errors import InvalidRequest
from router.http.open_inference.inputs import rows_of
from router.serving.answering import PredictRequest
from router.serving.replies import Answered
from router.serving.requests import Context as ContextType
from router.serving.requests import Key, Unit

OUTPUT = "prediction"
"""The name of the one output tensor: FP64, shape [rows]."""

_UNIT, _KEY = "unit", "id"
_NOT_CONTEXT = frozenset(
    {
        _UNIT,
        _KEY,
        BINARY_OUTPUTS,
        "content_type",
        "headers",
        "priority",
        "timeout",
        "sequence_id",
        "sequence_start",
        "sequence_end",
    }
)
_PREFIX_NOT_CONTEXT = "triton_"


class Call(NamedTuple):
    """A decoded inference call."""

    id: str | None
    """The protocol's own, which is echoed."""
    request: PredictRequest
    binary: bool
    """Whether the client wants the output as bytes."""


def read_call(body: bytes, header_length: str | None, signature: Signature) -> Call:
    """Return what a body asks for.

    Raises:
        InvalidRequest: It is no inference request, or its parameters or outputs are none of ours.
        InvalidInput: Its tensors are not the endpoint's features.
        InvalidTensor: A tensor contradicts itself.
    """
    try:
        message, tensors = read_request(body, header_length)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body is not an inference request: {error}") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(
            f"the body does not begin with valid JSON: {error}; NaN is none: send null, or tensors as bytes"
        ) from None
    parameters = message.parameters
    request = PredictRequest(
        unit=_unit(message),
        rows=rows_of(tensors, signature),
        context=_context(parameters),
        key=None if parameters.get(_KEY) is None else _checked(parameters[_KEY], Key, _KEY),
        single=False,
    )
    return Call(message.id, request, _wants_binary(message.outputs, parameters))


def routed_reply(endpoint: str, call: Call, answered: Answered) -> Body:
    """Return the reply to a call that the endpoint routed."""
    row = answered.row
    parameters: dict[str, Any] = {
        "decision_id": encode(row.id),
        "experiment": answered.experiment,
        "epoch": row.epoch,
        "arm": answered.arm,
        "propensity": row.propensity,
        "model": row.model,
        "routed": True,
    }
    if row.fallback is not None:
        parameters |= {"served_model": row.served_model, "fallback": row.fallback}
    said = {name: value for name, value in parameters.items() if value is not None}
    return _reply(endpoint, call, row.served_model, said, answered.predictions)


def unrouted_reply(endpoint: str, call: Call, version: str, predictions: Sequence[float]) -> Body:
    """Return the reply to a call that named a model version: nothing was decided."""
    return _reply(endpoint, call, version, {"model": version, "routed": False}, predictions)


def _reply(
    endpoint: str, call: Call, version: str, parameters: dict[str, Any], predictions: Sequence[float | None]
) -> Body:
    response = InferResponse(
        model_name=endpoint,
        model_version=version,
        id=call.id or parameters.get("decision_id") or str(uuid.uuid4()),
        parameters=parameters,
        outputs=[],
    )
    output = Tensor(OUTPUT, "FP64", np.array(predictions, dtype=np.float64))
    return write_response(response, [output], [call.binary])


def _unit(message: InferRequest) -> str:
    """Return the unit: the parameter, else the request's id, the idempotency key, or one that never comes back."""
    if message.parameters.get(_UNIT) is not None:
        return _checked(message.parameters[_UNIT], Unit, _UNIT)
    if message.id:
        try:
            return msgspec.convert(message.id, Unit)
        except msgspec.ValidationError as error:
            reason = fault_at(message.id, error, Unit).reason
            raise InvalidRequest(f"id stands for the missing parameter unit, but {reason}", field="id") from None
    key = message.parameters.get(_KEY)
    return uuid.uuid4().hex if key is None else _checked(key, Key, _KEY)


def _checked(value: Any, type_: Any, name: str) -> str:
    try:
        checked: str = msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise fault_at(value, error, type_).within(f"parameters.{name}").error() from None
    return checked


def _context(parameters: Mapping[str, Any]) -> Context:
    context = {
        name: value
        for name, value in parameters.items()
        if value is not None and name not in _NOT_CONTEXT and not name.startswith(_PREFIX_NOT_CONTEXT)
    }
    try:
        return msgspec.convert(context, ContextType)
    except msgspec.ValidationError as error:
        raise fault_at(context, error, ContextType).within("parameters").error() from None


def _wants_binary(outputs: Sequence[RequestedOutput], parameters: Mapping[str, Any]) -> bool:
    unknown = [output.name for output in outputs if output.name != OUTPUT]
    if unknown:
        raise InvalidRequest(f"there is no output {unknown[0]!r}; the endpoint gives {OUTPUT!r}", field="outputs")
    wanted = outputs[0].parameters.get(BINARY_OUTPUT) if outputs else None
    wanted = parameters.get(BINARY_OUTPUTS, False) if wanted is None else wanted
    if not isinstance(wanted, bool):
        raise InvalidRequest(f"{BINARY_OUTPUT} and {BINARY_OUTPUTS} are true or false, not {wanted!r}")
    return wanted
