"""An ONNX graph that was made elsewhere as a function of a batch: its own inputs, its own outputs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import Graph
from models.onnx_graph import session_of
from models.signature import Batch, Signature
from models.tensors import InputTensors


class ForeignGraph:
    """A graph asked as its manifest says. Raises UnsupportedModel when onnxruntime cannot run it."""

    def __init__(self, content: bytes, graph: Graph, signature: Signature) -> None:
        self._session = session_of(content)
        # As in OnnxGraph: the public `run` checks the names of the inputs once more.
        self._run = self._session._sess.run  # noqa: SLF001
        self._inputs = InputTensors(graph.tensors, signature, per_feature=graph.inputs == "per_feature")
        self._outputs = [graph.output]
        self._column = graph.output_column or 0
        self._key = graph.output_key

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability or number per row, shape [n]."""
        feeds = {tensor.name: tensor.array for tensor in self._inputs.of(batch)}
        (output,) = self._run(self._outputs, feeds, None)
        return self._column_of(output, len(batch.numbers))

    def _column_of(self, output: Any, rows: int) -> NDArray[np.float64]:
        if self._key is not None:
            return np.array([classes[self._key] for classes in output], dtype=np.float64)
        column: NDArray[np.float64] = output.reshape(rows, -1)[:, self._column].astype(np.float64)
        return column
