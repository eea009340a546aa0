"""A small server of the Open Inference Protocol V2 in a thread, with one model `sum`, that misbehaves when told to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from models.open_inference.bodies import Body, read_request, write_response
from models.open_inference.messages import HEADER_LENGTH, InferResponse
from models.open_inference.tensors import Tensor


class InferenceServer:
    """Predicts the logistic function of the sum of a row's numbers and lengths of texts; NaN counts as 0."""

    def __init__(self) -> None:
        self.url = ""
        self.extensions = ["binary_tensor_data"]
        self.inputs: list[dict[str, Any]] = []
        self.output_shape: tuple[int, ...] = ()
        """After the rows."""
        self.more_outputs: tuple[str, ...] = ()
        self.answers: dict[str, tuple[int, bytes]] = {}
        """Status and body to answer with instead, by the end of the path."""
        self.token: str | None = None
        self.hangs_up = 0
        """How many of the next infer calls end without an answer."""
        self.requests: list[dict[str, Any]] = []
        self.connections: set[tuple[str, int]] = set()
        self.offset = 0.0

    def predict(self, tensors: list[Tensor]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return one number per row."""
        total = np.zeros(tensors[0].array.shape[0])
        for tensor in tensors:
            if tensor.datatype == "BYTES":
                total += [len(text) for text in tensor.texts()]
            else:
                total += np.nan_to_num(tensor.array.astype(np.float64)).reshape(len(total), -1).sum(axis=1)
        return 1 / (1 + np.exp(-total / 1000)) + self.offset

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, Body]:
        """Return status and body of an answer."""
        for end, (status, content) in self.answers.items():
            if path.endswith(end):
                return status, Body(content, None)
        if self.token is not None and headers["Authorization"] != f"Bearer {self.token}":
            return 401, _json({"error": f"{headers['Authorization']} is not the token"})
        if path == "/v2":
            return 200, _json({"name": "small", "version": "7", "extensions": self.extensions})
        if path.endswith("/ready"):
            return 200, _json({"name": "sum", "ready": True})
        if path.endswith("/infer"):
            return 200, self._infer(headers, body)
        return 200, _json({"name": "sum", "platform": "test", "inputs": self.inputs, "outputs": []})

    def _infer(self, headers: Any, body: bytes) -> Body:
        request, tensors = read_request(body, headers[HEADER_LENGTH])
        self.requests.append({"binary": HEADER_LENGTH in headers, "tensors": tensors, "outputs": request.outputs})
        numbers = self.predict(tensors)
        table = np.repeat(numbers, int(np.prod(self.output_shape))).reshape(len(numbers), *self.output_shape)
        if self.output_shape == (2,):
            table[:, 0] = 1 - numbers
        outputs = [Tensor(name, "FP64", table) for name in ("y", *self.more_outputs)]
        response = InferResponse(model_name="sum", id="1", outputs=[])
        return write_response(response, outputs, [HEADER_LENGTH in headers] * len(outputs))


def _json(content: Any) -> Body:
    return Body(json.dumps(content).encode(), None)


@contextmanager
def inference_server() -> Iterator[InferenceServer]:
    """Run a server until the block ends."""
    served = InferenceServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A reply in several packets would wait for acknowledgements.
        wbufsize = 1 << 16

        def do_GET(self) -> None:
            self._reply(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if served.hangs_up:
                served.hangs_up -= 1
                self.close_connection = True
                return
            self._reply(body)

        def _reply(self, body: bytes) -> None:
            served.connections.add(self.client_address)
            status, reply = served.answer(self.path, self.headers, body)
            self.send_response(status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
