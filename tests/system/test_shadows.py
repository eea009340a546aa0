"""Shadows of every kind behind a real router: callers notice nothing, and no process is left behind."""

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from models.reference import ModelReference
from models.registry import Registry
from models.runtime import load
from models.signature import BatchEncoder, input_struct
from router.client import Turnout
from tests.shadow_models import load_shadow
from tests.system.conftest import until
from tests.system.processes import Router, router
from tests.system.strange_router import strange_router

pytestmark = pytest.mark.system

Tally = Callable[[object], None]

BAD = ("sleeping", "raising", "greedy", "dying")
CLIENTS = 4
SECONDS = 8.0
INPUTS = {"distance": 100.0, "carrier": "B6", "wind": None}


@pytest.fixture
def shadowed(tmp_path: Path) -> Iterator[Router]:
    """A router with an endpoint for each bad shadow, and one for a good one."""
    with strange_router(tmp_path, ["sum", "sum-too", *BAD], load_shadow) as running:
        with Turnout(running.url) as client:
            for name in ("sum-too", *BAD):
                client.create_endpoint({"name": name, "champion": "sum@1", "shadows": [f"{name}@1"]})
        yield running


def samples(running: Router) -> list[Sample]:
    text = httpx.get(f"{running.url}/metrics", verify=False).text  # noqa: S501
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def metric(running: Router, name: str) -> float:
    return sum(sample.value for sample in samples(running) if sample.name == name)


def results(running: Router) -> dict[str, Counter[str]]:
    """Wait until something has become of every offer, and return how many of each model there were of each kind."""
    until(lambda: metric(running, "turnout_shadow_waiting") == 0, seconds=240)
    found: dict[str, Counter[str]] = {}
    for sample in samples(running):
        if sample.name in ("turnout_shadow_offers_total", "turnout_shadow_calls_total"):
            kind = sample.labels.get("result", "offered")
            found.setdefault(sample.labels["model"], Counter())[kind] += int(sample.value)
    return found


def workers(parent: int | None = None) -> list[int]:
    """Return the shadow workers on this machine, or those of a parent."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            is_worker = b"router.shadowing.worker" in (folder / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if is_worker and parent in (None, int(stat[1])):
            found.append(int(folder.name))
    return found


def worker_of(running: Router) -> int:
    """Return the worker of a router, once it has one."""
    until(lambda: len(workers(running.process.pid)) == 1)
    return workers(running.process.pid)[0]


def send(url: str, endpoints: Sequence[str], seconds: float) -> list[tuple[str, int, dict[str, Any], float]]:
    """Predict at each endpoint in turn; return endpoint, status, reply and seconds of every request."""
    sent: list[tuple[str, int, dict[str, Any], float]] = []
    ends_s = time.monotonic() + seconds
    with httpx.Client(base_url=url, verify=False, timeout=30) as http:  # noqa: S501
        while time.monotonic() < ends_s:
            for endpoint in endpoints:
                began_s = time.monotonic()
                body = {"unit": f"u{len(sent)}", "inputs": INPUTS}
                response = http.post(f"/v1/endpoints/{endpoint}/predict", json=body)
                sent.append((endpoint, response.status_code, response.json(), time.monotonic() - began_s))
                time.sleep(0.005)
    return sent


def stored(running: Router) -> Counter[tuple[str, bool]]:
    """Return how many shadow predictions are in the ledger, by model and whether there is one."""
    path = running.environment["TURNOUT_DATABASE"].removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "select s.model, s.error is null, count(*) from shadow_predictions s "
            "join decisions d on d.id = s.decision_id group by 1, 2"
        ).fetchall()
    connection.close()
    return Counter({(model, bool(is_good)): number for model, is_good, number in rows})


def test_callers_notice_nothing_of_shadows_that_sleep_raise_hoard_and_die(shadowed: Router, tally: Tally) -> None:
    endpoints = ("sum-too", *BAD)
    with ThreadPoolExecutor(CLIENTS) as pool:
        sent = [
            each
            for future in [pool.submit(send, shadowed.url, endpoints, SECONDS) for _ in range(CLIENTS)]
            for each in future.result()
        ]
    assert {status for _, status, _, _ in sent} == {200}
    assert {reply["prediction"] for _, _, reply, _ in sent} == {sent[0][2]["prediction"]}
    assert len({reply["decision_id"] for _, _, reply, _ in sent}) == len(sent)
    found, in_ledger = results(shadowed), stored(shadowed)
    for name in endpoints:
        mine = found[f"{name}@1"]
        offered = sum(endpoint == name for endpoint, _, _, _ in sent)
        assert mine["offered"] == offered == mine["answered"] + mine["failed"] + mine["dropped"]
        assert in_ledger[f"{name}@1", True] == mine["answered"]
        assert in_ledger[f"{name}@1", False] == mine["failed"]
        assert (mine["answered"] > 0) == (name == "sum-too")
        assert (mine["failed"] > 0) == (name != "sum-too")
        tally(f"shadow {name}: {dict(mine)}")
    assert metric(shadowed, "turnout_shadow_worker_restarts_total") >= 2
    slowest_s = max(took_s for _, _, _, took_s in sent)
    tally(f"{len(sent)} requests beside five shadows: all answered, the slowest in {slowest_s * 1000:.0f} ms")
    assert slowest_s < 2.0
    # One that always fails has each failure on record, one that ends its worker one in a while.
    assert found["raising@1"]["failed"] > found["dying@1"]["failed"]


def test_a_worker_that_is_killed_is_replaced_and_callers_notice_nothing(shadowed: Router) -> None:
    assert {status for _, status, _, _ in send(shadowed.url, ["sum-too"], 0.3)} == {200}
    results(shadowed)
    killed = worker_of(shadowed)
    os.kill(killed, signal.SIGKILL)
    assert {status for _, status, _, _ in send(shadowed.url, ["sum-too"], 0.5)} == {200}
    assert worker_of(shadowed) != killed
    (found,) = results(shadowed).values()
    assert found["answered"] > 0
    assert found["failed"] <= 1
    assert metric(shadowed, "turnout_shadow_worker_restarts_total") == 1


@pytest.mark.parametrize("endpoint", ["sum-too", "sleeping"])
def test_a_router_that_is_killed_leaves_no_worker_behind(shadowed: Router, endpoint: str) -> None:
    send(shadowed.url, ["sum-too"], 0.05)
    results(shadowed)
    worker = worker_of(shadowed)
    # Where the shadow takes long, its worker is in the middle of a call by then.
    send(shadowed.url, [endpoint], 0.05)
    time.sleep(0.3)
    shadowed.kill()
    until(lambda: worker not in workers(), seconds=5)


def test_a_router_that_is_told_to_stop_takes_its_worker_along(shadowed: Router) -> None:
    send(shadowed.url, ["sum-too", "sleeping"], 0.3)
    worker = worker_of(shadowed)
    assert shadowed.stop() in (0, -signal.SIGTERM)
    assert worker not in workers()
    assert stored(shadowed)["sum-too@1", False] == 0


def test_real_models_predict_as_shadows_what_they_predict(tmp_path: Path, registry: Path, tally: Tally) -> None:
    names = ("forest", "boosting", "bayes")
    inputs = [{"distance": 100.0 * hour, "hour": float(hour), "carrier": "B6"} for hour in range(24)]
    with router(tmp_path, registry) as running, Turnout(running.url) as client:
        client.create_endpoint({"name": "delay", "champion": "logistic@1", "shadows": [f"{name}@1" for name in names]})
        replies = [client.predict("delay", unit="u", inputs=[row]) for row in inputs]
        assert {model: found["answered"] for model, found in results(running).items()} == dict.fromkeys(
            (f"{name}@1" for name in names), len(inputs)
        )
        decisions = [client.decision(reply["decision_id"]) for reply in replies]
    for name in names:
        model = load(Registry(registry), ModelReference(name, 1))
        encoder, row_type = BatchEncoder(model.signature), input_struct(model.signature)
        for row, decision in zip(inputs, decisions, strict=True):
            expected = model.predict(encoder.encode([msgspec.convert(row, row_type)])).tolist()
            (mine,) = [each for each in decision["shadows"] if each["model"] == f"{name}@1"]
            assert mine["predictions"] == expected
        taken = sorted(each["latency_ms"] for decision in decisions for each in decision["shadows"])
    tally(f"real models as shadows: {len(taken)} predictions, median {taken[len(taken) // 2]:.2f} ms")
