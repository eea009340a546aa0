"""Small ONNX graphs as other people's exporters write them, made node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

FLOAT, DOUBLE, INT64, BOOL, STRING = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)
Shape = Sequence[int | str | None]


def model(
    inputs: Mapping[str, tuple[int, Shape]],
    nodes: Sequence[Any],
    outputs: Mapping[str, tuple[int, Shape]],
    numbers: Mapping[str, Any] = {},
) -> Any:
    """A graph of nodes between such inputs and outputs, with named constant arrays."""

    def infos(tensors: Mapping[str, tuple[int, Shape]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, *tensor) for name, tensor in tensors.items()]

    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()]
    graph = helper.make_graph(list(nodes), "graph", infos(inputs), infos(outputs), arrays)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def weighted(shape: Shape = (None, 3), *, sigmoid: bool = False, columns: int = 1) -> Any:
    """Takes one tensor `X`; gives the sum of its columns times 1, 10 and 100, or the logistic function of that."""
    weights = np.repeat(np.array([[1.0], [10.0], [100.0]], np.float32), columns, axis=1)
    nodes = [helper.make_node("MatMul", ["X", "weights"], ["total"])]
    nodes.append(helper.make_node("Sigmoid" if sigmoid else "Identity", ["total"], ["y"]))
    return model({"X": (FLOAT, shape)}, nodes, {"y": (FLOAT, [None, columns])}, {"weights": weights})


def typed() -> Any:
    """Takes an integer, a truth value and a text; gives the integer, plus 0.5 if true, plus 100 for the text UA."""
    codes: dict[str, Any] = {"keys_strings": ["UA"], "values_floats": [100.0], "default_float": 0.0}
    nodes = [
        helper.make_node("Cast", ["flights"], ["a"], to=FLOAT),
        helper.make_node("Cast", ["weekend"], ["b"], to=FLOAT),
        helper.make_node("LabelEncoder", ["carrier"], ["c"], domain="ai.onnx.ml", **codes),
        helper.make_node("Mul", ["b", "half"], ["halves"]),
        helper.make_node("Sum", ["a", "halves", "c"], ["y"]),
    ]
    inputs = {"flights": (INT64, [None, 1]), "weekend": (BOOL, [None, 1]), "carrier": (STRING, [None, 1])}
    return model(inputs, nodes, {"y": (FLOAT, [None, 1])}, {"half": np.array([0.5], np.float32)})


def written(graph: Any, folder: Path, name: str = "model.onnx", **options: Any) -> Path:
    """The file of a graph."""
    save(graph, folder / name, **options)
    return folder / name
