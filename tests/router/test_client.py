import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.registry import Registry
from router.client import ApiError, AsyncTurnout, Turnout
from router.errors import InvalidKey
from router.settings import Settings
from tests.router.documents import INPUTS, experiment
from tests.router.keyrings import make_key
from tests.router.servers import serving


@pytest.fixture
def url(settings: Settings, registry: Registry) -> Iterator[str]:
    """A router over HTTP, with endpoint `delay`."""
    assert registry.names()
    with serving(settings) as url:
        with Turnout(url) as client:
            client.create_endpoint({"name": "delay", "champion": "sum@1"})
        yield url


def test_client_goes_through_an_experiment(url: str) -> None:
    with Turnout(url) as client:
        assert client.ready()
        assert [each["document"]["name"] for each in client.endpoints()] == ["delay"]
        assert client.create_experiment(experiment())["state"] == "draft"
        assert client.start("too-vs-sum", revision=1)["state"] == "running"
        reply = client.predict("delay", unit="u", inputs=INPUTS, context={"origin": "JFK"}, id="order-1")
        assert client.predict("delay", unit="u", inputs=INPUTS, context={"origin": "JFK"}, id="order-1") == reply
        for arm in ("control", "too-vs-sum/too"):
            assert client.predict("delay", unit="u", inputs=INPUTS, arm=arm)["epoch"] == 0
        receipts = client.outcomes([{"decision_id": reply["decision_id"], "metric": "late", "value": 1}])
        assert receipts["accepted"] == 1
        assert client.decision(reply["decision_id"])["outcomes"][0]["value"] == 1.0
        weights = {"kind": "split", "weights": {"control": 0.1, "too": 0.9}}
        assert client.replace_experiment(experiment(allocation=weights), revision=2)["epoch"] == 2
        assert client.pause("too-vs-sum")["state"] == "paused"
        assert client.resume("too-vs-sum")["state"] == "running"
        assert client.conclude("too-vs-sum")["state"] == "concluded"
        assert client.experiment("too-vs-sum")["revision"] == 6
        assert client.experiments()[0]["document"]["name"] == "too-vs-sum"
        assert client.replace_endpoint({"name": "delay", "champion": "sum-too@1"}, revision=1)["revision"] == 2
        assert client.endpoint("delay")["document"]["champion"] == "sum-too@1"
        assert "sum@1" in [each["model"] for each in client.models()]


def test_async_client_predicts_and_posts(url: str) -> None:
    async def go() -> tuple[int, int]:
        async with AsyncTurnout(url) as client:
            replies = await asyncio.gather(
                *(client.predict("delay", unit=f"u{number}", inputs=[INPUTS, INPUTS]) for number in range(20))
            )
            rows = [{"decision_id": reply["decision_id"], "metric": "late", "value": 0} for reply in replies]
            receipts = await client.outcomes(rows)
            decision = await client.decision(replies[0]["decision_id"])
            return receipts["accepted"], len(decision["predictions"])

    assert asyncio.run(go()) == (20, 2)


CANDIDATES = [{**INPUTS, "id": f"c{distance}", "distance": distance} for distance in (200.0, 100.0, 300.0)]


def test_both_clients_rank(url: str) -> None:
    async def again(key: str) -> dict[str, object]:
        async with AsyncTurnout(url) as client:
            return await client.rank("choice", "u", CANDIDATES, context={"origin": "JFK"}, length=2, id=key)

    with Turnout(url) as client:
        client.create_endpoint({"name": "choice", "kind": "rank", "champion": "sum@1"})
        everything = client.rank("choice", "u", CANDIDATES)
        assert [item["id"] for item in everything["items"]] == ["c300.0", "c200.0", "c100.0"]
        reply = client.rank("choice", "u", CANDIDATES, context={"origin": "JFK"}, length=2, id="list-1")
        assert [(item["rank"], item["item"]) for item in reply["items"]] == [(1, 2), (2, 0)]
        assert asyncio.run(again("list-1")) == reply
        assert asyncio.run(again("list-2"))["decision_id"] != reply["decision_id"]
        with pytest.raises(ApiError, match="400: endpoint 'choice' is a rank endpoint"):
            client.predict("choice", unit="u", inputs=INPUTS)


def test_both_clients_show_their_key(settings: Settings, registry: Registry) -> None:
    assert registry.names()
    _, text = make_key(settings.database, "admin")
    with serving(settings) as url:
        with Turnout(url, api_key=text) as client:
            client.create_endpoint({"name": "delay", "champion": "sum@1"})
            assert [each["subject"] for each in client.audit(limit=1)] == ["endpoint delay"]
            assert client.audit(before=1) == []
        with Turnout(url) as client, pytest.raises(ApiError, match="401: this router needs an API key"):
            client.endpoints()

        async def predict(api_key: str | None) -> int:
            async with AsyncTurnout(url, api_key=api_key) as client:
                return len(await client.predict("delay", unit="u", inputs=INPUTS))

        assert asyncio.run(predict(text)) > 0
        with pytest.raises(ApiError, match="401"):
            asyncio.run(predict(None))


@pytest.mark.parametrize("api_key", ["tk_a_b\nX-Other: header", "tk_a_\x00", "tk_a_é"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(api_key: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        Turnout(api_key=api_key)
    assert "tk_a" not in str(caught.value)


def test_an_error_carries_the_problem(url: str) -> None:
    with Turnout(url) as client, pytest.raises(ApiError, match="404: there is no endpoint 'dealy'") as caught:
        client.predict("dealy", unit="u", inputs=INPUTS)
    assert caught.value.status == 404
    assert caught.value.problem["code"] == "unknown-endpoint"


def test_ready_is_false_while_nobody_answers() -> None:
    with Turnout("http://127.0.0.1:9") as client:
        assert not client.ready()


def test_numbers_of_numpy_are_sent_as_plain_ones(url: str) -> None:
    row = {"distance": np.float64(100.0), "carrier": np.str_("B6"), "wind": np.float32("nan")}
    frame = pd.DataFrame({"distance": [100], "carrier": ["B6"], "wind": [3.5]})
    with Turnout(url) as client:
        first = client.predict("delay", unit="u", inputs=row, context={"weekend": np.bool_(True), "hour": np.int8(7)})
        stored = client.decision(first["decision_id"])
        assert stored["inputs"] == [{"distance": 100.0, "carrier": "B6", "wind": None}]
        assert stored["context"] == {"weekend": True, "hour": 7}
        plain = client.predict("delay", unit="u", inputs=INPUTS)
        assert client.predict("delay", unit="u", inputs=dict(frame.iloc[0]))["prediction"] == plain["prediction"]


class Text(str):
    """A text of a type that only its maker knows."""


@pytest.mark.parametrize(
    "value", [pd.Series({"a": 1, "b": 2}), np.array([1.0, 2.0]), pd.NA, 1j, np.complex64(1j), Text("a")]
)
def test_what_is_no_json_is_refused_with_a_remedy(value: Any) -> None:
    with (
        Turnout("http://127.0.0.1:9") as client,
        pytest.raises(TypeError, match=f"{type(value).__qualname__} is no JSON value; convert it first"),
    ):
        client.predict("delay", unit="u", inputs=value)
