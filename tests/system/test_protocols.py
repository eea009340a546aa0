"""Clients and servers of other makers, unmodified: a V2 client, an OpenFeature provider, a V2 server behind an arm."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from router.client import Turnout
from tests.router.keyrings import make_key
from tests.system.conftest import create_experiment
from tests.system.inference_servers import mlserver
from tests.system.processes import Router, router

pytestmark = pytest.mark.system

Stock = tuple[InferenceServerClient, Callable[[], dict[str, str]]]

ROWS = [
    {"distance": 500.0, "hour": 17.0, "carrier": "B6"},
    {"distance": 90.5, "hour": 6.0, "carrier": "Zürich Air 🛩"},
    {"distance": 2500.0, "hour": 23.0, "carrier": ""},
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, registry: Path) -> Iterator[tuple[Router, str]]:
    """A router that needs keys, with a running experiment of four models, and a key that may only predict."""
    state = tmp_path_factory.mktemp("protocols")
    with router(state, registry) as running:
        create_experiment(running.url)
        _, key = make_key(f"sqlite:///{state}/ledger.db", "predict", "read")
        while httpx.get(f"{running.url}/v1/endpoints").status_code != 401:
            pass
        yield running, key


@pytest.fixture
def stock(served: tuple[Router, str]) -> Iterator[Stock]:
    """The stock client, and a maker of the header that shows the key: the client writes into what it is given."""
    running, key = served
    with InferenceServerClient(f"127.0.0.1:{running.port}") as client:
        yield client, lambda: {"Authorization": f"Bearer {key}"}


def tensors(rows: list[dict[str, Any]], *, binary: bool, number: Any = np.float32) -> list[InferInput]:
    made = []
    for name in rows[0]:
        values = [row[name] for row in rows]
        texts = isinstance(values[0], str)
        array = np.array([value.encode() if texts else value for value in values], dtype=object if texts else number)
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        made.append(tensor.set_data_from_numpy(array, binary_data=binary))
    return made


def test_the_stock_client_looks_around(stock: Stock) -> None:
    client, headers = stock
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata(headers())["name"] == "turnout"
    assert client.is_model_ready("delay", headers=headers())
    assert client.is_model_ready("delay", "forest@1", headers())
    assert not client.is_model_ready("nobody", headers=headers())
    assert not client.is_model_ready("delay")
    metadata = client.get_model_metadata("delay", headers=headers())
    assert {each["name"]: each["datatype"] for each in metadata["inputs"]} == {
        "distance": "FP64",
        "hour": "FP64",
        "carrier": "BYTES",
    }
    index = client.get_model_repository_index(headers())
    assert {each["version"] for each in index} == {"logistic@1", "bayes@1", "boosting@1", "forest@1"}
    assert {(each["name"], each["state"]) for each in index} == {("delay", "READY")}


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None])
def test_the_stock_client_predicts_what_predict_does(
    served: tuple[Router, str],
    stock: Stock,
    binary_in: bool,
    binary_out: bool | None,
) -> None:
    client, headers = stock
    outputs = None if binary_out is None else [InferRequestedOutput("prediction", binary_data=binary_out)]
    with Turnout(served[0].url, api_key=served[1]) as plain:
        for number in range(8):
            unit = f"user-{number}"
            expected = plain.predict("delay", unit=unit, inputs=ROWS)
            result = client.infer(
                "delay",
                tensors(ROWS, binary=binary_in),
                outputs=outputs,
                request_id=f"request-{number}",
                parameters={"unit": unit, "origin": "JFK", "vip": True},
                headers=headers(),
            )
            assert result.as_numpy("prediction").dtype == np.float64
            assert result.as_numpy("prediction").tolist() == expected["predictions"]
            response = result.get_response()
            assert (response["id"], response["model_version"]) == (f"request-{number}", expected["model"])
            said = response["parameters"]
            assert (said["experiment"], said["arm"], said["propensity"]) == ("four", expected["arm"], 0.25)
            decision = plain.decision(said["decision_id"])
            assert (decision["unit"], decision["context"]) == (unit, {"origin": "JFK", "vip": True})


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_the_stock_client_may_compress(stock: Stock, algorithm: str) -> None:
    client, headers = stock
    plain = client.infer("delay", tensors(ROWS, binary=True), "1", headers=headers())
    small = client.infer(
        "delay", tensors(ROWS, binary=True), "1", headers=headers(), request_compression_algorithm=algorithm
    )
    assert small.as_numpy("prediction").tolist() == plain.as_numpy("prediction").tolist()


def test_the_stock_client_asks_one_version(stock: Stock) -> None:
    client, headers = stock
    for version in ("logistic@1", "bayes@1", "boosting@1", "forest@1"):
        result = client.infer("delay", tensors(ROWS, binary=True), version, headers=headers())
        assert result.get_response()["parameters"] == {"model": version, "routed": False}
        assert result.as_numpy("prediction").shape == (3,)


def test_the_stock_client_is_told_what_is_wrong(stock: Stock) -> None:
    client, headers = stock
    with pytest.raises(InferenceServerException, match="this router needs an API key") as refused:
        client.infer("delay", tensors(ROWS, binary=True))
    assert refused.value.status() == "401"
    for binary in (False, True):
        with pytest.raises(InferenceServerException, match="'carrier' is missing: send one tensor per feature"):
            client.infer("delay", tensors(ROWS, binary=binary)[:2], headers=headers())
    with pytest.raises(InferenceServerException, match="there is no endpoint 'nobody'"):
        client.infer("nobody", tensors(ROWS, binary=True), headers=headers())
    # It writes NaN into its JSON, which is none; in bytes NaN is a null, which this endpoint does not take.
    nan = [ROWS[0] | {"distance": math.nan}]
    with pytest.raises(InferenceServerException, match="NaN is none"):
        client.infer("delay", tensors(nan, binary=False), headers=headers())
    with pytest.raises(InferenceServerException, match="'distance' may not be null, but is NaN in row 0"):
        client.infer("delay", tensors(nan, binary=True), headers=headers())


@pytest.fixture
def flags(served: tuple[Router, str]) -> Iterator[Callable[..., FlagEvaluationDetails[str]]]:
    """An application's way to ask for a flag through the stock provider."""
    running, key = served
    api.set_provider(OFREPProvider(running.url, headers_factory=lambda: {"Authorization": f"Bearer {key}"}))
    client = api.get_client()

    def ask(name: str, unit: str | None, **attributes: Any) -> FlagEvaluationDetails[str]:
        return client.get_string_details(name, "code default", EvaluationContext(unit, attributes))

    yield ask
    api.shutdown()
    api.clear_providers()


def test_the_stock_provider_gets_the_arm_and_counts_as_exposed(
    served: tuple[Router, str], flags: Callable[..., FlagEvaluationDetails[str]]
) -> None:
    running, key = served
    arms = set()
    with Turnout(running.url, api_key=key) as plain:
        for number in range(12):
            unit = f"user-{number}"
            flag = flags("four", unit, origin="JFK", hour=17)
            assert (flag.error_code, flag.reason) == (None, "SPLIT")
            assert flag.value == flag.variant == plain.predict("delay", unit=unit, inputs=ROWS[0])["arm"]
            assert flag.flag_metadata["propensity"] == 0.25
            decision = plain.decision(str(flag.flag_metadata["decisionId"]))
            assert (decision["unit"], decision["arm"]) == (unit, flag.value)
            assert decision["context"] == {"origin": "JFK", "hour": 17}
            arms.add(flag.value)
    assert len(arms) > 1


def test_the_stock_provider_falls_back_to_the_applications_default(
    flags: Callable[..., FlagEvaluationDetails[str]], served: tuple[Router, str]
) -> None:
    unknown, nobody = flags("nobody", "user-1"), flags("four", None)
    assert (unknown.value, str(unknown.error_code)) == ("code default", "FLAG_NOT_FOUND")
    assert (nobody.value, str(nobody.error_code)) == ("code default", "TARGETING_KEY_MISSING")
    api.set_provider(OFREPProvider(served[0].url))
    refused = api.get_client().get_string_details("four", "code default", EvaluationContext("user-1"))
    assert (refused.value, refused.error_message) == ("code default", "unauthorized")


def turnout(running: Router, *arguments: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "router", *arguments],
        env=running.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def delay_of(row: dict[str, Any]) -> float:
    """What the model on the other server computes."""
    return 1 / (1 + math.exp(-(row["distance"] / 1000 + row["hour"] / 24 - len(row["carrier"]))))


def published(running: Router, folder: Path, url: str) -> Any:
    (folder / "signature.json").write_text(
        json.dumps(
            {
                "features": [
                    {"name": "distance", "kind": "number"},
                    {"name": "hour", "kind": "number"},
                    {"name": "carrier", "kind": "category"},
                ],
                "output": "probability",
            }
        )
    )
    (folder / "sample.json").write_text(json.dumps(ROWS))
    files = ("--signature", str(folder / "signature.json"), "--sample", str(folder / "sample.json"))
    return turnout(running, "model", "remote", "--url", url, "--model-name", "delay", *files, "--name", "far")


def test_an_mlserver_is_an_arm(tmp_path: Path, registry: Path, tally: Callable[[object], None]) -> None:
    shutil.copytree(registry, tmp_path / "registry")
    with router(tmp_path, tmp_path / "registry") as running, Turnout(running.url) as client:
        with mlserver(tmp_path / "mlserver") as url:
            done = published(running, tmp_path, url)
            assert done.returncode == 0, done.stderr
            assert done.stdout == f"far@1 runs on {url}\n"
            client.create_endpoint({"name": "delay", "champion": "logistic@1", "timeout_ms": 2000})
            client.create_experiment(
                {
                    "name": "near-vs-far",
                    "endpoint": "delay",
                    "arms": [{"name": "near", "model": "logistic@1"}, {"name": "far", "model": "far@1"}],
                    "allocation": {"kind": "split", "weights": {"near": 0.5, "far": 0.5}},
                    "metrics": [{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}],
                }
            )
            client.start("near-vs-far")
            replies = [client.predict("delay", unit=f"user-{number}", inputs=ROWS) for number in range(40)]
            far = [reply for reply in replies if reply["arm"] == "far"]
            assert 5 < len(far) < 35
            assert all("fallback" not in reply for reply in replies)
            for reply in far:
                assert reply["predictions"] == pytest.approx([delay_of(row) for row in ROWS])
            broken = client.predict("delay", unit=unit_of(replies, "far"), inputs=ROWS[0] | {"carrier": "BROKEN"})
            assert (broken["arm"], broken["served_model"]) == ("far", "logistic@1")
            assert f"{url}/v2/models/delay/infer answers 500" in broken["fallback"]
        replies = [client.predict("delay", unit=f"user-{number}", inputs=ROWS) for number in range(40)]
        for reply in replies:
            assert (reply.get("served_model"), "fallback" in reply) == (
                ("logistic@1", True) if reply["arm"] == "far" else (None, False)
            )
        assert {reply["model"] for reply in replies} == {"far@1", "logistic@1"}
        tally(f"MLServer: {len(far)} of 40 units served by the remote arm, then by the champion when it was gone")
        gone = published(running, tmp_path, url)
        assert (gone.returncode, gone.stdout) == (1, "")
        assert gone.stderr.startswith(f"Error: {url}/v2/models/delay/ready does not answer")
        assert turnout(running, "verify-log").returncode == 0


def unit_of(replies: list[dict[str, Any]], arm: str) -> str:
    """Return a unit that got an arm."""
    return f"user-{[reply['arm'] for reply in replies].index(arm)}"
