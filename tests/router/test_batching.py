import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models.reference import ModelReference
from models.registry import Registry
from models.signature import Batch, BatchEncoder, input_struct
from router.errors import Overloaded, PredictionFailed
from router.serving.batching import MOST_ROWS, ThreadedModel
from router.serving.loading import _measure
from tests.router.small_models import BulkModel, GateModel, SumModel, add_model, load_small

Rows = Sequence[msgspec.Struct]


def model(folder: Path, name: str) -> SumModel:
    registry = Registry(folder / "registry")
    return load_small(registry, ModelReference.parse(add_model(registry, name)))


@pytest.fixture
def bulk(tmp_path: Path) -> BulkModel:
    made = model(tmp_path, "bulk")
    assert isinstance(made, BulkModel)
    return made


@pytest.fixture
def gate(tmp_path: Path) -> GateModel:
    made = model(tmp_path, "gate")
    assert isinstance(made, GateModel)
    return made


def rows(model: SumModel, *distances: float) -> Rows:
    row = input_struct(model.signature)
    return [msgspec.convert({"distance": each, "carrier": "B6", "wind": None}, row) for each in distances]


def expected(model: SumModel, *distances: float) -> list[float]:
    return list(SumModel.predict(model, BatchEncoder(model.signature).encode(rows(model, *distances))))


def threaded(model: SumModel, *, gathers: bool = True, **fields: Any) -> ThreadedModel:
    return ThreadedModel(model, BatchEncoder(model.signature), gathers=gathers, **fields)


async def settled(*calls: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not happen in time")


def test_what_comes_while_the_model_is_busy_is_one_call_and_each_gets_its_own_answer(bulk: BulkModel) -> None:
    sizes: list[int] = []
    requests = [(1.0,), (20.0, 300.0), (4000.0,), (5.0, 6.0, 7.0)]

    async def go() -> None:
        calls = threaded(bulk, gathered=sizes.append)
        found = await settled(*(calls.call(rows(bulk, *each), 5) for each in requests))
        assert found == [expected(bulk, *each) for each in requests]
        calls.close(5)

    asyncio.run(go())
    assert bulk.sizes == sizes == [1, 6]


def test_a_call_has_a_maximum_of_rows_but_no_request_is_divided(bulk: BulkModel) -> None:
    async def go() -> None:
        calls = threaded(bulk)
        first = [calls.call(rows(bulk, 1.0), 5) for _ in range(MOST_ROWS + 11)]
        large = calls.call(rows(bulk, *range(MOST_ROWS + 30)), 5)
        found = await settled(*first, large)
        assert [len(each) for each in found] == [1] * (MOST_ROWS + 11) + [MOST_ROWS + 30]
        calls.close(5)

    asyncio.run(go())
    assert bulk.sizes == [1, MOST_ROWS, 10, MOST_ROWS + 30]


def test_nobody_waits_for_company(bulk: BulkModel) -> None:
    async def go() -> None:
        calls = threaded(bulk)
        for _ in range(3):
            assert len(await calls.call(rows(bulk, 1.0), 5)) == 1
        calls.close(5)

    asyncio.run(go())
    assert bulk.sizes == [1, 1, 1]


def test_a_bad_row_fails_nobody_else(bulk: BulkModel) -> None:
    async def go() -> None:
        calls = threaded(bulk)
        distances = [1.0, 2.0, -3.0, 4.0, 5.0]
        *found, last = await settled(*(calls.call(rows(bulk, each), 5) for each in (*distances, 6.0)))
        assert [type(each) for each in found] == [list, list, ValueError, list, list]
        assert [found[0], found[3], last] == [expected(bulk, each) for each in (1.0, 4.0, 6.0)]
        calls.close(5)

    asyncio.run(go())
    assert bulk.sizes == [1, 5, 1, 1, 1, 1, 1]


def test_bad_rows_that_keep_coming_make_batches_small_and_batches_grow_again(bulk: BulkModel) -> None:
    async def go() -> None:
        calls = threaded(bulk)
        largest = []
        for distance in [-1.0] * 8 + [1.0] * 8:
            before = len(bulk.sizes)
            requests = [calls.call(rows(bulk, each), 5) for each in [1.0] * 20 + [distance] * 2]
            found = await settled(*requests)
            assert [type(each) for each in found[:20]] == [list] * 20
            largest.append(max(bulk.sizes[before:]))
        assert largest[0] == 21
        assert max(largest[5:8]) < 12
        assert largest[-1] > max(largest[5:8])
        calls.close(5)

    asyncio.run(go())


def test_a_batch_of_too_few_predictions_is_a_failure(bulk: BulkModel, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = SumModel.predict
    monkeypatch.setattr(bulk, "predict", lambda batch: predict(bulk, batch)[:1])

    async def go() -> None:
        calls = threaded(bulk)
        found = await settled(*(calls.call(rows(bulk, 1.0), 5) for _ in range(3)), calls.call(rows(bulk, 1, 2), 5))
        assert found[:3] == [expected(bulk, 1.0)] * 3
        assert isinstance(found[3], PredictionFailed)
        assert str(found[3]) == "it predicted 1 values for 2 rows"
        calls.close(5)

    asyncio.run(go())


def test_everybody_has_a_timeout_of_their_own(gate: GateModel) -> None:
    async def go() -> None:
        gate.gate.clear()
        calls = threaded(gate)
        short = asyncio.create_task(calls.call(rows(gate, 1.0), 0.02))
        long = asyncio.create_task(calls.call(rows(gate, 2.0), 30))
        assert isinstance((await settled(short))[0], TimeoutError)
        assert calls.abandoned == 1
        gate.gate.set()
        assert await long == expected(gate, 2.0)
        await until(lambda: calls.abandoned == 0)
        calls.close(5)

    asyncio.run(go())


def test_a_batch_that_hangs_does_not_stop_those_after_it(gate: GateModel) -> None:
    async def go() -> None:
        calls = threaded(gate, threads=2)
        gate.gate.clear()
        first = (await settled(calls.call(rows(gate, 1.0), 0.02)))[0]
        assert isinstance(first, TimeoutError)
        second = asyncio.create_task(calls.call(rows(gate, 1.0), 30))
        await until(lambda: gate.calls == 2)
        third = asyncio.create_task(calls.call(rows(gate, 1.0), 30))
        await asyncio.sleep(0.02)
        assert gate.calls == 2, "a model that gathers works on one call at a time"
        gate.gate.set()
        assert len(await second) == len(await third) == 1
        calls.close(5)

    asyncio.run(go())


def test_one_that_never_began_because_others_were_busy_is_told_so(gate: GateModel) -> None:
    async def go() -> None:
        calls = threaded(gate, gathers=False, threads=1)
        gate.gate.clear()
        working = asyncio.create_task(calls.call(rows(gate, 1.0), 30))
        [found] = await settled(calls.call(rows(gate, 2.0), 0.02))
        assert isinstance(found, Overloaded)
        assert str(found) == "busy with other calls for 20 ms"
        gate.gate.set()
        assert len(await working) == 1
        assert gate.calls == 1
        calls.close(5)

    asyncio.run(go())


def test_threads_end_when_the_model_is_released(gate: GateModel) -> None:
    def alive() -> int:
        return sum(thread.name.startswith("model-gate@1") for thread in threading.enumerate())

    async def go() -> None:
        calls = threaded(gate, gathers=False, threads=2)
        gate.gate.clear()
        under_way = [asyncio.create_task(calls.call(rows(gate, 1.0), 30)) for _ in range(5)]
        await until(lambda: alive() == 2)
        calls.release()
        gate.gate.set()
        assert [len(each) for each in await asyncio.gather(*under_way)] == [1] * 5
        await until(lambda: alive() == 0)
        assert await calls.call(rows(gate, 1.0), 5) == expected(gate, 1.0)
        await until(lambda: alive() == 0)

    asyncio.run(go())


def test_closing_does_not_wait_for_ever(gate: GateModel) -> None:
    async def go() -> None:
        calls = threaded(gate, gathers=False)
        gate.gate.clear()
        await settled(calls.call(rows(gate, 1.0), 0.01))
        calls.close(0.05)

    asyncio.run(asyncio.wait_for(go(), 10))
    gate.gate.set()


def test_a_model_that_ends_the_interpreter_ends_only_its_call(gate: GateModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(batch: object) -> None:
        raise SystemExit(3)

    async def go() -> None:
        monkeypatch.setattr(gate, "predict", leave)
        calls = threaded(gate, gathers=False)
        with pytest.raises(PredictionFailed, match="SystemExit: 3"):
            await calls.call(rows(gate, 1.0), 5)
        calls.close(5)

    asyncio.run(go())


@pytest.mark.parametrize(
    ("name", "inline", "gathers"),
    # Microseconds decide of a fast model, and so the machine.
    [("sum", True, None), ("bulk", False, True), ("rowwise", False, False), ("awaited", False, False)],
)
def test_how_a_model_is_called_is_measured_when_it_is_loaded(
    tmp_path: Path, name: str, inline: bool, gathers: bool | None
) -> None:
    loaded = model(tmp_path, name)
    pace = _measure(loaded, BatchEncoder(loaded.signature))
    assert pace.inline is inline
    assert gathers in {None, pace.gathers}


def test_a_model_that_takes_one_row_only_is_not_asked_for_more(tmp_path: Path) -> None:
    loaded = model(tmp_path, "sum")
    single = loaded.predict

    def predict(batch: Batch) -> NDArray[np.float64]:
        if len(batch.numbers) > 1:
            raise ValueError("the graph has a batch of one")
        return single(batch)

    loaded.predict = predict  # type: ignore[method-assign]
    assert _measure(loaded, BatchEncoder(loaded.signature)) == (True, False)


def test_measuring_a_slow_model_takes_two_calls_at_most(tmp_path: Path) -> None:
    slow = model(tmp_path, "gate")
    assert isinstance(slow, GateModel)
    slow.gate.clear()
    timer = threading.Timer(0.4, slow.gate.set)
    timer.start()
    assert _measure(slow, BatchEncoder(slow.signature)) == (False, False)
    assert slow.calls == 1
