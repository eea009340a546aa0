import json
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient

from models import load, publish_remote
from models.open_inference.bodies import read_response, write_request
from models.open_inference.tensors import Tensor
from models.registry import Registry
from models.signature import BatchEncoder, Feature, Signature, input_struct
from router.client import Turnout
from router.http.app import application
from router.service import Service
from router.settings import Settings
from tests.router.documents import INPUTS, experiment
from tests.router.servers import serving
from tests.router.small_models import add_model, load_small

Client = TestClient[Litestar]

INFER = "/v2/models/delay/infer"
HEADER = "Inference-Header-Content-Length"


def tensor(name: str, datatype: str, *data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": list(data)}


TENSORS = [tensor("distance", "FP64", 100.0), tensor("carrier", "BYTES", "B6"), tensor("wind", "FP32", 3.5)]


def replaced(*changed: dict[str, Any]) -> list[dict[str, Any]]:
    names = {each["name"] for each in changed}
    return [each for each in TENSORS if each["name"] not in names] + list(changed)


def infer(client: Client, inputs: Any = TENSORS, path: str = INFER, **fields: Any) -> dict[str, Any]:
    response = client.post(path, json={"inputs": inputs, **fields})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def refused(client: Client, status: int, path: str = INFER, **request: Any) -> str:
    response = client.post(path, **request)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error: str = response.json()["error"]
    return error


def start(client: Client, document: dict[str, Any]) -> None:
    assert client.post("/v1/experiments", json=document).status_code == 201
    assert client.post(f"/v1/experiments/{document['name']}/start", headers={"If-Match": "*"}).status_code == 200


def only(reply: dict[str, Any]) -> list[float]:
    (output,) = reply["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("prediction", "FP64", [len(output["data"])])
    data: list[float] = output["data"]
    return data


def test_the_server_tells_what_it_is(client: Client) -> None:
    for path in ("/v2", "/v2/"):
        server = client.get(path).json()
        assert server["name"] == "turnout"
        assert "binary_tensor_data" in server["extensions"]
    assert client.get("/v2/health/live").json() == {"live": True}
    ready = client.get("/v2/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True})


def test_a_server_whose_only_champion_is_gone_is_not_ready(settings: Settings, registry: Registry) -> None:
    with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
        client.post("/v1/endpoints", json={"name": "delay", "champion": "sum@1"})
    (registry.root / "sum" / "1" / "model").unlink()
    with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
        ready = client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        for response in (client.get("/v2/models/delay/ready"), client.get("/v2/models/delay"), client.post(INFER)):
            assert response.status_code == 503
            assert "endpoint 'delay' cannot answer" in response.json()["error"]
            assert response.headers.get("retry-after") == "1"
        (entry,) = client.post("/v2/repository/index").json()
        assert (entry["name"], entry["state"]) == ("delay", "UNAVAILABLE")
        assert "model is missing" in entry["reason"]


def test_a_model_is_an_endpoint_and_its_inputs_are_the_features(client: Client) -> None:
    start(client, experiment())
    metadata = client.get("/v2/models/delay").json()
    assert metadata == {
        "name": "delay",
        "versions": ["sum@1", "sum-too@1"],
        "platform": "turnout",
        "inputs": [
            {"name": "distance", "datatype": "FP64", "shape": [-1]},
            {"name": "carrier", "datatype": "BYTES", "shape": [-1]},
            {"name": "wind", "datatype": "FP64", "shape": [-1]},
        ],
        "outputs": [{"name": "prediction", "datatype": "FP64", "shape": [-1]}],
    }
    assert client.get("/v2/models/delay/versions/sum-too@1").json() == metadata | {"versions": ["sum-too@1"]}
    assert client.get("/v2/models/delay/ready").json() == {"name": "delay", "ready": True}
    assert client.get("/v2/models/delay/versions/1/ready").json() == {"name": "delay", "ready": True}


def test_the_index_lists_every_version(client: Client, registry: Registry) -> None:
    start(client, experiment())
    entries = [{"name": "delay", "version": name, "state": "READY", "reason": ""} for name in ("sum@1", "sum-too@1")]
    assert client.post("/v2/repository/index").json() == entries
    assert client.post("/v2/repository/index", json={"ready": True}).json() == entries
    assert "ready" in refused(client, 400, "/v2/repository/index", content=b"[1]")


@pytest.mark.parametrize(
    "path", ["/v2/models/nobody", "/v2/models/nobody/ready", "/v2/models/delay/versions/9", "/v2/nothing"]
)
def test_what_is_not_there_is_404_in_the_protocols_shape(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert set(response.json()) == {"error"}


def test_infer_decides_as_predict_does(client: Client) -> None:
    start(client, experiment())
    arms = set()
    for number in range(20):
        unit = f"user-{number}"
        plain = client.post("/v1/endpoints/delay/predict", json={"unit": unit, "inputs": INPUTS}).json()
        reply = infer(client, parameters={"unit": unit}, id="r-7")
        assert (reply["model_name"], reply["model_version"], reply["id"]) == ("delay", plain["model"], "r-7")
        assert only(reply) == [plain["prediction"]]
        said = reply["parameters"]
        for name in ("experiment", "epoch", "arm", "propensity", "model"):
            assert said[name] == plain[name]
        assert said["routed"] is True
        stored = client.get(f"/v1/decisions/{said['decision_id']}").json()
        assert (stored["unit"], stored["arm"], stored["inputs"]) == (unit, plain["arm"], [INPUTS])
        arms.add(said["arm"])
    assert arms == {"control", "too"}


def test_parameters_hold_scalars_only_and_leave_out_what_does_not_apply(client: Client) -> None:
    said = infer(client)["parameters"]
    assert set(said) == {"decision_id", "propensity", "model", "routed"}
    assert all(isinstance(value, str | float | bool) for value in said.values())


def test_several_rows_are_one_decision(client: Client) -> None:
    inputs = [
        tensor("distance", "INT32", 100, 900, shape=[2, 1]),
        tensor("carrier", "BYTES", ["B6"], ["UA"], shape=[2, 1]),
        tensor("wind", "FP64", None, 4.0),
    ]
    reply = infer(client, inputs)
    assert len(only(reply)) == 2
    stored = client.get(f"/v1/decisions/{reply['parameters']['decision_id']}").json()
    assert stored["inputs"] == [
        {"distance": 100.0, "carrier": "B6", "wind": None},
        {"distance": 900.0, "carrier": "UA", "wind": 4.0},
    ]


def test_the_id_is_made_where_there_is_none(client: Client) -> None:
    reply = infer(client)
    assert reply["id"] == reply["parameters"]["decision_id"]


@pytest.mark.parametrize(
    ("fields", "unit"),
    [
        ({"parameters": {"unit": "u-1"}, "id": "r-1"}, "u-1"),
        ({"id": "r-1"}, "r-1"),
        ({"parameters": {"unit": None}, "id": "r-1"}, "r-1"),
        ({"parameters": {"id": "order-1"}}, "order-1"),
    ],
)
def test_the_unit_is_the_parameter_or_else_the_id(client: Client, fields: dict[str, Any], unit: str) -> None:
    reply = infer(client, **fields)
    assert client.get(f"/v1/decisions/{reply['parameters']['decision_id']}").json()["unit"] == unit


def test_an_endpoint_that_ranks_is_refused_with_the_call_to_make(client: Client) -> None:
    client.post("/v1/endpoints", json={"name": "choice", "kind": "rank", "champion": "sum@1"})
    for path in ("/v2/models/choice/infer", "/v2/models/choice/versions/1/infer"):
        error = refused(client, 400, path, json={"inputs": TENSORS})
        assert "endpoint 'choice' ranks candidates" in error
        assert "POST /v1/endpoints/choice/rank" in error


def test_a_request_without_unit_and_id_is_a_unit_of_its_own(client: Client) -> None:
    ids = [infer(client)["parameters"]["decision_id"] for _ in range(2)]
    units = [client.get(f"/v1/decisions/{each}").json()["unit"] for each in ids]
    assert units[0] != units[1]


def test_other_parameters_are_the_context_but_not_those_of_the_protocol(client: Client) -> None:
    start(client, experiment(audience=[{"attribute": "origin", "op": "eq", "value": "JFK"}]))
    protocol = {"binary_data_output": False, "priority": 1, "timeout": 9, "sequence_id": 4, "triton_final": True}
    own = {"origin": "JFK", "hour": 9, "vip": True}
    reply = infer(client, parameters={"unit": "u", **own, **protocol, "content_type": "pd", "gone": None})
    assert reply["parameters"]["experiment"] == "too-vs-sum"
    assert client.get(f"/v1/decisions/{reply['parameters']['decision_id']}").json()["context"] == own
    assert "experiment" not in infer(client, parameters={"unit": "u", "origin": "EWR"})["parameters"]


def test_the_parameter_id_makes_retries_safe(client: Client) -> None:
    first, again = (infer(client, parameters={"unit": "u", "id": "order-1"}, id="r")["parameters"] for _ in range(2))
    assert first == again
    other = json.dumps({"inputs": TENSORS, "parameters": {"unit": "v", "id": "order-1"}})
    assert "made for another unit" in refused(client, 409, content=other)


def test_a_version_is_served_unrouted_and_unrecorded(client: Client, registry: Registry) -> None:
    start(client, experiment())
    before = client.get("/metrics").text
    for version, served in (("1", "sum@1"), ("sum@1", "sum@1"), ("sum-too@1", "sum-too@1")):
        reply = infer(client, path=f"/v2/models/delay/versions/{version}/infer", id="r-1")
        assert (reply["model_name"], reply["model_version"], reply["id"]) == ("delay", served, "r-1")
        assert reply["parameters"] == {"model": served, "routed": False}
        assert only(reply)[0] == pytest.approx(0.526, abs=1e-3)
    lines = [line for line in before.splitlines() if line.startswith("turnout_decisions")]
    assert lines == [line for line in client.get("/metrics").text.splitlines() if line.startswith("turnout_decisions")]
    error = refused(client, 404, "/v2/models/delay/versions/nan@1/infer", json={"inputs": TENSORS})
    assert "holds no model version 'nan@1'; it holds sum@1, sum-too@1" in error


def test_a_version_that_fails_is_not_replaced_by_the_champion(client: Client) -> None:
    arms = [{"name": "control", "model": "sum@1"}, {"name": "bad", "model": "nan@1"}]
    start(client, experiment(arms=arms, allocation={"kind": "split", "weights": {"control": 0.0, "bad": 1.0}}))
    assert "'nan@1': it predicted a value that is not finite" in refused(
        client, 500, "/v2/models/delay/versions/nan@1/infer", json={"inputs": TENSORS}
    )
    reply = infer(client, parameters={"unit": "u"})
    assert reply["model_version"] == "sum@1"
    said = reply["parameters"]
    assert (said["arm"], said["model"], said["served_model"]) == ("bad", "nan@1", "sum@1")
    assert said["fallback"] == "it predicted a value that is not finite"


def test_a_forced_arm_works_here_as_well(client: Client) -> None:
    start(client, experiment())
    response = client.post(INFER, json={"inputs": TENSORS}, headers={"X-Turnout-Arm": "too"})
    assert response.json()["parameters"]["arm"] == "too"
    assert "no running experiment" in refused(client, 400, json={"inputs": TENSORS}, headers={"X-Turnout-Arm": "x"})


@pytest.mark.parametrize("asked", [{"parameters": {"binary_data_output": True}}, {"outputs": True}])
def test_bytes_in_and_out(client: Client, asked: dict[str, Any]) -> None:
    plain = only(infer(client))
    sent = [
        Tensor("distance", "FP32", np.array([100.0], dtype="<f4")),
        Tensor("carrier", "BYTES", np.array([b"B6"], dtype=object)),
        Tensor("wind", "FP64", np.array([[3.5]])),
    ]
    body = write_request(sent, ["prediction"] if "outputs" in asked else [], binary=True)
    response = client.post(INFER, content=body.content, headers=body.headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    reply, (output,) = read_response(response.content, response.headers[HEADER])
    assert reply.model_name == "delay"
    assert (output.name, output.array.tolist()) == ("prediction", plain)


def test_an_output_says_for_itself_whether_it_is_bytes(client: Client) -> None:
    outputs = [{"name": "prediction", "parameters": {"binary_data": False}}]
    assert len(only(infer(client, outputs=outputs, parameters={"binary_data_output": True}))) == 1
    assert "there is no output 'score'; the endpoint gives 'prediction'" in refused(
        client, 400, json={"inputs": TENSORS, "outputs": [{"name": "score"}]}
    )
    assert "true or false, not 7" in refused(
        client, 400, json={"inputs": TENSORS, "parameters": {"binary_data_output": 7}}
    )


@pytest.fixture
def numeric(settings: Settings) -> Iterator[Client]:
    """An endpoint all of whose features are numbers or booleans, and one with a single feature."""
    registry = Registry(settings.registry)
    features = (Feature("a", "number", nullable=True), Feature("b", "boolean"), Feature("c", "boolean", nullable=True))
    add_model(registry, "sum", Signature(features, "probability"))
    add_model(registry, "sum-one", Signature((Feature("a", "number"),), "probability"))
    with TestClient(application(Service(settings, load_model=load_small), max_body_bytes=10_000)) as client:
        client.post("/v1/endpoints", json={"name": "delay", "champion": "sum@1"})
        client.post("/v1/endpoints", json={"name": "one", "champion": "sum-one@1"})
        yield client


@pytest.mark.parametrize("name", ["input-0", "a"])
def test_one_tensor_holds_all_features(numeric: Client, name: str) -> None:
    reply = infer(numeric, [tensor(name, "FP32", [1.5, 1, 0], [None, 0, None], shape=[2, 3])])
    stored = numeric.get(f"/v1/decisions/{reply['parameters']['decision_id']}").json()
    assert stored["inputs"] == [{"a": 1.5, "b": True, "c": False}, {"a": None, "b": False, "c": None}]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
@pytest.mark.parametrize("name", ["a", "input-0"])
def test_a_single_feature_is_a_column_of_any_name(numeric: Client, name: str, shape: list[int]) -> None:
    if (name, shape) == ("input-0", [2]):
        assert "'a' is missing; 'input-0' is no feature" in refused(
            numeric, 400, "/v2/models/one/infer", json={"inputs": [tensor(name, "FP64", 1, 2, shape=shape)]}
        )
    else:
        assert len(only(infer(numeric, [tensor(name, "FP64", 1, 2, shape=shape)], "/v2/models/one/infer"))) == 2


def test_booleans_are_bool_or_zero_and_one(numeric: Client) -> None:
    inputs = [tensor("a", "UINT8", 7), tensor("b", "BOOL", True), tensor("c", "INT64", 1)]
    reply = infer(numeric, inputs)
    stored = numeric.get(f"/v1/decisions/{reply['parameters']['decision_id']}").json()
    assert stored["inputs"] == [{"a": 7.0, "b": True, "c": True}]


MISFITS: list[tuple[Any, str]] = [
    ([tensor("x", "FP64", [1, 2], shape=[1, 2])], "'x' has 2 columns, but the endpoint takes 3 features in this"),
    ([tensor("a", "FP64", 1)], "'b' is missing; 'c' is missing: send one tensor per feature, or one of shape"),
    ([tensor("a", "FP64", 1), tensor("b", "INT8", 2), tensor("c", "INT8", 1)], "'b' is a boolean: send BOOL, or"),
    ([tensor("a", "BOOL", True), tensor("b", "INT8", 1), tensor("c", "INT8", 1)], "must be numbers, such as FP64"),
    ([tensor("a", "FP64", 1), tensor("b", "FP64", None), tensor("c", "INT8", 1)], "'b' may not be null, but is"),
]


def test_numbers_that_do_not_fit_are_refused(numeric: Client) -> None:
    for inputs, problem in MISFITS:
        assert problem in refused(numeric, 400, json={"inputs": inputs})


NO_ROWS: list[tuple[Any, str]] = [
    ([], "'distance' is missing; 'carrier' is missing; 'wind' is missing: send one tensor per feature;"),
    (TENSORS[:2], "'wind' is missing: send one tensor per feature; the endpoint takes distance (number), carrier"),
    ([*TENSORS, tensor("extra", "FP64", 1)], "'extra' is no feature"),
    ([*TENSORS, TENSORS[0]], "'distance' is there 2 times"),
    (
        [tensor("all", "FP64", [1, 2, 3], shape=[1, 3])],
        "cannot hold all features, because 'carrier' are categories",
    ),
    (replaced(tensor("wind", "FP64", 1, 2)), "different numbers of rows: distance 1, carrier 1, wind 2"),
    (replaced(tensor("wind", "FP64", [1, 2], shape=[1, 2])), "'wind' has the shape [1, 2]; a feature has [rows]"),
    (replaced(tensor("wind", "FP64", 1, shape=[1, 1, 1])), "'wind' has the shape [1, 1, 1]"),
    (replaced(tensor("wind", "BYTES", "1")), "'wind' is a number, so its tensor must be numbers, such as FP64"),
    (replaced(tensor("carrier", "FP64", 1)), "'carrier' is a category, so its tensor must be BYTES, not FP64"),
    (replaced(tensor("distance", "FP64", None)), "'distance' may not be null, but is NaN in row 0"),
    (replaced(tensor("distance", "FP64", 1e39)), "inputs[0].distance: here stands 1e39; give a number <= 3.4"),
    (replaced(tensor("distance", "FP65", 1)), "tensor 'distance' has the unknown datatype 'FP65'"),
    (replaced(tensor("distance", "INT8", 300)), "tensor 'distance' has an element that does not fit INT8"),
    (replaced(tensor("distance", "FP64", 1, shape=[-1])), "Expected `int` >= 0"),
    (replaced({"name": "distance", "shape": [1], "datatype": "FP64"}), "tensor 'distance' has no data"),
    ([each | {"data": [], "shape": [0]} for each in TENSORS], "the list of inputs is empty"),
]


def test_tensors_that_are_no_rows_of_the_endpoint_are_refused(client: Client) -> None:
    for inputs, problem in NO_ROWS:
        assert problem in refused(client, 400, json={"inputs": inputs})


NO_REQUESTS: list[tuple[bytes, str]] = [
    (b"", "does not begin with valid JSON"),
    (b"\xff\xfe", "does not begin with valid JSON"),
    (b"\x1f\x8b\x08", "does not begin with valid JSON"),
    (b"[]", "is not an inference request: Expected `object`"),
    (b"{}", "missing required field `inputs`"),
    (b'{"inputs": 5}', "Expected `array`"),
    (b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [NaN]}]}', "NaN is none"),
    (b'{"inputs": ' + b"[" * 100_000, "Expected `object`, got `array`"),
    (b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": ' + b"[" * 100_000, "deeply"),
    (b'{"inputs": [], "parameters": {"unit": [1]}}', "parameters"),
    (b'{"inputs": [], "parameters": {"unit": 5}}', "parameters.unit: here stands 5; give a text"),
    (b'{"inputs": [], "parameters": {"unit": ""}}', 'parameters.unit: here stands ""; give a text'),
    (b'{"inputs": [], "parameters": {"unit": "\\u0000"}}', "parameters.unit"),
    (b'{"inputs": [], "id": "\\u0000"}', "id stands for the missing parameter unit"),
]


def test_bodies_that_are_no_requests_are_refused(client: Client) -> None:
    for content, problem in NO_REQUESTS:
        assert problem in refused(client, 400, content=content)


def test_limits_are_those_of_every_call(client: Client, settings: Settings) -> None:
    many = [each | {"data": each["data"] * 101, "shape": [101]} for each in TENSORS]
    for path in (INFER, "/v2/models/delay/versions/1/infer"):
        assert "the limit is 100" in refused(client, 413, path, json={"inputs": many})
        refused(client, 413, path, content=b" " * (settings.max_body_bytes + 1))
    assert client.put(INFER).json() == {"error": "Method Not Allowed"}


@pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("deflate", 15), ("GZIP", 31), ("identity", None)])
def test_a_body_may_be_compressed(client: Client, encoding: str, bits: int | None) -> None:
    body = json.dumps({"inputs": TENSORS}).encode()
    stream = zlib.compressobj(wbits=bits or 15)
    sent = body if bits is None else stream.compress(body) + stream.flush()
    response = client.post(INFER, content=sent, headers={"Content-Encoding": encoding})
    assert only(response.json()) == only(infer(client))


def test_a_body_that_is_not_what_its_encoding_says_is_refused(client: Client, settings: Settings) -> None:
    for sent in (b"{}", zlib.compress(b"{}")[:-2], zlib.compress(b"{}") + b"x", b""):
        error = refused(client, 400, content=sent, headers={"Content-Encoding": "gzip"})
        assert "the body is not what Content-Encoding gzip says" in error
    assert "'br' is not understood" in refused(client, 400, content=b"x", headers={"Content-Encoding": "br"})
    bomb = zlib.compress(b" " * 50_000_000, 9)
    assert len(bomb) < settings.max_body_bytes
    assert "when it is uncompressed" in refused(client, 413, content=bomb, headers={"Content-Encoding": "deflate"})


def test_more_than_enough_context_is_refused(client: Client) -> None:
    problem = refused(client, 400, json={"inputs": TENSORS, "parameters": {"x" * 129: 1}})
    assert "parameters: here stands the key" in problem


@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_requests_are_never_a_failure_of_the_server(client: Client, data: st.DataObject) -> None:
    sent = [
        Tensor("distance", "FP32", np.array([100.0, 5.0], dtype="<f4")),
        Tensor("carrier", "BYTES", np.array([b"B6", b"\xc3\xbc"], dtype=object)),
        Tensor("wind", "FP64", np.array([[3.5], [np.nan]])),
    ]
    body = write_request(sent, ["prediction"], binary=data.draw(st.booleans()))
    content, headers = bytearray(body.content), body.headers
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place : place + 1] = data.draw(st.binary(max_size=4))
    else:
        del content[place:]
    if HEADER in headers and data.draw(st.booleans()):
        headers[HEADER] = data.draw(
            st.sampled_from(["0", "-1", "1e3", "999999999999999999999", str(place), "x" * 3000])
        )
    response = client.post(INFER, content=bytes(content), headers=headers)
    assert response.status_code in {200, 400}, response.text
    if response.status_code == 400:
        assert set(response.json()) == {"error"}


def test_a_router_may_be_the_model_server_of_another(settings: Settings, registry: Registry) -> None:
    sample = [INPUTS, {**INPUTS, "wind": None}]
    signature = registry.manifest(registry.latest("sum")).signature
    with serving(settings) as url:
        with Turnout(url) as client:
            client.create_endpoint({"name": "delay", "champion": "sum@1"})
            predictions = client.predict("delay", unit="u", inputs=sample)["predictions"]
        reference = publish_remote(
            url, "delay", signature, sample, name="far", registry=registry, model_version="sum@1"
        )
        model = load(registry, reference)
        rows = msgspec.convert(sample, list[input_struct(signature)])  # type: ignore[misc]
        assert model.predict(BatchEncoder(signature).encode(rows)).tolist() == predictions
