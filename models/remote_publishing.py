"""From a model on another server to a model version here, after asking that server for everything it can tell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from models.errors import RemoteRefused, UnsupportedModel
from models.manifest import Draft, InputTensor, Remote, Sample
from models.open_inference.client import InferenceClient, checked_url
from models.open_inference.datatypes import FORMS, Datatype
from models.open_inference.messages import ModelMetadata, ServerMetadata, TensorMetadata
from models.reference import ModelReference, checked_name
from models.registry import Registry, registry_at
from models.remote import RemoteCalls, token_of
from models.sampling import encoded, sample_of
from models.signature import Batch, Feature, Signature
from models.tensors import check_takes

Inputs = Literal["per_feature", "single_tensor"]

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
    draft = Draft(
        name=name,
        signature=signature,
        runtime="remote",
        float_width=None,
        libraries=libraries,
        sample=_sample(remote, signature, encoded(sample, signature)),
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


def _table(signature: Signature, declared: Mapping[str, TensorMetadata], datatype: Datatype) -> InputTensor:
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
        check_takes(feature, tensor.datatype, "its server")
    return InputTensor(tensor.name, msgspec.convert(tensor.datatype, Datatype), as_column=True)


def _column(feature: Feature, declared: TensorMetadata | None, datatype: Datatype) -> InputTensor:
    if declared is None:
        usual: dict[str, Datatype] = {"category": "BYTES", "boolean": datatype if feature.nullable else "BOOL"}
        return InputTensor(feature.name, usual.get(feature.kind, datatype))
    check_takes(feature, declared.datatype, "its server")
    if len(declared.shape) not in (1, 2) or (len(declared.shape) == 2 and declared.shape[1] not in {_ANY_SIZE, 1}):
        raise UnsupportedModel(f"input {declared.name!r} has the shape {declared.shape}, not [rows] or [rows, 1]")
    return InputTensor(feature.name, msgspec.convert(declared.datatype, Datatype), len(declared.shape) == 2)


def _sample(remote: Remote, signature: Signature, batch: Batch) -> Sample:
    calls = RemoteCalls(remote, signature)
    try:
        return sample_of(calls.predict, batch, signature, "the server")
    finally:
        calls.client.close()
