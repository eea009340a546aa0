import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from models.errors import InvalidValue
from models.reference import ModelReference
from models.registry import Registry
from models.signature import Batch, BatchEncoder, input_struct
from router.documents import Breaker
from router.errors import Overloaded, PredictionFailed
from router.serving.routes import Limits, ServedModel
from router.serving.running import ModelReading, ModelRunner, describe
from router.settings import Settings
from tests.router.documents import INPUTS, experiment
from tests.router.servers import serving
from tests.router.small_models import GateModel, SumModel, add_model, load_small
from tests.router.test_metrics import read

Client = TestClient[Litestar]
LIMITS = Limits(0.03, 4, Breaker(calls=4, failure_rate=0.5, open_s=0.05))


def served(folder: Path, name: str, *, inline: bool = False, gathers: bool = False) -> ServedModel:
    registry = Registry(folder / "registry")
    model = load_small(registry, ModelReference.parse(add_model(registry, name)))
    return ServedModel(str(model.reference), model, BatchEncoder(model.signature), inline, gathers=gathers)


def gate_of(model: ServedModel) -> threading.Event:
    assert isinstance(model.model, GateModel)
    return model.model.gate


def calls_of(model: ServedModel) -> int:
    assert isinstance(model.model, GateModel)
    return model.model.calls


def rows(model: ServedModel, number: int = 1) -> Sequence[msgspec.Struct]:
    assert model.model is not None
    row = input_struct(model.model.signature)
    return [msgspec.convert({"distance": float(each), "carrier": "B6", "wind": None}, row) for each in range(number)]


def reading(runner: ModelRunner, model: ServedModel) -> ModelReading:
    return next(each for each in runner.readings() if each.reference == model.reference)


async def error_of(call: Awaitable[Any]) -> Any:
    """Return what a call raised."""
    with pytest.raises(BaseException) as raised:  # noqa: PT011 (the test looks at it)
        await call
    return raised.value


async def until(condition: Callable[[], object]) -> None:
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not happen in time")


@pytest.mark.parametrize("name", ["gate", "awaited"])
def test_a_call_that_nobody_waits_for_keeps_its_place_until_it_returns(tmp_path: Path, name: str) -> None:
    async def go() -> None:
        model, runner = served(tmp_path, name), ModelRunner()
        limits = LIMITS._replace(breaker=Breaker(calls=100))
        gate_of(model).clear()
        found = [await error_of(runner.run(model, rows(model), limits)) for _ in range(6)]
        if name == "gate":
            # A thread cannot be stopped, so its calls are counted; a connection is closed.
            assert [type(each) for each in found] == [TimeoutError] * 4 + [Overloaded] * 2
            assert str(found[-1]) == "4 calls of it are under way, which is its limit"
            assert reading(runner, model).calls == calls_of(model) == 4
        else:
            assert [type(each) for each in found] == [TimeoutError] * 6
        gate_of(model).set()
        await until(lambda: reading(runner, model).calls == 0)
        assert len(await runner.run(model, rows(model), limits)) == 1
        runner.close()

    asyncio.run(go())


def test_a_coroutine_that_ignores_its_cancellation_is_counted_and_not_waited_for(tmp_path: Path) -> None:
    async def stubborn(batch: Batch) -> Any:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
        return np.zeros(1)

    async def go() -> None:
        model, runner = served(tmp_path, "awaited"), ModelRunner()
        model.model.predict_async = stubborn  # type: ignore[union-attr]
        started_s = time.monotonic()
        assert isinstance(await error_of(runner.run(model, rows(model), LIMITS)), TimeoutError)
        assert time.monotonic() - started_s < 0.15
        assert reading(runner, model).calls == 1
        await until(lambda: reading(runner, model).calls == 0)

    asyncio.run(go())


def test_a_model_that_hangs_starves_no_other(tmp_path: Path) -> None:
    async def go() -> None:
        hangs, works, runner = served(tmp_path, "gate"), served(tmp_path, "gate-too"), ModelRunner()
        gate_of(hangs).clear()
        generous = Limits(20, 10_000, Breaker(calls=10_000))
        hanging = [asyncio.create_task(runner.run(hangs, rows(hangs), generous)) for _ in range(200)]
        await until(lambda: calls_of(hangs) == 8)
        for _ in range(20):
            assert len(await runner.run(works, rows(works), LIMITS)) == 1
        assert sum(thread.name.startswith("model-gate@1") for thread in threading.enumerate()) == 8
        gate_of(hangs).set()
        assert len(await asyncio.gather(*hanging)) == 200
        runner.close()

    asyncio.run(go())


@pytest.mark.parametrize("inline", [True, False])
def test_a_model_that_fails_is_left_alone_then_probed_then_trusted(tmp_path: Path, inline: bool) -> None:
    now_s, opened, rejected = [0.0], Counter[str](), Counter[tuple[str, str]]()

    async def go() -> None:
        runner = ModelRunner(opened=opened, rejected=rejected, clock=lambda: now_s[0])
        model, limits = served(tmp_path, "error", inline=inline), LIMITS._replace(timeout_s=20)
        for _ in range(11):
            assert len(await runner.run(model, rows(model), limits)) == 1
        errors = [await error_of(runner.run(model, rows(model), limits)) for _ in range(10)]
        kinds = [describe(each, limits) for each in errors]
        assert kinds[:2] == ["RuntimeError: out of order"] * 2
        assert set(kinds[2:]) == {"circuit open: 2 of its last 4 calls failed"}
        assert reading(runner, model).breaker == "open"
        now_s[0] += 0.05
        assert reading(runner, model).breaker == "half-open"
        assert isinstance(await error_of(runner.run(model, rows(model), limits)), RuntimeError)
        assert reading(runner, model).breaker == "open"
        model.model.calls = -100  # type: ignore[union-attr]
        assert isinstance(await error_of(runner.run(model, rows(model), limits)), Overloaded)
        now_s[0] += 0.05
        assert len(await runner.run(model, rows(model), limits)) == 1
        assert reading(runner, model) == (model.reference, 0, "closed")
        runner.close()

    asyncio.run(go())
    assert opened == {"error@1": 2}
    assert rejected == {("error@1", "breaker"): 9}


def test_only_one_call_probes(tmp_path: Path) -> None:
    async def go() -> None:
        model, runner = served(tmp_path, "gate"), ModelRunner()
        limits = LIMITS._replace(timeout_s=0.02, breaker=Breaker(calls=1, open_s=0.05))
        gate_of(model).clear()
        assert isinstance(await error_of(runner.run(model, rows(model), limits)), TimeoutError)
        await asyncio.sleep(0.06)
        before = calls_of(model)
        found = await asyncio.gather(*(error_of(runner.run(model, rows(model), limits)) for _ in range(5)))
        assert sorted(type(each).__name__ for each in found) == ["Overloaded"] * 4 + ["TimeoutError"]
        assert calls_of(model) == before + 1
        gate_of(model).set()
        runner.close()

    asyncio.run(go())


def test_a_probe_whose_caller_leaves_is_followed_by_another(tmp_path: Path) -> None:
    async def go() -> None:
        model, runner = served(tmp_path, "gate"), ModelRunner()
        limits = Limits(10, 4, Breaker(calls=1, open_s=0.05))
        runner_limits = limits._replace(timeout_s=0.01)
        gate_of(model).clear()
        assert isinstance(await error_of(runner.run(model, rows(model), runner_limits)), TimeoutError)
        await asyncio.sleep(0.06)
        probe = asyncio.create_task(runner.run(model, rows(model), runner_limits._replace()))
        await asyncio.sleep(0)
        probe.cancel()
        assert isinstance(await error_of(probe), asyncio.CancelledError)
        gate_of(model).set()
        assert len(await runner.run(model, rows(model), runner_limits)) == 1
        runner.close()

    asyncio.run(go())


def test_other_limits_are_another_breaker(tmp_path: Path) -> None:
    async def go() -> None:
        model, runner = served(tmp_path, "gate"), ModelRunner()
        hasty, patient = Limits(0.005, 64, Breaker(calls=1, open_s=60)), Limits(20, 64, Breaker())
        gate_of(model).clear()
        assert isinstance(await error_of(runner.run(model, rows(model), hasty)), TimeoutError)
        gate_of(model).set()
        assert isinstance(await error_of(runner.run(model, rows(model), hasty)), Overloaded)
        assert len(await runner.run(model, rows(model), patient)) == 1
        assert reading(runner, model).breaker == "open"
        runner.keep_only({model.reference: {patient}})
        assert reading(runner, model).breaker == "closed"
        runner.close()

    asyncio.run(go())


def test_a_model_that_turned_slow_leaves_the_event_loop_until_it_is_quick_again(tmp_path: Path) -> None:
    async def go() -> None:
        model, runner = served(tmp_path, "sum", inline=True), ModelRunner()
        threads = []

        def predict(batch: Batch) -> Any:
            threads.append(threading.current_thread() is threading.main_thread())
            if len(threads) == 2:
                time.sleep(0.05)
            return SumModel.predict(model.model, batch)  # type: ignore[arg-type]

        model.model.predict = predict  # type: ignore[union-attr,method-assign]
        limits = LIMITS._replace(breaker=Breaker())
        for _ in range(104):
            assert len(await runner.run(model, rows(model), limits)) == 1
        assert threads == [True] * 2 + [False] * 100 + [True] * 2
        runner.close()

    asyncio.run(go())


def test_requests_for_a_model_that_gathers_are_gathered(tmp_path: Path) -> None:
    sizes: list[int] = []

    async def go() -> None:
        model, runner = served(tmp_path, "bulk", gathers=True), ModelRunner(gathered=sizes.append)
        limits = Limits(20, 64, Breaker())
        found = await asyncio.gather(*(runner.run(model, rows(model, number), limits) for number in range(1, 9)))
        assert [len(each) for each in found] == list(range(1, 9))
        runner.close()

    asyncio.run(go())
    assert sizes == [1, 35]


def test_one_call_that_was_late_for_many_counts_once(tmp_path: Path) -> None:
    opened = Counter[str]()

    async def go() -> None:
        model, runner = served(tmp_path, "gate", inline=True, gathers=True), ModelRunner(opened=opened)
        gate_of(model).clear()
        threading.Timer(0.1, gate_of(model).set).start()
        found = await asyncio.gather(*(runner.run(model, rows(model), LIMITS) for _ in range(12)))
        assert [len(each) for each in found] == [1] * 12
        assert reading(runner, model).breaker == "closed"
        runner.close()

    asyncio.run(go())
    assert opened == {}


def test_whose_rows_a_model_cannot_take_fails_alone_though_it_was_gathered_in_the_loop(tmp_path: Path) -> None:
    async def go() -> None:
        model, runner = served(tmp_path, "bulk", inline=True, gathers=True), ModelRunner()
        bad = [msgspec.convert({"distance": -1.0, "carrier": "B6", "wind": None}, type(rows(model)[0]))]
        limits = Limits(20, 64, Breaker())
        calls = [runner.run(model, each, limits) for each in (rows(model), bad, rows(model, 2))]
        good, failed, other = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(failed, ValueError)
        assert [len(each) for each in (good, other) if isinstance(each, list)] == [1, 2]
        runner.close()

    asyncio.run(go())


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(
    ("predicted", "reason"),
    [
        (np.array([np.nan]), "it predicted a value that is not finite"),
        (np.array([-1e101]), "it predicted a value further than 1e+100 from 0"),
        (np.array([0.5, 0.5]), "it predicted 2 values for 1 rows"),
        (np.array(0.5), "TypeError: 'float' object is not iterable"),
    ],
)
def test_what_is_no_prediction_is_a_failure(tmp_path: Path, inline: bool, predicted: Any, reason: str) -> None:
    async def go() -> None:
        model, runner = served(tmp_path, "sum", inline=inline), ModelRunner()
        model.model.predict = lambda batch: predicted  # type: ignore[union-attr,method-assign]
        error = await error_of(runner.run(model, rows(model), LIMITS))
        assert describe(error, LIMITS) == reason
        runner.close()

    asyncio.run(go())


def test_a_model_that_ends_the_interpreter_in_the_loop_ends_only_its_call(tmp_path: Path) -> None:
    def leave(batch: object) -> Any:
        raise SystemExit(3)

    async def go() -> None:
        model, runner = served(tmp_path, "sum", inline=True), ModelRunner()
        model.model.predict = leave  # type: ignore[union-attr,method-assign]
        assert isinstance(await error_of(runner.run(model, rows(model), LIMITS)), PredictionFailed)

    asyncio.run(go())


def test_what_is_no_longer_used_is_let_go(tmp_path: Path) -> None:
    async def go() -> None:
        old, new, runner = served(tmp_path, "gate-old"), served(tmp_path, "gate-new"), ModelRunner()
        limits = Limits(20, 64, Breaker())
        gate_of(old).clear()
        under_way = asyncio.create_task(runner.run(old, rows(old), limits))
        await runner.run(new, rows(new), limits)
        await until(lambda: calls_of(old) == 1)
        runner.keep_only({new.reference: {limits}})
        assert [each.reference for each in runner.readings()] == [new.reference]
        gate_of(old).set()
        assert len(await under_way) == 1
        await until(lambda: not any(each.name.startswith("model-gate-old") for each in threading.enumerate()))
        assert any(each.name.startswith("model-gate-new") for each in threading.enumerate())
        runner.close()

    asyncio.run(go())


def test_a_version_that_was_loaded_anew_is_another_model(tmp_path: Path) -> None:
    async def go() -> None:
        first, runner = served(tmp_path, "gate"), ModelRunner()
        again = first._replace(model=load_small(Registry(tmp_path / "registry"), ModelReference.parse("gate@1")))
        limits = Limits(20, 64, Breaker())
        await runner.run(first, rows(first), limits)
        await runner.run(again, rows(again), limits)
        assert (calls_of(first), calls_of(again)) == (1, 1)
        assert len(list(runner.readings())) == 1
        runner.close()

    asyncio.run(go())


def predict(client: Client, unit: str = "u", endpoint: str = "delay") -> httpx.Response:
    return client.post(f"/v1/endpoints/{endpoint}/predict", json={"unit": unit, "inputs": INPUTS})


def test_an_arm_whose_breaker_is_open_is_answered_by_the_champion_at_once(client: Client) -> None:
    arms = [{"name": "control", "model": "sum@1"}, {"name": "bad", "model": "slow@1"}]
    weights = {"kind": "split", "weights": {"control": 0.0, "bad": 1.0}}
    client.post("/v1/experiments", json=experiment(arms=arms, allocation=weights))
    client.post("/v1/experiments/too-vs-sum/start", headers={"If-Match": "*"})
    replies = [predict(client, f"u{number}").json() for number in range(30)]
    assert {(each["arm"], each["model"], each["served_model"]) for each in replies} == {("bad", "slow@1", "sum@1")}
    reasons = [each["fallback"] for each in replies]
    assert reasons[:10] == ["no prediction within 50 ms"] * 10
    assert set(reasons[10:]) == {"circuit open: 10 of its last 20 calls failed"}
    stored = client.get(f"/v1/decisions/{replies[-1]['decision_id']}").json()
    assert (stored["model"], stored["served_model"], stored["fallback"]) == ("slow@1", "sum@1", reasons[-1])
    metrics = read(client)
    assert metrics["turnout_breaker_state{model=slow@1}"] == 2
    assert metrics["turnout_breaker_state{model=sum@1}"] == 0
    assert metrics["turnout_breaker_openings_total{model=slow@1}"] == 1
    assert metrics["turnout_rejected_calls_total{model=slow@1}{reason=breaker}"] == 20
    assert 0 <= metrics["turnout_model_calls{model=slow@1}"] <= 8
    assert metrics["turnout_micro_batch_rows_count"] > 0


def test_a_champion_whose_breaker_is_open_says_when_to_try_again(client: Client) -> None:
    breaker = {"calls": 4, "open_s": 0.2}
    client.post("/v1/endpoints", json={"name": "broken", "champion": "error@1", "breaker": breaker})
    statuses = [predict(client, endpoint="broken").status_code for _ in range(8)]
    refused = predict(client, endpoint="broken")
    assert statuses.count(500) == 2
    assert statuses[-1] == refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["detail"].endswith("circuit open: 2 of its last 4 calls failed")
    time.sleep(0.25)
    assert predict(client, endpoint="broken").status_code == 500
    assert predict(client, endpoint="broken").status_code == 503


def test_one_call_more_than_a_champion_may_have_is_refused_with_a_time_to_try_again(
    settings: Settings, registry: Registry
) -> None:
    assert registry.names()

    async def go(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            document = {"name": "delay", "champion": "slow@1", "timeout_ms": 5000, "max_concurrency": 3}
            await http.post("/v1/endpoints", json=document)
            body = {"unit": "u", "inputs": INPUTS}
            replies = await asyncio.gather(*(http.post("/v1/endpoints/delay/predict", json=body) for _ in range(9)))
        refused = [reply for reply in replies if reply.status_code == 503]
        assert Counter(reply.status_code for reply in replies) == {200: 3, 503: 6}
        assert {reply.headers["Retry-After"] for reply in refused} == {"1"}
        assert "3 calls of it are under way, which is its limit" in refused[0].json()["detail"]

    with serving(settings) as url:
        asyncio.run(go(url))


def test_changing_the_champion_under_load_loses_no_request_and_mixes_no_answer(
    settings: Settings, registry: Registry
) -> None:
    references = ["sum@1", add_model(registry, "backward"), add_model(registry, "bulk")]
    models = {each: load_small(registry, ModelReference.parse(each)) for each in references}
    row = msgspec.convert(INPUTS, input_struct(models["sum@1"].signature))
    expected = {
        name: model.predict(BatchEncoder(model.signature).encode([row])).item() for name, model in models.items()
    }
    answered: Counter[str] = Counter()
    stopping = False

    async def client(http: httpx.AsyncClient, name: int) -> None:
        while not stopping:
            reply = await http.post("/v1/endpoints/delay/predict", json={"unit": f"u{name}", "inputs": INPUTS})
            assert reply.status_code == 200, reply.text
            content = reply.json()
            assert content["prediction"] == expected[content["model"]]
            assert "fallback" not in content
            answered[content["model"]] += 1

    async def go(url: str) -> None:
        nonlocal stopping
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            document = {"name": "delay", "champion": "sum@1", "timeout_ms": 20_000}
            await http.post("/v1/endpoints", json=document)
            clients = [asyncio.create_task(client(http, name)) for name in range(16)]
            for number in range(1, 13):
                await asyncio.sleep(0.05)
                document["champion"] = references[number % 3]
                changed = await http.put("/v1/endpoints/delay", json=document, headers={"If-Match": f'"{number}"'})
                assert changed.status_code == 200, changed.text
                # Whoever asks after the change is answered by it.
                body = {"unit": "u", "inputs": INPUTS}
                after = await http.post("/v1/endpoints/delay/predict", json=body)
                assert after.json()["model"] == document["champion"]
            stopping = True
            await asyncio.gather(*clients)
            readings = (await http.get("/metrics")).text
            assert 'turnout_model_calls{model="sum@1"}' in readings
            assert 'turnout_model_calls{model="bulk@1"}' not in readings

    with serving(settings) as url:
        asyncio.run(go(url))
    assert min(answered[name] for name in references) > 0
    assert not any(each.name.startswith("model-bulk") for each in threading.enumerate())


@pytest.mark.parametrize("inline", [True, False])
def test_values_that_a_model_cannot_hold_are_no_failures_of_it(tmp_path: Path, *, inline: bool) -> None:
    model = served(tmp_path, "whole", inline=inline)
    row = input_struct(model.model.signature)  # type: ignore[union-attr]
    half = [msgspec.convert({"distance": 0.5, "carrier": "B6", "wind": None}, row)]

    async def go() -> None:
        runner = ModelRunner()
        for _ in range(20):
            assert isinstance(await error_of(runner.run(model, half, LIMITS)), InvalidValue)
        assert len(await runner.run(model, rows(model), LIMITS)) == 1
        assert reading(runner, model).breaker == "closed"
        runner.close()

    asyncio.run(go())


def test_a_client_is_told_which_feature_its_model_cannot_hold(client: Client, registry: Registry) -> None:
    add_model(registry, "whole")
    client.post("/v1/endpoints", json={"name": "whole", "champion": "whole@1"})
    for _ in range(30):
        refused = client.post("/v1/endpoints/whole/predict", json={"unit": "u", "inputs": {**INPUTS, "distance": 1.5}})
        assert (refused.status_code, refused.json()["field"]) == (400, "distance")
    assert predict(client, endpoint="whole").status_code == 200
