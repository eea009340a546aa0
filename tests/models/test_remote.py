import asyncio
import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import models.remote
from models import Feature, Registry, Signature, load, publish_remote
from models.errors import (
    InvalidSample,
    InvalidTensor,
    RemoteRefused,
    RemoteUnavailable,
    SelfCheckFailed,
    UnsupportedModel,
)
from models.manifest import InputTensor
from models.open_inference.bodies import Body
from models.reference import ModelReference
from models.remote import RemoteModel
from models.signature import Batch, BatchEncoder, input_struct
from tests.models.inference_servers import InferenceServer, inference_server

MIXED = Signature(
    (
        Feature("carrier", "category", nullable=True),
        Feature("distance", "number"),
        Feature("weekend", "boolean"),
        Feature("wind", "number", nullable=True),
    ),
    "probability",
)
NUMERIC = Signature((Feature("a", "number"), Feature("b", "boolean")), "probability")
ROWS: list[dict[str, Any]] = [
    {"carrier": "UA", "distance": 1000.0, "weekend": True, "wind": 10.5},
    {"carrier": None, "distance": 80.0, "weekend": False, "wind": None},
    {"carrier": "ü", "distance": -3.0, "weekend": False, "wind": 0.0},
]
NUMBERS: list[dict[str, Any]] = [{"a": 1.5, "b": True}, {"a": -20.0, "b": False}]
DECLARED = [
    {"name": "wind", "datatype": "FP32", "shape": [-1, 1]},
    {"name": "distance", "datatype": "INT64", "shape": [-1]},
    {"name": "weekend", "datatype": "BOOL", "shape": [-1, 1]},
    {"name": "carrier", "datatype": "BYTES", "shape": [-1, 1]},
]


@pytest.fixture
def server() -> Iterator[InferenceServer]:
    with inference_server() as running:
        yield running


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def batch_of(signature: Signature, rows: list[dict[str, Any]]) -> Batch:
    decoded = msgspec.convert(rows, list[input_struct(signature)])  # type: ignore[misc]
    return BatchEncoder(signature).encode(decoded)


def expected(rows: list[dict[str, Any]]) -> list[float]:
    totals = [
        sum(len(value) if isinstance(value, str) else float(value or 0) for value in row.values()) for row in rows
    ]
    predictions: list[float] = (1 / (1 + np.exp(-np.array(totals) / 1000))).tolist()
    return predictions


def published(
    server: InferenceServer, registry: Registry, signature: Signature = MIXED, rows: Any = ROWS, **options: Any
) -> ModelReference:
    return publish_remote(server.url, "sum", signature, rows, name="far", registry=registry, **options)


def loaded(registry: Registry, reference: ModelReference) -> RemoteModel:
    model = load(registry, reference)
    assert isinstance(model, RemoteModel)
    return model


@contextmanager
def slowed(monkeypatch: pytest.MonkeyPatch, end: str, seconds: float) -> Iterator[None]:
    """Let answers at the end of a path take so long, or until the block ends."""
    released, plain = threading.Event(), InferenceServer.answer

    def answer(self: InferenceServer, path: str, headers: Any, body: bytes) -> tuple[int, Body]:
        if path.endswith(end):
            released.wait(seconds)
        return plain(self, path, headers, body)

    monkeypatch.setattr(InferenceServer, "answer", answer)
    try:
        yield
    finally:
        released.set()


def both(model: RemoteModel, batch: Batch) -> NDArray[np.float64]:
    """Return what a thread is told, which is what a loop is told."""

    async def ask() -> NDArray[np.float64]:
        try:
            return await model.predict_async(batch)
        finally:
            await model.aclose()

    alone = model.predict(batch)
    np.testing.assert_array_equal(asyncio.run(ask()), alone)
    return alone


@pytest.mark.parametrize("extensions", [[], ["binary_tensor_data"]])
@pytest.mark.parametrize("declared", [[], DECLARED])
def test_a_remote_model_predicts_what_its_server_does(
    server: InferenceServer, registry: Registry, extensions: list[str], declared: list[dict[str, Any]]
) -> None:
    server.extensions, server.inputs = extensions, declared
    model = loaded(registry, published(server, registry))
    np.testing.assert_allclose(both(model, batch_of(MIXED, ROWS)), expected(ROWS), rtol=1e-9)
    last = server.requests[-1]
    assert last["binary"] == bool(extensions)
    types = {tensor.name: (tensor.datatype, tensor.array.shape) for tensor in last["tensors"]}
    if declared:
        assert types == {
            "carrier": ("BYTES", (3, 1)),
            "distance": ("INT64", (3,)),
            "weekend": ("BOOL", (3, 1)),
            "wind": ("FP32", (3, 1)),
        }
    else:
        assert types == {
            "carrier": ("BYTES", (3,)),
            "distance": ("FP64", (3,)),
            "weekend": ("BOOL", (3,)),
            "wind": ("FP64", (3,)),
        }


def test_the_manifest_says_where_the_model_runs_and_what_it_predicted(
    server: InferenceServer, registry: Registry
) -> None:
    server.more_outputs = ("z",)
    manifest = registry.manifest(published(server, registry, model_version="4", output="y"))
    assert (manifest.runtime, manifest.files, manifest.libraries) == ("remote", {}, {"small": "7"})
    remote = manifest.remote
    assert remote is not None
    assert (remote.url, remote.model_name, remote.model_version) == (server.url, "sum", "4")
    assert (remote.inputs, remote.output) == ("per_feature", "y")
    assert remote.tensors[0] == InputTensor("carrier", "BYTES")
    assert manifest.sample.inputs == tuple(ROWS)
    assert manifest.sample.predictions == pytest.approx(expected(ROWS))
    assert [each.name for each in server.requests[-1]["outputs"]] == ["y"]


@pytest.mark.parametrize(
    ("declared", "options"),
    [
        ([{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], {}),
        ([{"name": "x", "datatype": "FP32", "shape": [-1, -1]}], {}),
        ([], {"inputs": "single_tensor", "datatype": "FP32"}),
    ],
)
def test_one_tensor_may_hold_all_features(
    server: InferenceServer, registry: Registry, declared: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    server.inputs = declared
    model = loaded(registry, published(server, registry, NUMERIC, NUMBERS, **options))
    np.testing.assert_allclose(both(model, batch_of(NUMERIC, NUMBERS)), expected(NUMBERS))
    (tensor,) = server.requests[-1]["tensors"]
    assert (tensor.datatype, tensor.array.tolist()) == ("FP32", [[1.5, 1.0], [-20.0, 0.0]])


@pytest.mark.parametrize(("shape", "column"), [((), None), ((1,), None), ((2,), 1), ((1, 1), 0)])
def test_the_prediction_may_stand_in_a_column(
    server: InferenceServer, registry: Registry, shape: tuple[int, ...], column: int | None
) -> None:
    server.output_shape = shape
    model = loaded(registry, published(server, registry, NUMERIC, NUMBERS, output_column=column))
    assert both(model, batch_of(NUMERIC, NUMBERS)).tolist() == pytest.approx(expected(NUMBERS))


def test_an_output_of_several_columns_needs_to_be_named(server: InferenceServer, registry: Registry) -> None:
    server.output_shape = (2,)
    with pytest.raises(RemoteRefused, match=r"output has the shape \[1, 2\]: say which of its columns"):
        published(server, registry, NUMERIC, NUMBERS)
    with pytest.raises(RemoteRefused, match="output has 2 columns, none of which is 2"):
        published(server, registry, NUMERIC, NUMBERS, output_column=2)
    server.more_outputs = ("z",)
    with pytest.raises(RemoteRefused, match=r"there are the outputs \['y', 'z'\]: say which"):
        published(server, registry, NUMERIC, NUMBERS)
    with pytest.raises(RemoteRefused, match=r"no output 'x' among \['y', 'z'\]"):
        published(server, registry, NUMERIC, NUMBERS, output="x")


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ([{"name": "a", "datatype": "FP64", "shape": [-1]}], r"takes the inputs \['a'\], but the signature has"),
        ([{"name": "x", "datatype": "FP64", "shape": [-1, 3]}], r"not one of \[rows, 2\]"),
        ([{"name": "x", "datatype": "BYTES", "shape": [-1, 2]}], "'x' takes BYTES, not numbers"),
        (
            [{"name": "a", "datatype": "BYTES", "shape": [-1]}, {"name": "b", "datatype": "BOOL", "shape": [-1]}],
            "'a' is a number, but its server takes BYTES",
        ),
        (
            [{"name": "a", "datatype": "BOOL", "shape": [-1]}, {"name": "b", "datatype": "BOOL", "shape": [-1]}],
            "'a' is a number, but its server takes BOOL",
        ),
        (
            [{"name": "a", "datatype": "FP64", "shape": [-1, 5]}, {"name": "b", "datatype": "BOOL", "shape": [-1]}],
            r"'a' has the shape \[-1, 5\]",
        ),
    ],
)
def test_a_server_that_takes_something_else_is_refused(
    server: InferenceServer, registry: Registry, declared: list[dict[str, Any]], problem: str
) -> None:
    server.inputs = declared
    with pytest.raises(UnsupportedModel, match=problem):
        published(server, registry, NUMERIC, NUMBERS)
    assert not registry.root.exists()


def test_what_a_datatype_cannot_say_is_refused(server: InferenceServer, registry: Registry) -> None:
    server.inputs = [each | {"datatype": "INT64"} if each["name"] == "wind" else each for each in DECLARED]
    with pytest.raises(UnsupportedModel, match="'wind' may be null, for which INT64, which its server takes, has no"):
        published(server, registry)
    server.inputs = DECLARED
    model = loaded(registry, published(server, registry))
    with pytest.raises(InvalidTensor, match="'distance' has a value that its model, which takes INT64, cannot take"):
        model.predict(batch_of(MIXED, [ROWS[0] | {"distance": 1.5}]))
    with pytest.raises(UnsupportedModel, match="because 'carrier' are categories"):
        published(server, registry, inputs="single_tensor")


def test_samples_and_predictions_that_cannot_be_are_refused(server: InferenceServer, registry: Registry) -> None:
    with pytest.raises(InvalidSample, match="there are no rows"):
        published(server, registry, rows=[])
    with pytest.raises(InvalidSample, match=r"does not fit the signature: .*distance"):
        published(server, registry, rows=[ROWS[0] | {"distance": "far"}])
    server.offset = 1.0
    with pytest.raises(InvalidSample, match="for row 0, which is no probability"):
        published(server, registry)


def test_rows_that_depend_on_each_other_are_refused(
    server: InferenceServer, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = InferenceServer.predict
    monkeypatch.setattr(InferenceServer, "predict", lambda self, tensors: plain(self, tensors)[::-1])
    with pytest.raises(UnsupportedModel, match="rows must not depend on each other"):
        published(server, registry)


def test_a_server_that_changes_its_mind_is_noticed_at_the_next_load(
    server: InferenceServer, registry: Registry
) -> None:
    reference = published(server, registry)
    server.offset = 0.01
    with pytest.raises(SelfCheckFailed, match=r"far@1 predicts .* for row 0 of its sample"):
        load(registry, reference)


def test_a_server_that_is_away_can_be_loaded_later(server: InferenceServer, registry: Registry) -> None:
    reference = published(server, registry)
    server.answers = {"/ready": (503, b"")}
    with pytest.raises(RemoteUnavailable, match=r"/v2/models/sum/ready answers 503$"):
        load(registry, reference)
    server.answers = {"/ready": (404, b'{"error": "Model sum not found"}')}
    with pytest.raises(RemoteUnavailable, match="answers 404: Model sum not found"):
        load(registry, reference)
    server.answers = {}
    assert load(registry, reference).reference == reference


@pytest.mark.parametrize(
    ("end", "seconds"), [("/ready", 20.0), ("/v2", 20.0), ("/infer", 20.0), ("/infer", 0.4)], ids=str
)
def test_a_server_that_accepts_and_does_not_answer_holds_up_a_load_for_a_bounded_time(
    server: InferenceServer, registry: Registry, monkeypatch: pytest.MonkeyPatch, end: str, seconds: float
) -> None:
    reference = published(server, registry)
    with slowed(monkeypatch, end, seconds):
        monkeypatch.setattr(models.remote, "LOADING_S", 1.0)
        began_s = time.monotonic()
        with pytest.raises(RemoteUnavailable) as caught:
            load(registry, reference)
        assert 1.0 <= time.monotonic() - began_s < 10.0
    message = str(caught.value)
    assert message.startswith(f"far@1 cannot be loaded: {server.url} did not answer within 1 s; see whether it hangs")
    assert "restart it, or publish the model again with another address" in message
    monkeypatch.undo()
    assert load(registry, reference).reference == reference


def test_what_a_load_may_take_does_not_bind_later_predictions(
    server: InferenceServer, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = published(server, registry)
    monkeypatch.setattr(models.remote, "LOADING_S", 3.0)
    began_s = time.monotonic()
    model = loaded(registry, reference)
    with slowed(monkeypatch, "/infer", 3.1):
        assert model.predict(batch_of(MIXED, ROWS)).tolist() == pytest.approx(expected(ROWS))
    assert time.monotonic() - began_s > 3.0
    model.close()


def test_nobody_listening_is_told_with_the_address(server: InferenceServer, registry: Registry) -> None:
    model = loaded(registry, published(server, registry))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RemoteUnavailable, match=f"{url}/v2/models/sum/ready does not answer"):
            publish_remote(url, "sum", MIXED, ROWS, name="far", registry=registry)
    model.close()


@pytest.mark.parametrize(
    ("status", "content", "error", "problem"),
    [
        (400, b'{"error": "bad shape"}', RemoteRefused, "/v2/models/sum/infer answers 400: bad shape"),
        (500, b"Traceback " + b"x" * 1000, RemoteRefused, r"answers 500: Traceback x+\.\.\.$"),
        (503, b"", RemoteUnavailable, "answers 503$"),
        (429, b"[1, 2]", RemoteUnavailable, r"answers 429: \[1, 2\]"),
        (302, b"", RemoteRefused, "answers 302"),
        (200, b"<html>", RemoteRefused, "gives no predictions: JSON is malformed"),
        (200, b"\xff", RemoteRefused, "gives no predictions"),
        (200, b"{}", RemoteRefused, "missing required field `outputs`"),
        (200, b'{"outputs": []}', RemoteRefused, r"there are the outputs \[\]"),
        (
            200,
            b'{"outputs": [{"name": "y", "shape": [1], "datatype": "FP64", "data": [1, 2]}]}',
            RemoteRefused,
            "gives no predictions: tensor 'y' has 2 elements",
        ),
        (
            200,
            b'{"outputs": [{"name": "y", "shape": [2], "datatype": "FP64", "data": [1, 2]}]}',
            RemoteRefused,
            r"output has the shape \[2\] for 3 rows",
        ),
        (
            200,
            b'{"outputs": [{"name": "y", "shape": [3], "datatype": "BYTES", "data": ["a", "b", "c"]}]}',
            RemoteRefused,
            "'y' is of BYTES, not of numbers",
        ),
    ],
)
def test_an_answer_that_is_no_prediction_is_an_error(
    server: InferenceServer, registry: Registry, status: int, content: bytes, error: type[Exception], problem: str
) -> None:
    model, batch = loaded(registry, published(server, registry)), batch_of(MIXED, ROWS)
    server.answers = {"/infer": (status, content)}

    async def ask() -> None:
        try:
            await model.predict_async(batch)
        finally:
            await model.aclose()

    with pytest.raises(error, match=problem):
        model.predict(batch)
    with pytest.raises(error, match=problem):
        asyncio.run(ask())


def test_a_connection_that_breaks_is_made_again_once(server: InferenceServer, registry: Registry) -> None:
    model, batch = loaded(registry, published(server, registry)), batch_of(MIXED, ROWS)
    server.hangs_up = 1
    assert model.predict(batch).tolist() == pytest.approx(expected(ROWS))
    server.hangs_up = 2
    with pytest.raises(RemoteUnavailable, match="does not answer: Server disconnected"):
        model.predict(batch)
    model.close()


def test_the_token_comes_from_the_environment_and_stays_secret(
    server: InferenceServer, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "right"
    monkeypatch.setenv("MODELS_TOKEN", "right")
    reference = published(server, registry, token_variable="MODELS_TOKEN")
    model = loaded(registry, reference)
    assert both(model, batch_of(MIXED, ROWS)).tolist() == pytest.approx(expected(ROWS))
    assert b"right" not in (registry.path(reference) / "manifest.json").read_bytes()
    for wrong in ("s3cret", "s3cr\u00e9t", "", "  "):
        monkeypatch.setenv("MODELS_TOKEN", wrong)
        with pytest.raises(RemoteUnavailable) as caught:
            load(registry, reference)
        assert "s3cr" not in str(caught.value)
        if wrong == "s3cret":
            assert "answers 401: Bearer ... is not the token" in str(caught.value)
        else:
            assert "set the environment variable MODELS_TOKEN" in str(caught.value).replace("put it into", "set")
    monkeypatch.delenv("MODELS_TOKEN")
    with pytest.raises(RemoteUnavailable, match="environment variable MODELS_TOKEN"):
        load(registry, reference)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://models", "'ftp://models' is not the address of a model server"),
        ("models:8000", "is not the address"),
        ("http://", "is not the address"),
        ("http://models/?a=1", "is not the address"),
        ("http://[::1", "is not the address"),
        ("http://models:99999999", "is not the address"),
        ("http://user:hunter2@models", "must not hold a name or password"),
    ],
)
def test_an_address_that_is_none_is_refused(registry: Registry, url: str, problem: str) -> None:
    with pytest.raises(RemoteRefused, match=problem) as caught:
        publish_remote(url, "sum", NUMERIC, NUMBERS, name="far", registry=registry)
    assert "hunter2" not in str(caught.value)


def test_calls_share_connections(server: InferenceServer, registry: Registry) -> None:
    model, batch = loaded(registry, published(server, registry)), batch_of(MIXED, ROWS)
    server.connections.clear()

    async def ask() -> None:
        for _ in range(5):
            answers = await asyncio.gather(*(model.predict_async(batch) for _ in range(8)))
            assert all(answer.tolist() == pytest.approx(expected(ROWS)) for answer in answers)
        await model.aclose()

    for _ in range(20):
        model.predict(batch)
    assert len(server.connections) == 1
    server.connections.clear()
    asyncio.run(ask())
    assert 1 <= len(server.connections) <= 8


def test_a_model_that_nobody_uses_any_more_closes_its_connections(server: InferenceServer, registry: Registry) -> None:
    model, batch = loaded(registry, published(server, registry)), batch_of(MIXED, ROWS)

    async def ask() -> None:
        nonlocal model
        await model.predict_async(batch)
        del model
        # The connections close in the loop; asyncio would warn of one that is left.
        await asyncio.sleep(0.05)

    model.predict(batch)
    asyncio.run(ask())
    gc.collect()
