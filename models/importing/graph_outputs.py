"""Where an ONNX graph leaves its prediction: a column of a tensor, or a class of ZipMap's dictionaries."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from models.errors import UnsupportedModel
from models.signature import Output

FLOATS = {"tensor(double)", "tensor(float)", "tensor(float16)"}
INTEGERS = {"tensor(int32)", "tensor(int64)"}


class GraphOutput(NamedTuple):
    """An output of a graph, the column or class in it that is the prediction, and what it predicts."""

    name: str
    column: int | None
    key: int | str | None
    output: Output


def named_output(session: Any, wanted: Output | None) -> str:
    """The name of the one output that can be a prediction; raises UnsupportedModel if there is none or several."""
    nodes = session.get_outputs()
    found = [node.name for node in nodes if node.type in FLOATS or node.type.startswith("seq(map(")]
    if not found and wanted == "number":
        found = [node.name for node in nodes if node.type in INTEGERS]
    likely = [name for name in found if "prob" in name.lower()] if len(found) > 1 else found
    if len(likely) == 1:
        return str(likely[0])
    given = ", ".join(f"{node.name} {node.type}" for node in nodes)
    if not found:
        raise UnsupportedModel(
            f"the graph gives {given}, of which none is a probability or a number: export it with its probabilities"
        )
    raise UnsupportedModel(
        f"the graph gives {given}, of which several could be the prediction: export it with one of them "
        "(onnx.utils.extract_model cuts a graph down to the outputs that are named)"
    )


def read_output(name: str, value: Any, rows: int, wanted: Output | None) -> GraphOutput:
    """How to read the prediction out of what an output held for so many rows; raises UnsupportedModel."""
    if isinstance(value, list):
        return _of_classes(name, value, wanted)
    columns = _columns(name, value, rows)
    if columns == 1:
        return GraphOutput(name, None, None, wanted or "number")
    if columns == 2 and wanted != "number":
        return GraphOutput(name, 1, None, "probability")
    raise UnsupportedModel(
        f"output {name!r} of the graph holds {columns} numbers for a row: a number is one, and a probability one or "
        "the second of two"
    )


def _of_classes(name: str, value: Sequence[Any], wanted: Output | None) -> GraphOutput:
    classes = list(value[0]) if isinstance(value[0], dict) else []
    if len(classes) != 2:
        raise UnsupportedModel(
            f"output {name!r} of the graph holds the classes {classes}: only probabilities of two classes are served"
        )
    if wanted == "number":
        raise UnsupportedModel(f"output {name!r} of the graph holds probabilities: import it with output 'probability'")
    return GraphOutput(name, None, classes[1], "probability")


def _columns(name: str, value: Any, rows: int) -> int:
    shape = list(np.shape(value))
    if not shape or shape[0] != rows:
        raise UnsupportedModel(f"output {name!r} of the graph has the shape {shape} for {rows} rows, not one for each")
    return int(np.prod(shape[1:]))
