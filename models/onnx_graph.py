"""An ONNX graph as a function of a batch, called once per request."""

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import UnsupportedModel
from models.signature import Batch

NUMBERS = "numbers"
CATEGORIES = "categories"


class OnnxGraph:
    """A graph with the inputs `numbers` [n, k] and `categories` [n, c], or one of them, and one output.

    The prediction is the last column of the output. Raises UnsupportedModel when onnxruntime cannot run the graph.
    """

    def __init__(self, content: bytes, float_width: Literal[32, 64]) -> None:
        self._session = session_of(content)
        # The public `run` checks the names of the inputs once more; at 20 microseconds a row that is a tenth.
        self._run = self._session._sess.run  # noqa: SLF001
        inputs = {node.name for node in self._session.get_inputs()}
        self._takes_numbers, self._takes_categories = NUMBERS in inputs, CATEGORIES in inputs
        self._outputs = [self._session.get_outputs()[0].name]
        self._dtype = np.float32 if float_width == 32 else np.float64

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability or number per row, shape [n]."""
        feeds: dict[str, NDArray[np.generic]] = {}
        if self._takes_numbers:
            feeds[NUMBERS] = batch.numbers.astype(self._dtype)
        if self._takes_categories:
            feeds[CATEGORIES] = batch.categories
        (output,) = self._run(self._outputs, feeds, None)
        predicted: NDArray[np.float64] = output[:, -1].astype(np.float64)
        return predicted


def session_of(content: bytes) -> Any:
    """The session of onnxruntime that runs a graph; raises UnsupportedModel when it cannot."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Parallelism is across requests. Single rows allocate so little that the arena costs more than it saves.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    # A graph may keep its numbers in other files, which it would look for where the process happens to run.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    # What goes wrong is raised; onnxruntime need not print it too.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise UnsupportedModel(f"onnxruntime {onnxruntime.__version__} cannot run the graph: {error}") from error
