"""A served estimator as an ONNX graph, exact to a measured limit on every row at hand."""

import warnings
from copy import copy, deepcopy
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.edges import settle_edges
from models.errors import ParityExceeded, UnsupportedModel
from models.manifest import Parity
from models.onnx_graph import CATEGORIES, NUMBERS, OnnxGraph
from models.signature import Batch

PARITY_LIMIT = 1e-4
WIDTHS: tuple[Literal[32], Literal[64]] = (32, 64)


class Export(NamedTuple):
    """A graph in ONNX format, the width of its floats in bits, and how far it strays from its estimator."""

    content: bytes
    float_width: Literal[32, 64]
    parity: Parity


def to_onnx(served: Any, batch: Batch, expected: NDArray[np.float64], limit: float = PARITY_LIMIT) -> Export:
    """The graph of an estimator that takes `Batch.joined()`, in the narrowest floats within the limit.

    `expected` is what the estimator predicts for the batch, shape [n]. Raises ParityExceeded when every graph that
    runs strays further, and UnsupportedModel when none can be made.
    """
    settled = settle_edges(deepcopy(served))
    shortfalls: list[str] = []
    reasons: list[str] = []
    for width in WIDTHS:
        try:
            content = _graph(settled, batch, width)
            difference = _difference(content, width, batch, expected)
        except UnsupportedModel as error:
            reasons.append(str(error))
            continue
        if difference <= limit:
            return Export(content, width, Parity(difference, len(expected), limit))
        shortfalls.append(f"by {difference:.1e} in float{width}")
    if shortfalls:
        raise ParityExceeded(
            f"ONNX and scikit-learn differ {' and '.join(shortfalls)} on {len(expected)} rows; {limit:.0e} is allowed"
        )
    raise UnsupportedModel("; ".join(dict.fromkeys(reasons)))


def _difference(content: bytes, width: Literal[32, 64], batch: Batch, expected: NDArray[np.float64]) -> float:
    graph = OnnxGraph(content, width)
    try:
        found = graph.predict(batch)
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise UnsupportedModel(f"the graph does not run on every row: {error}") from error
    difference = float(np.max(np.abs(found - expected)))
    return difference if np.isfinite(difference) else float("inf")


def _graph(served: Any, batch: Batch, width: int) -> bytes:
    """The serialised graph, cut down to the one output that is served."""
    calibration = _sigmoid_calibration(served)
    if calibration is None:
        return _converted(served, batch, width, raw=False).SerializeToString()  # type: ignore[no-any-return]
    base, calibrator = calibration
    raw = hasattr(base, "decision_function")
    graph = _converted(base, batch, width, raw=raw)
    return _with_sigmoid(graph, width, calibrator).SerializeToString()  # type: ignore[no-any-return]


def _converted(estimator: Any, batch: Batch, width: int, *, raw: bool) -> Any:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs
    from sklearn.base import is_classifier

    floats = FloatTensorType if width == 32 else DoubleTensorType
    columns = [(NUMBERS, floats, batch.numbers.shape[1]), (CATEGORIES, StringTensorType, batch.categories.shape[1])]
    types = [(name, tensor([None, count])) for name, tensor, count in columns if count]
    options: dict[int, dict[str, bool]] = {}
    if is_classifier(estimator):
        options[id(estimator)] = {"zipmap": False}
        options[id(_last_step(estimator))] = {"zipmap": False} | ({"raw_scores": True} if raw else {})
    try:
        with warnings.catch_warnings():
            # skl2onnx writes booleans where protobuf wants integers.
            warnings.filterwarnings("ignore", "Field onnx.AttributeProto.ints", DeprecationWarning)
            graph = convert_sklearn(estimator, initial_types=types, options=options)
        # The output before the last is the class, which nobody asks for.
        return select_model_inputs_outputs(graph, outputs=[graph.graph.output[-1].name])
    except Exception as error:  # skl2onnx raises whatever its converters happen to meet
        reason = str(error).strip().partition("\n")[0][:200]
        raise UnsupportedModel(f"{type(estimator).__name__} cannot be converted: {reason}") from error


def _last_step(estimator: Any) -> Any:
    return _last_step(estimator.steps[-1][1]) if hasattr(estimator, "steps") else estimator


def _sigmoid_calibration(served: Any) -> tuple[Any, Any] | None:
    """The uncalibrated estimator and its one sigmoid, when that is how the estimator ends."""
    calibrated = _last_step(served)
    parts: Any = getattr(calibrated, "calibrated_classifiers_", ())
    if len(parts) != 1 or [type(part).__name__ for part in parts[0].calibrators] != ["_SigmoidCalibration"]:
        return None
    return _with_last_step(served, parts[0].estimator), parts[0].calibrators[0]


def _with_last_step(estimator: Any, last: Any) -> Any:
    if not hasattr(estimator, "steps"):
        return last
    changed = copy(estimator)
    name, step = estimator.steps[-1]
    changed.steps = [*estimator.steps[:-1], (name, _with_last_step(step, last))]
    return changed


def _with_sigmoid(model: Any, width: int, calibrator: Any) -> Any:
    """The graph followed by the calibrator's 1 / (1 + exp(a score + b)), in two nodes.

    skl2onnx spends fourteen nodes on this, which take longer than a tree ensemble.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, dtype = model.graph, np.float32 if width == 32 else np.float64
    score = graph.output[0]
    slope = np.array([[0.0], [-calibrator.a_]], dtype)
    graph.initializer.append(numpy_helper.from_array(slope, "calibration_slope"))
    graph.initializer.append(numpy_helper.from_array(np.array([-calibrator.b_], dtype), "calibration_offset"))
    graph.node.extend(
        [
            helper.make_node("Gemm", [score.name, "calibration_slope", "calibration_offset"], ["calibrated_score"]),
            helper.make_node("Sigmoid", ["calibrated_score"], ["calibrated_probability"]),
        ]
    )
    floats = TensorProto.FLOAT if width == 32 else TensorProto.DOUBLE
    graph.output.pop()
    graph.output.append(helper.make_tensor_value_info("calibrated_probability", floats, [None, 1]))
    return model
