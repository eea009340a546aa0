import asyncio
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import router.shadowing.quarantine
from models.registry import Registry
from router.errors import LedgerUnavailable
from router.http.app import application
from router.ledger.records import DecisionRow, ShadowRow
from router.service import Service
from router.serving.assign import Assignment
from router.serving.routes import Routes
from router.serving.shadows import Shadows, shadows_of
from router.settings import Settings
from router.shadowing.confinement import NICENESS
from router.shadowing.counting import ShadowCounts
from router.shadowing.launch import Launch
from router.shadowing.pool import Found
from router.shadowing.recording import LONGEST_BATCH, ShadowRecorder
from tests.router.documents import INPUTS, experiment
from tests.router.routes import endpoint, served
from tests.router.routes import experiment as experiment_route
from tests.router.small_models import add_model
from tests.shadow_models import SHADOWS, load_shadow

Client = TestClient[Litestar]
Request = Callable[..., dict[str, Any]]

LOADER = "tests.shadow_models:load_shadow"


def until(condition: Callable[[], bool], seconds: float = 240) -> None:
    ends_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_s, "it did not happen in time"
        time.sleep(0.02)


def call(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    response = client.request(method, path, json=body, headers={"If-Match": "*", **headers})
    assert response.is_success, response.text
    return response.json()


def predict(client: Client, unit: str = "u", endpoint: str = "delay", **more: Any) -> dict[str, Any]:
    headers = more.pop("headers", {})
    reply: dict[str, Any] = call(
        client, "POST", f"/v1/endpoints/{endpoint}/predict", {"unit": unit, "inputs": INPUTS, **more}, **headers
    )
    return reply


def counted(client: Client) -> dict[tuple[str, str, str], int]:
    """Return the shadow calls by model, result and reason."""
    return {
        (sample.labels["model"], sample.labels["result"], sample.labels["reason"]): int(sample.value)
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "turnout_shadow_calls_total"
    }


def value(client: Client, name: str) -> float:
    """Return the sum of a metric's samples."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == name
    )


def settled(client: Client) -> None:
    """Wait until something has become of every offer."""
    until(lambda: value(client, "turnout_shadow_waiting") == 0)
    assert value(client, "turnout_shadow_offers_total") == value(client, "turnout_shadow_calls_total")


def seen(client: Client, reply: dict[str, Any]) -> dict[str, Any]:
    """Return what shadows predicted for a decision, by model."""
    stored = call(client, "GET", f"/v1/decisions/{reply['decision_id']}")["shadows"]
    assert len({each["model"] for each in stored}) == len(stored)
    return {each["model"]: each for each in stored}


@pytest.fixture
def registry(settings: Settings) -> Registry:
    registry = Registry(settings.registry)
    for name in ("sum", "sum-too", "sum-three", "sum-four", "backward", "nan", *SHADOWS):
        add_model(registry, name)
    return registry


@pytest.fixture
def service(settings: Settings, registry: Registry) -> Service:
    assert registry.names()
    return Service(settings, load_model=load_shadow)


@pytest.fixture
def client(service: Service, settings: Settings) -> Iterator[Client]:
    with TestClient(application(service, max_body_bytes=settings.max_body_bytes)) as client:
        yield client


@pytest.fixture
def left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no quarantine end during a test, however slow the machine is."""
    monkeypatch.setattr(router.shadowing.quarantine, "FIRST_S", router.shadowing.quarantine.LONGEST_S)


def create_endpoint(client: Client, *shadows: str, **changes: Any) -> None:
    document = {"name": "delay", "champion": "sum@1", "shadows": shadows, **changes}
    call(client, "POST", "/v1/endpoints", document)


def start_experiment(client: Client, **changes: Any) -> None:
    document = experiment(**changes)
    call(client, "POST", "/v1/experiments", document)
    call(client, "POST", f"/v1/experiments/{document['name']}/start")


def test_the_endpoints_and_the_experiments_shadows_see_a_decision_once_and_never_what_they_served() -> None:
    shadowed = experiment_route(shadows=(served("b@1"), served("c@1")))
    route = endpoint(shadowed)._replace(shadows=(served("a@1"), served("b@1")))
    taken = Assignment(shadowed, 1, 0, 1)
    held_out = Assignment(shadowed, 1, 2, 1)
    assert shadows_of(route, None, "m@1") == ["a@1", "b@1"]
    assert shadows_of(route, taken, "m@1") == ["a@1", "b@1", "c@1"]
    assert shadows_of(route, held_out, "b@1") == ["a@1", "c@1"]
    assert shadows_of(route, taken, "m@1+c@1+a@1") == ["b@1"]
    assert shadows_of(endpoint(experiment_route()), None, "m@1") == []


def test_a_shadow_predicts_what_the_model_does_and_nobody_is_served_it(client: Client) -> None:
    create_endpoint(client, "backward@1", "sum-too@1")
    replies = [predict(client, f"u{number}") for number in range(20)]
    settled(client)
    for reply in replies:
        assert reply["model"] == "sum@1"
        shadows = seen(client, reply)
        assert shadows.keys() == {"backward@1", "sum-too@1"}
        assert shadows["sum-too@1"]["predictions"] == [reply["prediction"]]
        assert shadows["backward@1"]["predictions"] == [pytest.approx(1 - reply["prediction"], abs=1e-15)]
        assert all(each["error"] is None and each["latency_ms"] > 0 for each in shadows.values())
    assert counted(client) == {("backward@1", "answered", ""): 20, ("sum-too@1", "answered", ""): 20}
    assert value(client, "turnout_shadow_latency_seconds_count") == 40
    assert value(client, "turnout_shadow_worker_restarts_total") == 0


def test_retries_are_not_shown_again_and_forced_arms_are(client: Client) -> None:
    create_endpoint(client, "sum-too@1")
    start_experiment(client, shadows=["sum-three@1"])
    first = predict(client, id="order-1", headers={"X-Turnout-Arm": "control"})
    assert predict(client, id="order-1", headers={"X-Turnout-Arm": "control"}) == first
    other = predict(client, headers={"X-Turnout-Arm": "too"})
    settled(client)
    assert seen(client, first).keys() == {"sum-too@1", "sum-three@1"}
    # The endpoint's shadow is what served.
    assert seen(client, other).keys() == {"sum-three@1"}
    assert sum(counted(client).values()) == 3


def test_a_fallback_shows_the_champions_answer_to_the_model_that_failed_too(client: Client) -> None:
    create_endpoint(client, "nan@1", "sum@1")
    start_experiment(client, arms=[{"name": "control", "model": "sum@1"}, {"name": "too", "model": "nan@1"}])
    reply = predict(client, headers={"X-Turnout-Arm": "too"})
    settled(client)
    assert (reply["model"], reply["served_model"]) == ("nan@1", "sum@1")
    shadows = seen(client, reply)
    assert shadows.keys() == {"nan@1"}
    assert shadows["nan@1"]["error"] == "PredictionFailed: it predicted a value that is not finite"


def test_only_requests_that_an_experiment_takes_are_its_shadows_its_holdout_included(client: Client) -> None:
    create_endpoint(client)
    start_experiment(client, shadows=["sum-three@1"], traffic=0.5, holdout=0.4)
    replies = [predict(client, f"u{number}") for number in range(60)]
    settled(client)
    taken = [reply for reply in replies if reply["experiment"] is not None]
    arms = Counter(reply["arm"] for reply in taken)
    assert 10 < len(taken) < 50
    assert len(arms) == 3
    for reply in replies:
        assert seen(client, reply).keys() == ({"sum-three@1"} if reply in taken else set())


def test_lists_are_shown_with_all_their_candidates(client: Client) -> None:
    create_endpoint(client, "backward@1", name="choice", kind="rank")
    candidates = [{"id": f"c{number}", **INPUTS, "distance": 10.0 * number} for number in range(4)]
    reply = call(client, "POST", "/v1/endpoints/choice/rank", {"unit": "u", "candidates": candidates, "length": 2})
    settled(client)
    stored = call(client, "GET", f"/v1/decisions/{reply['decision_id']}")
    (shadow,) = stored["shadows"]
    assert shadow["predictions"] == pytest.approx([1 - each for each in stored["predictions"]], abs=1e-15)


def test_a_shadow_is_not_loaded_by_the_router_itself(client: Client, service: Service) -> None:
    create_endpoint(client, "sum-too@1")
    assert [shadow.model for shadow in service.routes().endpoints["delay"].shadows] == [None]
    assert service.routes().problems == {}


def test_a_worker_runs_only_while_there_are_shadows(client: Client, service: Service) -> None:
    create_endpoint(client)
    assert worker_of(service) is None
    with_shadow = {"name": "delay", "champion": "sum@1", "shadows": ["sum-too@1"]}
    call(client, "PUT", "/v1/endpoints/delay", with_shadow)
    until(lambda: worker_of(service) is not None)
    pid = worker_of(service)
    assert pid is not None
    predict(client)
    call(client, "PUT", "/v1/endpoints/delay", {**with_shadow, "shadows": []})
    until(lambda: not is_alive(pid))
    predict(client)
    settled(client)
    call(client, "PUT", "/v1/endpoints/delay", with_shadow)
    last = predict(client)
    settled(client)
    assert seen(client, last).keys() == {"sum-too@1"}
    assert value(client, "turnout_shadow_worker_restarts_total") == 0


def test_a_worker_that_is_killed_is_replaced(client: Client, service: Service) -> None:
    create_endpoint(client, "sum-too@1")
    predict(client)
    settled(client)
    killed = service._shadows.worker_pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    until(lambda: service._shadows.worker_pid not in (None, killed))
    reply = predict(client)
    settled(client)
    assert seen(client, reply)["sum-too@1"]["predictions"] == [reply["prediction"]]
    assert value(client, "turnout_shadow_worker_restarts_total") == 1


@pytest.mark.parametrize(
    ("model", "reason", "error"),
    [
        ("raising@1", "error", "RuntimeError: out of order? ?!"),
        ("greedy@1", "memory", "MemoryError: Unable to allocate 1.00 GiB"),
    ],
)
def test_a_shadow_that_fails_is_recorded_and_takes_nobody_with_it(
    model: str, reason: str, error: str, client: Client
) -> None:
    create_endpoint(client, model, "sum-too@1")
    replies = [predict(client, f"u{number}") for number in range(10)]
    settled(client)
    for reply in replies:
        shadows = seen(client, reply)
        assert shadows[model]["predictions"] is None
        assert shadows[model]["error"].startswith(error)
        assert shadows["sum-too@1"]["predictions"] == [reply["prediction"]]
    assert counted(client) == {(model, "failed", reason): 10, ("sum-too@1", "answered", ""): 10}
    assert value(client, "turnout_shadow_worker_restarts_total") == 0


@pytest.mark.parametrize(
    ("model", "reason", "error"),
    [
        ("sleeping@1", "timeout", "no answer within 1 s"),
        ("dying@1", "died", "its process ended with signal 9"),
    ],
)
@pytest.mark.usefixtures("left_alone")
def test_a_shadow_that_takes_its_worker_with_it_is_left_alone_and_the_others_go_on(
    model: str, reason: str, error: str, client: Client
) -> None:
    create_endpoint(client, model, "sum-too@1")
    replies = [predict(client, f"u{number}") for number in range(10)]
    settled(client)
    assert counted(client) == {
        (model, "failed", reason): 1,
        (model, "dropped", "quarantine"): 9,
        ("sum-too@1", "answered", ""): 10,
    }
    assert all(seen(client, each)["sum-too@1"]["predictions"] == [each["prediction"]] for each in replies)
    assert seen(client, replies[0])[model]["error"] == error
    assert value(client, "turnout_shadow_worker_restarts_total") == 1


@pytest.mark.usefixtures("left_alone")
def test_a_shadow_that_keeps_memory_is_left_alone_and_the_others_go_on(client: Client) -> None:
    create_endpoint(client, "leaking@1", "sum-too@1")
    replies = [predict(client, f"u{number}") for number in range(20)]
    settled(client)
    found = counted(client)
    # It may keep 512 MiB from when it was loaded, or from when the other one was.
    answered = found["leaking@1", "answered", ""]
    assert 6 <= answered <= 8
    assert found["leaking@1", "failed", "memory"] == 1
    assert found["leaking@1", "dropped", "quarantine"] == 19 - answered
    assert found["sum-too@1", "answered", ""] == 20
    assert all(seen(client, each)["sum-too@1"]["predictions"] == [each["prediction"]] for each in replies)
    assert value(client, "turnout_shadow_worker_restarts_total") == 1


@contextmanager
def crowded(pid: int) -> Iterator[None]:
    """Let a process have a tenth of a processor, and no other process notice much."""
    busy = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(9)]
    try:
        one = {min(os.sched_getaffinity(0))}
        for each in (pid, *(process.pid for process in busy)):
            os.sched_setaffinity(each, one)
            os.setpriority(os.PRIO_PROCESS, each, NICENESS)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_shadow_that_gets_no_processor_is_not_blamed_for_being_late(client: Client, service: Service) -> None:
    create_endpoint(client, "computing@1")
    predict(client)
    settled(client)
    worker = worker_of(service)
    assert worker is not None
    with crowded(worker):
        reply = predict(client)
        settled(client)
    shadow = seen(client, reply)["computing@1"]
    assert shadow["predictions"] == [reply["prediction"]]
    assert shadow["latency_ms"] > 1000
    assert value(client, "turnout_shadow_worker_restarts_total") == 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def worker_of(service: Service) -> int | None:
    return service._shadows.worker_pid


def decision(number: int) -> DecisionRow:
    return DecisionRow(
        number.to_bytes(16), 0, "e", None, None, None, 1.0, "u", "m@1", "m@1", None, None, json.dumps([INPUTS]), "[1]"
    )


class Site:
    """Shadows without a router; `stored` is what reached the ledger."""

    def __init__(self, settings: Settings, *, has_time: bool = True, queue_size: int = 10) -> None:
        self.stored: list[ShadowRow] = []
        self.counts = ShadowCounts(CollectorRegistry())
        self.shadows = Shadows(
            Launch(settings.registry, LOADER, 2**29),
            self._record,
            has_time=lambda: has_time,
            queue_size=queue_size,
            timeout_s=1.0,
            clock=lambda: 5,
            counts=self.counts,
        )

    async def _record(self, rows: Sequence[ShadowRow]) -> None:
        self.stored += rows

    def follow(self, *shadows: str) -> None:
        route = endpoint()._replace(shadows=tuple(map(served, shadows)))
        self.shadows.follow(Routes(1, {"delay": route}, {}, {}, {}))

    async def settle(self) -> None:
        while self.counts.offered.total() > self.counts.results.total():
            await asyncio.sleep(0.01)


def test_what_does_not_fit_the_queue_is_dropped_and_counted(settings: Settings, registry: Registry) -> None:
    assert registry.names()

    async def go() -> Site:
        site = Site(settings, queue_size=10)
        site.follow("sum@1", "backward@1")
        for number in range(25):
            site.shadows.offer(decision(number), ["sum@1"])
        site.shadows.offer(decision(30), ["backward@1", "unknown@1"])
        await site.settle()
        await site.shadows.stop()
        return site

    site = asyncio.run(go())
    assert site.counts.results == {
        ("sum@1", "answered", ""): 10,
        ("sum@1", "dropped", "queue"): 15,
        ("backward@1", "answered", ""): 1,
        ("unknown@1", "dropped", "removed"): 1,
    }
    assert [row.decision_id for row in site.stored if row.model == "sum@1"] == [n.to_bytes(16) for n in range(10)]
    assert {row.recorded_ms for row in site.stored} == {5}


def test_what_waits_when_a_router_stops_is_dropped_and_counted(settings: Settings, registry: Registry) -> None:
    assert registry.names()

    async def go() -> Site:
        site = Site(settings)
        site.follow("sum@1", "sleeping@1")
        for number in range(5):
            site.shadows.offer(decision(number), ["sum@1"])
        await site.settle()
        pid = site.shadows.worker_pid
        assert pid is not None
        site.shadows.offer(decision(6), ["sleeping@1", "sum@1"])
        await asyncio.sleep(0.1)
        began_s = time.monotonic()
        await site.shadows.stop()
        assert time.monotonic() - began_s < 1.0
        assert not is_alive(pid)
        site.shadows.offer(decision(7), ["sum@1"])
        return site

    counts = asyncio.run(go()).counts
    assert counts.results["sum@1", "answered", ""] == 5
    assert counts.results["sleeping@1", "dropped", "stopping"] == 1
    assert counts.results["sum@1", "dropped", "stopping"] == 1
    assert counts.offered.total() == counts.results.total() == 8


def test_a_worker_that_cannot_start_costs_its_shadows_only(settings: Settings, registry: Registry) -> None:
    assert registry.names()

    async def go() -> Site:
        site = Site(settings, queue_size=3)
        site.shadows._pool._launch = Launch(settings.registry, "tests.shadow_models:no_such_function", 2**29)
        site.follow("sum@1")
        for number in range(5):
            site.shadows.offer(decision(number), ["sum@1"])
        while not site.counts.restarts:
            await asyncio.sleep(0.01)
        await site.shadows.stop()
        return site

    assert asyncio.run(go()).counts.results == {
        ("sum@1", "dropped", "queue"): 2,
        ("sum@1", "dropped", "stopping"): 3,
    }


def found(number: int, problem: Any = None) -> Found:
    predictions, error = ("[0.5]", None) if problem is None else (None, "why")
    return Found(number.to_bytes(16), "m@1", predictions, problem, error, 2.0)


@pytest.mark.parametrize(
    ("error", "has_time"), [(LedgerUnavailable("away"), True), (RuntimeError("odd"), True), (None, False)]
)
def test_what_the_ledger_has_no_time_for_is_dropped_and_counted(error: Exception | None, has_time: bool) -> None:
    counts = ShadowCounts(CollectorRegistry())
    asked = 0

    async def record(rows: Sequence[ShadowRow]) -> None:
        nonlocal asked
        asked += len(rows)
        if error is not None:
            raise error

    async def go() -> None:
        recorder = ShadowRecorder(record, has_time=lambda: has_time, clock=lambda: 0, counts=counts)
        recorder.add(found(1))
        recorder.add(found(2, "died"))
        await recorder.stop()

    asyncio.run(go())
    assert counts.results == {("m@1", "dropped", "ledger"): 2}
    assert asked == (2 if has_time else 0)


def test_results_reach_the_ledger_in_batches() -> None:
    counts = ShadowCounts(CollectorRegistry())
    batches: list[int] = []

    async def record(rows: Sequence[ShadowRow]) -> None:
        batches.append(len(rows))

    async def go() -> None:
        recorder = ShadowRecorder(record, has_time=lambda: True, clock=lambda: 0, counts=counts)
        for number in range(LONGEST_BATCH + 5):
            recorder.add(found(number, "error" if number % 2 else None))
        await asyncio.sleep(0.2)
        recorder.add(found(9999))
        await recorder.stop()

    asyncio.run(go())
    assert batches == [LONGEST_BATCH, 5, 1]
    assert counts.results == {("m@1", "answered", ""): 132, ("m@1", "failed", "error"): 130}


def test_an_offer_never_raises(settings: Settings) -> None:
    site = Site(settings)
    site.shadows.offer(None, ["sum@1"])  # type: ignore[arg-type]
    assert site.counts.offered["sum@1"] == 1
    assert site.counts.results == {("sum@1", "dropped", "error"): 1}
