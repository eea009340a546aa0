import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import router.shadowing.queue
import router.shadowing.worker
from models.manifest import Manifest, Sample
from models.reference import ModelReference
from models.signature import Batch, Signature
from router.shadowing.launch import find_loader, loader_name
from router.shadowing.messages import LARGEST_FRAME, Answer, Call, Keep, Loaded, Loading, Report, frames, orders
from router.shadowing.patience import Patience, Scheduled
from router.shadowing.quarantine import CLEARED_AFTER, FIRST_S, LONGEST_S, Quarantine
from router.shadowing.queue import FairQueue, Waiting
from router.shadowing.worker import LONGEST_ERROR, RETRY_S, Answerer
from tests.router.documents import INPUTS
from tests.router.small_models import FEATURES, SumModel, load_small
from tests.shadow_models import SHADOWS

MEBIBYTE = 2**20


def waiting(number: int, model: str = "m@1", inputs: str = "[]") -> Waiting:
    return Waiting(number.to_bytes(16), model, inputs)


CALLS = st.lists(st.builds(Call, st.integers(0, 2**40), st.text(max_size=5), st.text(max_size=300)), max_size=8)


@given(CALLS, st.data())
def test_messages_arrive_whole_however_they_are_cut(calls: list[Call], data: st.DataObject) -> None:
    sent, received = frames([*calls, Keep(["m@1"])]), orders()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert [order for piece in pieces for order in received.feed(piece)] == [*calls, Keep(["m@1"])]


@pytest.mark.parametrize("sent", [(LARGEST_FRAME + 1).to_bytes(4), b"\0\0\0\1\xc1", b"\0\0\0\1\x01"])
def test_what_is_no_message_is_refused(sent: bytes) -> None:
    with pytest.raises(ValueError, match=r"message of \d+ bytes|MessagePack|Expected"):
        list(orders().feed(sent))


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(1, 10), st.integers(1, 7))
def test_a_queue_bounds_each_model_and_gives_every_model_its_turn(offers: list[str], size: int, most: int) -> None:
    queue = FairQueue(size)
    taken_in = [waiting(number, model) for number, model in enumerate(offers) if queue.put(waiting(number, model))]
    for model in "abc":
        mine = [call for call in taken_in if call.model == model]
        assert len(mine) == min(size, offers.count(model))
    given_out: list[Waiting] = []
    while len(queue):
        left = {model: sum(call.model == model for call in taken_in if call not in given_out) for model in "abc"}
        group = list(queue.take(most))
        assert len(group) == min(most, sum(left.values()))
        shares = [sum(call.model == model for call in group) for model in "abc" if left[model] > most]
        assert not shares or max(shares) - min(shares) <= 1
        given_out += group
    assert sorted(given_out) == sorted(taken_in)
    for model in "abc":
        assert [call for call in given_out if call.model == model] == [call for call in taken_in if call.model == model]


def test_a_queue_takes_back_what_was_never_begun_in_its_old_order() -> None:
    queue = FairQueue(10)
    for number in range(6):
        queue.put(waiting(number))
    taken = list(queue.take(4))
    queue.put_back(taken[1:])
    assert list(queue.take(10)) == [waiting(number) for number in (1, 2, 3, 4, 5)]


def test_a_queue_bounds_what_all_inputs_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.shadowing.queue, "MOST_BYTES", 100)
    queue = FairQueue(10)
    assert queue.put(waiting(1, "a", "x" * 60))
    assert not queue.put(waiting(2, "b", "x" * 60))
    assert queue.put(waiting(3, "b", "x" * 40))
    assert queue.remove("a") == 1
    assert queue.put(waiting(4, "c", "x" * 60))
    taken = list(queue.take(2))
    assert queue.put(waiting(5, "a", "x" * 100))
    queue.put_back(taken)
    assert not queue.put(waiting(6, "a", "x"))
    assert len(list(queue.take(10))) == 3
    assert queue.put(waiting(7, "a", "x" * 100))


def test_quarantine_doubles_to_a_limit_and_is_forgotten_after_enough_predictions() -> None:
    now_s = 0.0
    quarantine = Quarantine(lambda: now_s)
    for number in range(12):
        seconds = quarantine.punish("m@1")
        assert seconds == min(LONGEST_S, FIRST_S * 2**number)
        assert quarantine.holds("m@1")
        assert not quarantine.holds("other@1")
        now_s += seconds
        assert not quarantine.holds("m@1")
    for _ in range(CLEARED_AFTER - 1):
        quarantine.answered("m@1")
    assert quarantine.punish("m@1") == LONGEST_S
    for _ in range(CLEARED_AFTER):
        quarantine.answered("m@1")
    assert quarantine.punish("m@1") == FIRST_S


class Watch:
    """Patience with a worker whose clock and processors are made up."""

    def __init__(self, limit_s: float) -> None:
        self.now_s = 0.0
        self.scheduled = Scheduled()
        self.patience = Patience(lambda: self.scheduled, lambda: self.now_s)
        self.patience.limit_s = limit_s
        self.patience.heard()

    def late_after(
        self,
        seconds: float,
        *,
        computing: float = 0.0,
        waiting: float = 0.0,
        is_ready: bool = False,
        look_s: float = 0.05,
    ) -> float | None:
        """Return when patience is over, within so many seconds of which these shares are spent so."""
        for look in range(1, round(seconds / look_s) + 1):
            self.now_s += look_s
            before = self.scheduled
            self.scheduled = Scheduled(
                before.computed_s + computing * look_s, before.waited_s + waiting * look_s, is_ready
            )
            if self.patience.is_over():
                return look * look_s
        return None


def test_a_silent_worker_is_late_after_its_limit_and_a_heard_one_is_not() -> None:
    watch = Watch(1.0)
    assert watch.late_after(0.9) is None
    watch.patience.heard()
    assert watch.patience.silent_s == 0
    assert watch.late_after(5) == pytest.approx(1.0, abs=0.051)
    assert watch.patience.silent_s == pytest.approx(1.0, abs=0.051)


def test_waiting_for_a_processor_is_not_counted_but_computing_and_sleeping_are() -> None:
    assert Watch(1.0).late_after(60, waiting=1.0) is None
    assert Watch(1.0).late_after(60, is_ready=True) is None
    assert Watch(1.0).late_after(60, waiting=0.9) == pytest.approx(10, rel=0.06)
    assert Watch(1.0).late_after(60, computing=0.1, is_ready=True) == pytest.approx(10, rel=0.06)
    assert Watch(1.0).late_after(60, computing=1.0, is_ready=True) == pytest.approx(1, abs=0.051)


def test_what_a_worker_waited_before_excuses_no_later_silence() -> None:
    watch = Watch(1.0)
    watch.scheduled = Scheduled(waited_s=1000.0)
    watch.patience.heard()
    assert watch.late_after(5) == pytest.approx(1.1, abs=0.051)


def test_a_router_that_was_away_reads_what_arrived_before_it_judges() -> None:
    assert Watch(1.0).late_after(7, look_s=7.0) is None
    assert Watch(1.0).late_after(50, look_s=7.0) == 21.0


def test_a_loader_is_found_by_its_name() -> None:
    assert find_loader(loader_name(load_small)) is load_small


class Worker:
    """The inside of a worker in this process, whose size and clock are made up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, load: Callable[[ModelReference], SumModel]) -> None:
        self.bytes = 100 * MEBIBYTE
        self.now_s = 0.0
        self.loads: list[str] = []
        self.reports: list[Report] = []
        self._load = load
        monkeypatch.setattr(router.shadowing.worker, "address_space", lambda: self.bytes)
        self.limits: list[int] = []
        """In bytes, as they were set."""
        monkeypatch.setattr(router.shadowing.worker, "allow_memory", lambda more: self.limits.append(self.bytes + more))
        self._answerer = Answerer(
            self._loaded, self.reports.append, memory_bytes=100 * MEBIBYTE, clock=lambda: self.now_s
        )

    def _loaded(self, reference: ModelReference) -> SumModel:
        self.loads.append(str(reference))
        return self._load(reference)

    def answer(self, model: str, inputs: Any = (INPUTS,)) -> Answer:
        self._answerer.obey(Call(7, model, json.dumps(inputs)))
        answer = self.reports[-1]
        assert isinstance(answer, Answer)
        assert answer.number == 7
        return answer

    def keep(self, *models: str) -> None:
        self._answerer.obey(Keep(list(models)))


def small(reference: ModelReference, signature: Signature | None = None) -> SumModel:
    kinds: dict[str, type[SumModel]] = {"sum": SumModel, **SHADOWS}
    manifest = Manifest(
        name=reference.name,
        version=1,
        created_at=datetime.now(UTC),
        signature=signature or Signature(FEATURES, "probability"),
        runtime="sklearn",
        float_width=None,
        files={},
        libraries={},
        sample=Sample(({},), (0.5,)),
    )
    return kinds[reference.name](reference, manifest)


def test_a_worker_predicts_what_the_model_does_and_loads_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch, small)
    rows = [INPUTS, {"distance": -20.5, "carrier": "", "wind": None}]
    batch = Batch(np.array([[100.0, 3.5], [-20.5, np.nan]]), np.array([["B6"], [""]], dtype=object))
    expected = small(ModelReference("sum", 1)).predict(batch).tolist()
    for _ in range(2):
        answer = worker.answer("sum@1", rows)
        assert json.loads(answer.predictions or "") == expected
        assert (answer.problem, answer.error, answer.hoarder) == (None, None, None)
        assert answer.latency_ms > 0
    assert worker.loads == ["sum@1"]
    assert [type(report) for report in worker.reports] == [Loading, Loaded, Answer, Answer]


def test_a_worker_takes_the_candidates_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch, small)
    assert worker.answer("sum@1", [{"id": "a", **INPUTS}]).predictions == worker.answer("sum@1").predictions


def test_a_worker_forgets_what_is_no_shadow_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(monkeypatch, small)
    worker.answer("sum@1")
    worker.keep("sum@1", "other@1")
    worker.answer("sum@1")
    worker.keep("other@1")
    worker.answer("sum@1")
    assert worker.loads == ["sum@1", "sum@1"]


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("exiting@1", "SystemExit: 3"),
        ("short@1", "PredictionFailed: it predicted 0 values for 1 rows"),
        ("nonsense@1", "PredictionFailed: it predicted a value that is not finite"),
    ],
)
def test_a_worker_survives_what_a_model_does(model: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class NonsenseModel(SumModel):
        def predict(self, batch: Batch) -> Any:
            return super().predict(batch) * np.nan

    monkeypatch.setitem(SHADOWS, "nonsense", NonsenseModel)
    answer = Worker(monkeypatch, small).answer(model)
    assert (answer.predictions, answer.problem, answer.error) == (None, "error", error)


def test_an_error_is_cut_to_what_every_database_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    error = Worker(monkeypatch, small).answer("raising@1").error
    assert error is not None
    assert error.startswith("RuntimeError: out of order? ?!!!")
    assert len(error) == LONGEST_ERROR


def test_an_error_that_cannot_be_told_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def load(_: ModelReference) -> SumModel:
        raise Unspeakable

    assert Worker(monkeypatch, load).answer("sum@1").error == "sum@1 cannot be loaded: Unspeakable"


def test_a_model_that_cannot_be_loaded_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    is_broken = True

    def load(reference: ModelReference) -> SumModel:
        if is_broken:
            raise OSError("no such file")
        return small(reference)

    worker = Worker(monkeypatch, load)
    answers = [worker.answer("sum@1") for _ in range(3)]
    assert {(each.problem, each.error) for each in answers} == {
        ("load", "sum@1 cannot be loaded: OSError: no such file")
    }
    assert worker.loads == ["sum@1"]
    is_broken, worker.now_s = False, RETRY_S + 1
    assert worker.answer("sum@1").problem is None


def test_the_model_that_kept_memory_is_blamed_not_the_one_that_found_none_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(reference: ModelReference) -> SumModel:
        if reference.name == "small":
            raise MemoryError
        model = small(ModelReference("sum", 1))
        grown = {"hoarder": 30 * MEBIBYTE, "innocent": MEBIBYTE}[reference.name]

        def predict(batch: Batch) -> Any:
            if worker.bytes + grown > 200 * MEBIBYTE:
                raise MemoryError("none left")
            worker.bytes += grown
            return SumModel.predict(model, batch)

        model.predict = predict  # type: ignore[method-assign]
        return model

    worker = Worker(monkeypatch, load)
    assert worker.answer("small@1").problem == "memory"
    worker.answer("innocent@1")
    answers = [worker.answer("hoarder@1") for _ in range(4)]
    assert [answer.problem for answer in answers] == [None, None, None, "memory"]
    assert answers[-1].hoarder == "hoarder@1"
    worker.bytes += 10 * MEBIBYTE
    found = worker.answer("innocent@1")
    assert (found.problem, found.hoarder) == ("memory", "hoarder@1")


def test_no_load_renews_the_allowance_of_what_calls_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(reference: ModelReference) -> SumModel:
        if reference.name == "broken":
            raise OSError("no such file")
        model = small(ModelReference("sum", 1))
        worker.bytes += 20 * MEBIBYTE

        def predict(batch: Batch) -> Any:
            worker.bytes += 30 * MEBIBYTE
            return SumModel.predict(model, batch)

        model.predict = predict  # type: ignore[method-assign]
        return model

    worker = Worker(monkeypatch, load)
    for _ in range(5):
        worker.answer("leaking@1")
        worker.answer("broken@1")
        worker.now_s += RETRY_S + 1
    assert worker.loads == ["leaking@1", *["broken@1"] * 5]
    assert worker.limits[-1] == (100 + 20 + 100) * MEBIBYTE
    worker.answer("other@1")
    assert worker.limits[-1] == (100 + 20 + 20 + 100) * MEBIBYTE


def test_a_shadow_that_wants_too_much_at_once_needs_no_new_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(reference: ModelReference) -> SumModel:
        model = small(reference)

        def predict(batch: Batch) -> Any:
            raise MemoryError("a gigabyte")

        model.predict = predict  # type: ignore[method-assign]
        return model

    answer = Worker(monkeypatch, load).answer("sum@1")
    assert (answer.problem, answer.error, answer.hoarder) == ("memory", "MemoryError: a gigabyte", None)
