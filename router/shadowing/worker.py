"""The process in which shadows run: `python -m router.shadowing.worker SOCKET REGISTRY LOADER BYTES`.

It loads models itself, answers one call after the other in the order of their arrival, and ends with its router.
"""

import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import msgspec

from models.reference import ModelReference
from models.registry import Registry
from models.runtime import Model
from models.signature import BatchEncoder, input_struct
from router.errors import PredictionFailed
from router.shadowing.confinement import address_space, allow_memory, confine
from router.shadowing.launch import find_loader
from router.shadowing.messages import (
    Answer,
    Call,
    Keep,
    Loaded,
    Loading,
    Order,
    Problem,
    Report,
    Started,
    frames,
    orders,
)

RETRY_S = 30.0
"""How long after a failed load a model is tried again."""

LONGEST_ERROR = 500
"""In characters; what a model says beyond is cut off."""

_PIECE = 2**16
_SWOLLEN = 0.5
"""A worker that still holds this share of its allowance after a shadow ran out of memory is replaced."""


class _Shadow(NamedTuple):
    model: Model
    encoder: BatchEncoder
    decoder: msgspec.json.Decoder[list[Any]]


class _Broken(NamedTuple):
    problem: Problem
    error: str
    until_s: float


class Answerer:
    """Loads models and answers calls."""

    def __init__(
        self,
        load: Callable[[ModelReference], Model],
        report: Callable[[Report], None],
        *,
        memory_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load_model = load
        self._report = report
        self._memory_bytes = memory_bytes
        self._clock = clock
        self._models: dict[str, _Shadow | _Broken] = {}
        self._bytes = self._settled_bytes = address_space()
        """How large the process is, and how large its start and the models that it loaded make it."""
        self._growth: Counter[str] = Counter()
        """How many bytes the process has grown in calls of each model, and in loads that failed."""

    def obey(self, order: Order) -> None:
        """Carry out an order."""
        if isinstance(order, Keep):
            self._models = {name: model for name, model in self._models.items() if name in order.models}
        else:
            self._report(self._answer(order))

    def _answer(self, call: Call) -> Answer:
        shadow = self._shadow(call.model)
        if isinstance(shadow, _Broken):
            return Answer(call.number, None, shadow.problem, shadow.error, 0.0)
        began_s = time.perf_counter()
        predictions, problem, error = _attempt(shadow, call.inputs)
        latency_ms = (time.perf_counter() - began_s) * 1000
        self._growth[call.model] += self._grown()
        return Answer(call.number, predictions, problem, error, latency_ms, self._hoarder(problem))

    def _shadow(self, reference: str) -> _Shadow | _Broken:
        found = self._models.get(reference)
        if found is None or (isinstance(found, _Broken) and self._clock() > found.until_s):
            self._report(Loading())
            self._allow_memory()
            found = self._models[reference] = self._load(reference)
            if isinstance(found, _Broken):
                self._growth[reference] += self._grown()
            else:
                self._settled_bytes += self._grown()
                self._allow_memory()
            self._report(Loaded())
        return found

    def _load(self, reference: str) -> _Shadow | _Broken:
        try:
            model = self._load_model(ModelReference.parse(reference))
            # A candidate of a list has an id besides its features.
            row = msgspec.defstruct("Row", [], bases=(input_struct(model.signature),), forbid_unknown_fields=False)
            return _Shadow(model, BatchEncoder(model.signature), msgspec.json.Decoder(list[row]))  # type: ignore[valid-type]
        except BaseException as error:  # noqa: BLE001 (the same)
            problem: Problem = "memory" if isinstance(error, MemoryError) else "load"
            return _Broken(problem, f"{reference} cannot be loaded: {describe(error)}", self._clock() + RETRY_S)

    def _grown(self) -> int:
        """Return by how many bytes the process has grown since this was asked last."""
        before, self._bytes = self._bytes, address_space()
        return self._bytes - before

    def _allow_memory(self) -> None:
        """Let the process have the allowance beside its start and its models; what calls kept is never forgiven."""
        allow_memory(self._settled_bytes + self._memory_bytes - address_space())

    def _hoarder(self, problem: Problem | None) -> str | None:
        """Return the model that has grown most, if a shadow ran out of memory that was not its own doing."""
        if problem != "memory" or self._growth.total() < _SWOLLEN * self._memory_bytes:
            return None
        return max(self._growth, key=self._growth.__getitem__)


def describe(error: BaseException) -> str:
    """Return what was raised, as the ledger can store it."""
    name = type(error).__name__
    try:
        text = f"{name}: {error}"[:LONGEST_ERROR]
    except Exception:  # noqa: BLE001 (whatever a model raises)
        text = name
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _attempt(shadow: _Shadow, inputs: str) -> tuple[str | None, Problem | None, str | None]:
    """Return the predictions as JSON text, or the problem and its description; nothing of what was raised is kept."""
    try:
        return _predict(shadow, inputs), None, None
    except BaseException as error:  # noqa: BLE001 (not even a model that wants to exit may)
        return None, "memory" if isinstance(error, MemoryError) else "error", describe(error)


def _predict(shadow: _Shadow, inputs: str) -> str:
    rows = shadow.decoder.decode(inputs)
    predictions = shadow.model.predict(shadow.encoder.encode(rows)).tolist()
    if len(predictions) != len(rows):
        raise PredictionFailed(f"it predicted {len(predictions)} values for {len(rows)} rows")
    encoded = msgspec.json.encode(msgspec.convert(predictions, list[float], strict=True)).decode()
    if "null" in encoded:
        raise PredictionFailed("it predicted a value that is not finite")
    return encoded


def main(socket_number: int, registry: Path, loader: str, memory_bytes: int) -> None:
    """Serve a router until it is gone."""
    confine()
    line = socket.socket(fileno=socket_number)
    waiting: SimpleQueue[Order] = SimpleQueue()
    load, models = find_loader(loader), Registry(registry)
    answerer = Answerer(
        lambda reference: load(models, reference),
        lambda report: line.sendall(frames([report])),
        memory_bytes=memory_bytes,
    )
    threading.Thread(target=_listen, args=(line, waiting), daemon=True).start()
    line.sendall(frames([Started()]))
    while True:
        answerer.obey(waiting.get())


def _listen(line: socket.socket, waiting: SimpleQueue[Order]) -> None:
    """Queue orders; when the router is gone, nothing that a model still does is of use to anybody."""
    try:
        received = orders()
        while piece := line.recv(_PIECE):
            for order in received.feed(piece):
                waiting.put(order)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
