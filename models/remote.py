"""Models that another server runs: their batches travel by the Open Inference Protocol V2."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import RemoteRefused, RemoteUnavailable
from models.manifest import Manifest, Remote
from models.open_inference.bodies import Body, write_request
from models.open_inference.client import InferenceClient
from models.open_inference.messages import BINARY_EXTENSION
from models.open_inference.tensors import Tensor
from models.signature import Batch, Signature
from models.tensors import InputTensors

LOADING_S = 10.0
"""How long a server may take for all that a load asks of it: whether it is ready, and the predictions of the sample."""

Found = TypeVar("Found")


class RemoteModel:
    """A model version on another server; `predict` is for threads, `predict_async` for an event loop."""

    def __init__(self, manifest: Manifest, calls: "RemoteCalls", loading: "_Loading") -> None:
        self.manifest = manifest
        self.reference = manifest.reference
        self.signature = manifest.signature
        self._calls = calls
        self._loading = loading
        self._unchecked = len(manifest.sample.predictions)

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability or number per row; shape [n]. Raises RemoteError.

        The first calls are those for the rows of the sample, which every load asks for, and belong to loading.
        """
        if self._unchecked == 0:
            return self._calls.predict(batch)
        found = self._loading.within(lambda: self._calls.predict(batch))
        self._unchecked -= 1
        return found

    async def predict_async(self, batch: Batch) -> NDArray[np.float64]:
        """The same, while the running loop does other things; cancelling it closes the connection."""
        return await self._calls.predict_async(batch)

    def close(self) -> None:
        """Close the connections of threads."""
        self._calls.client.close()

    async def aclose(self) -> None:
        """Close all connections, within the loop that they were made in."""
        await self._calls.client.aclose()


class _Loading:
    """The time that loading a model may take, over all calls, whatever the server does with them."""

    def __init__(self, manifest: Manifest, url: str) -> None:
        self._reference = manifest.reference
        self._url = url
        self._seconds = LOADING_S
        self._ends_s = time.monotonic() + LOADING_S

    def within(self, work: Callable[[], Found]) -> Found:
        """Return what some work returns, or raise RemoteUnavailable when the time is over."""
        done: Future[Found] = Future()
        # Only who does not wait for an answer is sure to go on: names are looked up, and replies may trickle in.
        Thread(target=_fulfil, args=(done, work), daemon=True, name=f"load {self._reference}").start()
        try:
            return done.result(max(0.0, self._ends_s - time.monotonic()))
        except TimeoutError:
            raise RemoteUnavailable(
                f"{self._reference} cannot be loaded: {self._url} did not answer within {self._seconds:g} s; see "
                "whether it hangs or is too slow, and restart it, or publish the model again with another address"
            ) from None


def _fulfil(done: Future[Found], work: Callable[[], Found]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:  # noqa: BLE001 (raised again by who waits)
        done.set_exception(error)


class RemoteCalls:
    """Asks a server for predictions as a manifest describes it."""

    def __init__(self, remote: Remote, signature: Signature) -> None:
        self.client = InferenceClient(remote.url, remote.model_name, remote.model_version, token_of(remote))
        self._remote = remote
        self._outputs = () if remote.output is None else (remote.output,)
        self._inputs = InputTensors(remote.tensors, signature, per_feature=remote.inputs == "per_feature")
        self.client.check_ready()
        self._binary = _offers_binary(self.client)

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Return one number per row."""
        return self._predictions(self.client.infer(self.request(batch)), len(batch.numbers))

    async def predict_async(self, batch: Batch) -> NDArray[np.float64]:
        """Return one number per row."""
        return self._predictions(await self.client.infer_async(self.request(batch)), len(batch.numbers))

    def request(self, batch: Batch) -> Body:
        """Return the request for a batch."""
        return write_request(self._inputs.of(batch), self._outputs, binary=self._binary)

    def _predictions(self, outputs: Sequence[Tensor], rows: int) -> NDArray[np.float64]:
        array = self._output(outputs).array
        if array.shape[:1] != (rows,):
            raise RemoteRefused(f"{self._where}: output has the shape {list(array.shape)} for {rows} rows")
        table = array.reshape(rows, -1)
        column = self._remote.output_column
        if column is None and table.shape[1] != 1:
            raise RemoteRefused(
                f"{self._where}: output has the shape {list(array.shape)}: say which of its columns is the prediction"
            )
        if (column or 0) >= table.shape[1]:
            raise RemoteRefused(f"{self._where}: output has {table.shape[1]} columns, none of which is {column}")
        return table[:, column or 0].astype(np.float64)

    def _output(self, outputs: Sequence[Tensor]) -> Tensor:
        names = [tensor.name for tensor in outputs]
        wanted = self._remote.output
        if wanted is None and len(outputs) != 1:
            raise RemoteRefused(f"{self._where}: there are the outputs {names}: say which is the prediction")
        if wanted is not None and wanted not in names:
            raise RemoteRefused(f"{self._where}: there is no output {wanted!r} among {names}")
        found = outputs[0 if wanted is None else names.index(wanted)]
        if found.datatype == "BYTES":
            raise RemoteRefused(f"{self._where}: output {found.name!r} is of BYTES, not of numbers")
        return found

    @property
    def _where(self) -> str:
        return f"model {self._remote.model_name!r} at {self._remote.url}"


def remote_model(manifest: Manifest) -> RemoteModel:
    """The model of a manifest whose runtime is `remote`, once its server says that it is ready; raises RemoteError."""
    if manifest.remote is None:
        raise RemoteRefused(f"{manifest.reference} does not say which server runs it: publish it again")
    remote, signature = manifest.remote, manifest.signature
    loading = _Loading(manifest, remote.url)
    return RemoteModel(manifest, loading.within(lambda: RemoteCalls(remote, signature)), loading)


def token_of(remote: Remote) -> str | None:
    """Return the server's bearer token, if it needs one; raises RemoteUnavailable where the variable has none."""
    if remote.token_variable is None:
        return None
    token = os.environ.get(remote.token_variable, "").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise RemoteUnavailable(
            f"{remote.url} needs a token: put it into the environment variable {remote.token_variable}"
        )
    return token


def _offers_binary(client: InferenceClient) -> bool:
    try:
        return BINARY_EXTENSION in client.server().extensions
    except RemoteRefused:
        # Some servers know models only, and nothing of themselves.
        return False
