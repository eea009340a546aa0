"""The inputs of an ONNX graph, and which features go into which of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from models.errors import InvalidSample, UnsupportedModel
from models.manifest import InputTensor
from models.open_inference.datatypes import Datatype
from models.signature import Feature, Kind
from models.tensors import check_takes

DATATYPES: dict[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(double)": "FP64",
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(int8)": "INT8",
    "tensor(string)": "BYTES",
    "tensor(uint8)": "UINT8",
}
NAMES_NEEDED = "give rows with named columns (--sample) or a signature (--signature)"


class GraphInput(NamedTuple):
    """An input of a graph; its width in columns is None where the graph leaves that open."""

    tensor: InputTensor
    width: int | None

    @property
    def is_text(self) -> bool:
        """Whether it takes categories."""
        return self.tensor.datatype == "BYTES"


class Layout(NamedTuple):
    """Features, and the tensors that they fill."""

    inputs: Literal["per_feature", "per_kind"]
    tensors: tuple[InputTensor, ...]
    features: tuple[Feature, ...]


def inputs_of(session: Any) -> list[GraphInput]:
    """The inputs of a session of onnxruntime; raises UnsupportedModel for one that rows cannot fill."""
    return [_input(node.name, node.type, node.shape) for node in session.get_inputs()]


def laid_out(
    inputs: Sequence[GraphInput], rows: Sequence[Mapping[str, Any]] | None, features: tuple[Feature, ...] | None
) -> Layout:
    """Fill the inputs with declared features, or else with columns of the rows, or else as the inputs are named."""
    names = [feature.name for feature in features] if features else list(rows[0]) if rows else None
    own = {each.tensor.name: each for each in inputs}
    if all(each.width == 1 for each in inputs) and names is None:
        names = list(own)
    if names is None:
        raise InvalidSample(f"the graph does not name its features, only its inputs {list(own)}: {NAMES_NEEDED}")
    if own.keys() <= set(names) and all(each.width in {1, None} for each in inputs):
        return _per_feature(own, features or tuple(_feature(name, own[name].tensor, rows or ()) for name in own))
    texts, numbers = ([each for each in inputs if each.is_text is is_text] for is_text in (True, False))
    if len(texts) > 1 or len(numbers) > 1:
        missing = ", ".join(repr(name) for name in own if name not in names)
        raise InvalidSample(
            f"the graph takes the inputs {list(own)}, but the features are {names}, of which none is {missing}: name "
            "them as the graph does"
        )
    return _per_kind(inputs, features or tuple(_column(name, rows or ()) for name in names))


def _input(name: str, type_: str, shape: Sequence[int | str | None]) -> GraphInput:
    datatype = DATATYPES.get(type_)
    if datatype is None:
        raise UnsupportedModel(f"input {name!r} of the graph takes {type_}, which is none of {', '.join(DATATYPES)}")
    if len(shape) not in (1, 2):
        raise UnsupportedModel(
            f"input {name!r} of the graph has the shape {list(shape)}: rows fill [rows], [rows, 1] or [rows, features]"
        )
    if isinstance(shape[0], int):
        raise UnsupportedModel(
            f"input {name!r} of the graph has a first axis of exactly {shape[0]}: export it with one of any "
            f"length (in torch.onnx.export dynamic_axes={{{name!r}: {{0: 'rows'}}}}, in skl2onnx a type of [None, k])"
        )
    width = 1 if len(shape) == 1 else shape[1] if isinstance(shape[1], int) else None
    return GraphInput(InputTensor(name, datatype, as_column=len(shape) == 2), width)


def _per_feature(own: Mapping[str, GraphInput], features: tuple[Feature, ...]) -> Layout:
    if extra := [feature.name for feature in features if feature.name not in own]:
        raise InvalidSample(f"the graph has no input for the features {extra}: it takes {list(own)}")
    tensors = tuple(own[feature.name].tensor for feature in features)
    for feature, tensor in zip(features, tensors, strict=True):
        check_takes(feature, tensor.datatype, "the graph")
    return Layout("per_feature", tensors, features)


def _per_kind(inputs: Sequence[GraphInput], features: tuple[Feature, ...]) -> Layout:
    for is_text, kind in ((True, "categories"), (False, "numbers")):
        taken = [feature for feature in features if (feature.kind == "category") is is_text]
        holders = [each for each in inputs if each.is_text is is_text]
        width = holders[0].width if holders else 0
        if width not in {len(taken), None}:
            what = f"input {holders[0].tensor.name!r} takes {width} {kind}" if holders else f"it takes no {kind}"
            raise InvalidSample(
                f"the graph does not fit the features: {what}, but {len(taken)} are given, "
                f"{[feature.name for feature in taken]}; leave out what is no feature, such as the label, "
                "or say which are (--signature)"
            )
        for feature in taken:
            check_takes(feature, holders[0].tensor.datatype, "the graph")
    return Layout("per_kind", tuple(each.tensor for each in inputs), features)


def _feature(name: str, tensor: InputTensor, rows: Sequence[Mapping[str, Any]]) -> Feature:
    kinds: dict[str, Kind] = {"BYTES": "category", "BOOL": "boolean"}
    seen = _column(name, rows)
    usual: Kind = "boolean" if seen.kind == "boolean" else "number"
    return Feature(name, kinds.get(tensor.datatype, usual), seen.nullable)


def _column(name: str, rows: Sequence[Mapping[str, Any]]) -> Feature:
    values = [row.get(name) for row in rows]
    present = [value for value in values if value is not None]
    kind: Kind = "number"
    if present and all(isinstance(value, bool) for value in present):
        kind = "boolean"
    elif any(isinstance(value, str) for value in present):
        kind = "category"
    return Feature(name, kind, nullable=len(present) < len(values))
