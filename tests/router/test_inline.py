import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models.reference import ModelReference
from models.registry import Registry
from models.runtime import Model
from models.signature import Batch, BatchEncoder, input_struct
from router.errors import PredictionFailed
from router.serving.inline import MOST_ROWS, InlineModel, NotHere, Timed
from tests.router.small_models import add_model, load_small


@pytest.fixture
def model(tmp_path: Path) -> Model:
    registry = Registry(tmp_path / "registry")
    return load_small(registry, ModelReference.parse(add_model(registry, "sum")))


def rows(model: Model, *distances: float) -> Sequence[msgspec.Struct]:
    row = input_struct(model.signature)
    return [msgspec.convert({"distance": each, "carrier": "B6", "wind": None}, row) for each in distances]


def ask(inline: InlineModel, *requests: Sequence[msgspec.Struct]) -> list[Any]:
    """Return what requests of one turn of the loop are answered, exceptions too."""

    async def go() -> list[Any]:
        return list(await asyncio.gather(*(inline.call(each) for each in requests), return_exceptions=True))

    return asyncio.run(go())


def test_requests_of_one_turn_are_one_call_and_each_gets_its_own_rows(model: Model) -> None:
    encoder, sizes = BatchEncoder(model.signature), list[int]()
    requests = [rows(model, 0.1), rows(model, 0.2, 0.3, 0.4), rows(model, 0.5)]
    found = ask(InlineModel(model, encoder, gathers=True, gathered=sizes.append), *requests)
    assert sizes == [5]
    assert [each.values for each in found] == [model.predict(encoder.encode(each)).tolist() for each in requests]
    assert len({each.seconds for each in found}) == 1


def test_a_model_that_gains_nothing_is_called_at_once_for_each(model: Model) -> None:
    sizes = list[int]()
    inline = InlineModel(model, BatchEncoder(model.signature), gathers=False, gathered=sizes.append)
    assert all(isinstance(each, Timed) for each in ask(inline, rows(model, 0.1), rows(model, 0.2)))
    assert sizes == []


def test_a_turn_with_more_rows_than_one_call_takes_becomes_several(model: Model) -> None:
    sizes = list[int]()
    inline = InlineModel(model, BatchEncoder(model.signature), gathers=True, gathered=sizes.append)
    found = ask(inline, *(rows(model, *map(float, range(6))) for _ in range(6)))
    assert [len(each.values) for each in found] == [6] * 6
    assert sizes == [12, 12, 12]
    assert max(sizes) <= MOST_ROWS


def test_requests_that_failed_together_are_sent_elsewhere_and_calls_get_smaller(model: Model) -> None:
    whole = model.predict

    def predict(batch: Batch) -> NDArray[np.float64]:
        if (batch.numbers[:, 0] < 0).any():
            raise ValueError("a distance is negative")
        return whole(batch)

    model.predict = predict  # type: ignore[method-assign]
    inline = InlineModel(model, BatchEncoder(model.signature), gathers=True)
    found = ask(inline, rows(model, 0.1), rows(model, -1.0), rows(model, 0.2))
    assert [type(each) for each in found] == [NotHere] * 3
    assert isinstance(ask(inline, rows(model, -1.0))[0], ValueError)
    found = ask(inline, *(rows(model, 0.1) for _ in range(6)))
    assert [each.counts for each in found] == [True, False, False, False, True, False]


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(), asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("gathers", [True, False])
def test_whatever_a_model_raises_its_callers_are_answered(model: Model, error: BaseException, gathers: bool) -> None:
    def predict(batch: Batch) -> NDArray[np.float64]:
        assert len(batch.numbers)
        raise error

    model.predict = predict  # type: ignore[method-assign]
    inline = InlineModel(model, BatchEncoder(model.signature), gathers=gathers)
    assert [type(each) for each in ask(inline, rows(model, 0.1))] == [PredictionFailed]
    expected = NotHere if gathers else PredictionFailed
    assert [type(each) for each in ask(inline, rows(model, 0.1), rows(model, 0.2))] == [expected] * 2


def test_who_waits_for_a_model_that_was_late_is_sent_elsewhere(model: Model) -> None:
    async def go() -> None:
        inline = InlineModel(model, BatchEncoder(model.signature), gathers=True)
        calls = [asyncio.create_task(inline.call(rows(model, each))) for each in (0.1, 0.2)]
        await asyncio.sleep(0)
        inline.refuse()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in found] == [NotHere] * 2
        assert len((await inline.call(rows(model, 0.3))).values) == 1

    asyncio.run(go())


def test_who_has_gone_keeps_nobody_waiting(model: Model) -> None:
    async def go() -> None:
        inline = InlineModel(model, BatchEncoder(model.signature), gathers=True)
        gone, here = (asyncio.create_task(inline.call(rows(model, each))) for each in (0.1, 0.2))
        await asyncio.sleep(0)
        gone.cancel()
        assert len((await here).values) == 1
        assert gone.cancelled()

    asyncio.run(go())
