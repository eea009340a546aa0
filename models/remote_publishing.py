"""From a model on another server to a model version here, after asking that server for everything it can tell."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from models.errors import InvalidSample, RemoteRefused, UnsupportedModel
from models.manifest import Draft, Remote, RemoteInput, Sample
from models.open_inference.client import InferenceClient, checked_url
from models.open_inference.datatypes import FORMS, Datatype
from models.open_inference.messages import ModelMetadata, ServerMetadata, TensorMetadata
from models.reference import ModelReference, checked_name
from models.registry import Registry, registry_at
from models.remote import RemoteCalls, token_of
from models.runtime import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE
from models.signature import Batch, BatchEncoder, Feature, Signature, input_struct

Inputs = Literal["per_feature", "single_tensor"]

FEW = 8
"""How many rows of the sample are kept; every load asks for each of them."""

_ANY_SIZE = -1


def publish_remote(
    url: str,
    model_name: str,
    signature: Signature,
    sample: Sequence[Mapping[str, Any]],
    *,
    name: str,
    registry: Registry | Path | str | None = None,
    model_version: str | None = None,
    inputs: Inputs | None = None,
    datatype: Datatype = "FP64",
    output: str | None = None,
    output_column: int | None = None,
    token_variable: str | None = None,
) -> ModelReference:
    """Put a model that a server of the Open Inference Protocol V2 runs into a registry as the next version of `name`.

    `sample` are rows as a request would carry them; what the server predicts for some of them is recorded, and every
    load asks again. Names, datatypes and shapes of tensors are the server's where it tells them; else every feature is
    a tensor of its own, or with `inputs="single_tensor"` all are one, and numbers are sent as `datatype`.
    Raises InvalidReference, InvalidSample, UnsupportedModel, RemoteError or RegistryUnavailable.
    """
    checked_name(name)
    draft_remote = Remote(
        url=checked_url(url),
        model_name=model_name,
        model_version=model_version,
        inputs="per_feature",
        tensors=(),
        output=output,
        output_column=output_column,
        token_variable=token_variable,
    )
    client = InferenceClient(draft_remote.url, model_name, model_version, token_of(draft_remote))
    try:
        client.check_ready()
        remote = _planned(draft_remote, signature, _metadata(client), inputs, datatype)
        libraries = _server_version(client)
    finally:
        client.close()
    batch, rows = _batch(signature, sample)
    draft = Draft(
        name=name,
        signature=signature,
        runtime="remote",
        float_width=None,
        libraries=libraries,
        sample=Sample(rows, _predictions(remote, signature, batch)),
        remote=remote,
        notes=(f"runs on {remote.url}, which may change what it predicts; every load compares it with the sample",),
    )
    return registry_at(registry).publish(draft, {})


def _metadata(client: InferenceClient) -> ModelMetadata | None:
    try:
        return client.model()
    except RemoteRefused:
        # The predictions will tell whether the server can be asked without knowing.
        return None


def _server_version(client: InferenceClient) -> dict[str, str]:
    try:
        server: ServerMetadata = client.server()
    except RemoteRefused:
        return {}
    return {server.name: server.version}


def _planned(
    remote: Remote, signature: Signature, metadata: ModelMetadata | None, inputs: Inputs | None, datatype: Datatype
) -> Remote:
    """Return how the server wants to be asked."""
    declared = {tensor.name: tensor for tensor in (metadata.inputs if metadata else None) or ()}
    names = [feature.name for feature in signature.features]
    if inputs is None:
        inputs = "single_tensor" if len(declared) == 1 and not declared.keys() & set(names) else "per_feature"
    if inputs == "single_tensor":
        return msgspec.structs.replace(remote, inputs=inputs, tensors=(_table(signature, declared, datatype),))
    if declared and set(declared) != set(names):
        raise UnsupportedModel(
            f"model {remote.model_name!r} at {remote.url} takes the inputs {sorted(declared)}, but the signature has "
            f"the features {sorted(names)}"
        )
    tensors = tuple(_column(feature, declared.get(feature.name), datatype) for feature in signature.features)
    return msgspec.structs.replace(remote, inputs=inputs, tensors=tensors)


def _table(signature: Signature, declared: Mapping[str, TensorMetadata], datatype: Datatype) -> RemoteInput:
    if signature.categories:
        names = ", ".join(repr(feature.name) for feature in signature.categories)
        raise UnsupportedModel(f"one tensor cannot hold all features, because {names} are categories")
    width = len(signature.features)
    tensor = next(iter(declared.values()), TensorMetadata(name="input-0", datatype=datatype, shape=[_ANY_SIZE, width]))
    if len(declared) > 1 or len(tensor.shape) != 2 or tensor.shape[1] not in {_ANY_SIZE, width}:
        shapes = {each.name: each.shape for each in declared.values()}
        raise UnsupportedModel(f"the server takes inputs of the shapes {shapes}, not one of [rows, {width}]")
    if tensor.datatype not in FORMS or tensor.datatype == "BYTES":
        raise UnsupportedModel(f"input {tensor.name!r} takes {tensor.datatype}, not numbers")
    for feature in signature.features:
        _check_null(feature, tensor)
    return RemoteInput(tensor.name, msgspec.convert(tensor.datatype, Datatype), as_column=True)


def _column(feature: Feature, declared: TensorMetadata | None, datatype: Datatype) -> RemoteInput:
    if declared is None:
        usual: dict[str, Datatype] = {"category": "BYTES", "boolean": datatype if feature.nullable else "BOOL"}
        return RemoteInput(feature.name, usual.get(feature.kind, datatype))
    if declared.datatype not in FORMS or (declared.datatype == "BYTES") != (feature.kind == "category"):
        raise UnsupportedModel(
            f"feature {feature.name!r} is a {feature.kind}, but its server takes {declared.datatype}"
        )
    if declared.datatype == "BOOL" and feature.kind != "boolean":
        raise UnsupportedModel(f"feature {feature.name!r} is a {feature.kind}, but its server takes BOOL")
    if len(declared.shape) not in (1, 2) or (len(declared.shape) == 2 and declared.shape[1] not in {_ANY_SIZE, 1}):
        raise UnsupportedModel(f"input {declared.name!r} has the shape {declared.shape}, not [rows] or [rows, 1]")
    _check_null(feature, declared)
    return RemoteInput(feature.name, msgspec.convert(declared.datatype, Datatype), len(declared.shape) == 2)


def _check_null(feature: Feature, tensor: TensorMetadata) -> None:
    if feature.nullable and feature.kind != "category" and not tensor.datatype.startswith("FP"):
        raise UnsupportedModel(
            f"feature {feature.name!r} may be null, for which {tensor.datatype}, which its server takes, has no value"
        )


def _batch(signature: Signature, sample: Sequence[Mapping[str, Any]]) -> tuple[Batch, tuple[dict[str, Any], ...]]:
    """Return some rows of the sample, evenly spread, encoded and as they are stored."""
    places = np.unique(np.linspace(0, len(sample) - 1, FEW).astype(np.intp)).tolist() if sample else []
    if not places:
        raise InvalidSample("there are no rows")
    try:
        rows = msgspec.convert([dict(sample[place]) for place in places], list[input_struct(signature)])  # type: ignore[misc]
    except msgspec.ValidationError as error:
        raise InvalidSample(f"the sample does not fit the signature: {error}") from None
    return BatchEncoder(signature).encode(rows), tuple(msgspec.to_builtins(rows))


def _predictions(remote: Remote, signature: Signature, batch: Batch) -> tuple[float, ...]:
    """Return what the server predicts for each row alone, which must be what it predicts for all together."""
    calls = RemoteCalls(remote, signature)
    try:
        alone = [calls.predict(batch.take(np.array([row]))).item() for row in range(len(batch.numbers))]
        together = calls.predict(batch).tolist()
    finally:
        calls.client.close()
    for row, (one, other) in enumerate(zip(alone, together, strict=True)):
        if not math.isfinite(one) or (signature.output == "probability" and not 0 <= one <= 1):
            raise InvalidSample(f"the server predicts {one!r} for row {row}, which is no {signature.output}")
        if not math.isclose(one, other, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE):
            raise UnsupportedModel(
                f"the server predicts {one!r} for row {row} alone, but {other!r} among others: rows must not depend on "
                "each other"
            )
    return tuple(alone)
