"""Champions and arms that change under load: nobody waits for the new ones to load, and no reply mixes two of them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.client import Turnout
from tests.system.conftest import until
from tests.system.processes import Router
from tests.system.strange_models import LOADING_S, level, load_strange
from tests.system.strange_router import strange_router

CLIENTS = 8
ROWS = 6

pytestmark = pytest.mark.system

Tally = Callable[[object], None]


class Sent(NamedTuple):
    """A request: when it was sent, how long its answer took, and the answer."""

    at_s: float
    took_s: float
    status: int
    reply: dict[str, Any]

    @property
    def is_of_one_version(self) -> bool:
        """Whether every row was predicted by the model version that the reply names."""
        named = self.reply.get("served_model", self.reply["model"])
        return bool(self.reply["predictions"] == [level(named)] * ROWS)


class Load:
    """Clients that send one request after the other."""

    def __init__(self, url: str) -> None:
        self.sent: list[Sent] = []
        self._url = url
        self._stopping = False

    async def run(self, control: Callable[[], None]) -> None:
        """Send requests until `control`, which runs in a thread, is done."""
        async with httpx.AsyncClient(base_url=self._url, timeout=20, verify=False) as http:  # noqa: S501
            clients = [asyncio.create_task(self._client(http, number)) for number in range(CLIENTS)]
            try:
                await asyncio.to_thread(control)
            finally:
                self._stopping = True
                await asyncio.gather(*clients)

    async def _client(self, http: httpx.AsyncClient, number: int) -> None:
        row = {"distance": 1.0, "carrier": "B6", "wind": None}
        while not self._stopping:
            at_s = time.monotonic()
            body = {"unit": f"u{number}-{len(self.sent)}", "inputs": [row] * ROWS}
            answer = await http.post("/v1/endpoints/delay/predict", json=body)
            self.sent.append(Sent(at_s, time.monotonic() - at_s, answer.status_code, answer.json()))


def experiment(name: str, *models: str) -> dict[str, Any]:
    arms = [f"arm-{number}" for number in range(len(models))]
    return {
        "name": name,
        "endpoint": "delay",
        "arms": [{"name": arm, "model": model} for arm, model in zip(arms, models, strict=True)],
        "allocation": {"kind": "split", "weights": dict.fromkeys(arms, 1 / len(arms))},
        "metrics": [{"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}],
    }


def served_models(load: Load, since: int) -> set[str]:
    return {each.reply["model"] for each in load.sent[since:]}


def change(router: Router, load: Load) -> Iterator[str]:
    """Change what is served, one step after the other, each once the one before is served; yield what was done."""
    with Turnout(router.url) as http:
        for champion in ("steep-2@1", "level-3@1", "steep-4@1"):
            endpoint = http.endpoint("delay")
            http.replace_endpoint(endpoint["document"] | {"champion": champion}, endpoint["revision"])
            until(lambda: load.sent[-1].reply["model"] == champion)  # noqa: B023
            yield f"champion {champion}"
        for number, arms in enumerate((("steep-5@1", "level-6@1"), ("level-7@1", "steep-8@1"))):
            name = f"experiment-{number}"
            http.create_experiment(experiment(name, *arms))
            http.start(name)
            since = len(load.sent)
            until(lambda: set(arms) <= served_models(load, since))  # noqa: B023
            yield f"arms {' and '.join(arms)}"
            http.conclude(name)
            until(lambda: load.sent[-1].reply["experiment"] is None)
        endpoint = http.endpoint("delay")
        http.replace_endpoint(endpoint["document"] | {"champion": "unloadable@1"}, endpoint["revision"])
        # The champion before goes on.
        until(lambda: "unloadable@1" in httpx.get(f"{router.url}/health/ready").text)
        since = len(load.sent)
        until(lambda: len(load.sent) > since + 100)
        assert served_models(load, since) == {"steep-4@1"}
        yield "a champion that cannot be loaded"


def called_models(router: Router) -> set[str]:
    families = text_string_to_metric_families(httpx.get(f"{router.url}/metrics").text)
    return {
        sample.labels["model"]
        for family in families
        for sample in family.samples
        if sample.name == "turnout_model_calls"
    }


def test_models_are_swapped_under_load_without_a_lost_or_a_mixed_reply(tmp_path: Path, tally: Tally) -> None:
    names = ["steep-1", "steep-2", "level-3", "steep-4", "steep-5", "level-6", "level-7", "steep-8", "unloadable"]
    with strange_router(tmp_path, names, load_strange) as router:
        with Turnout(router.url) as http:
            http.create_endpoint({"name": "delay", "champion": "steep-1@1", "timeout_ms": 5000})
        load, done = Load(router.url), list[str]()
        asyncio.run(load.run(lambda: done.extend(change(router, load))))
        until(lambda: called_models(router) == {"steep-4@1"})
        slowest_s = max(each.took_s for each in load.sent)
        served = Counter(each.reply["model"] for each in load.sent)
    tally(
        f"{len(done)} changes under {len(load.sent):,} requests of {CLIENTS} clients, each new model loading for "
        f"{LOADING_S * 1000:.0f} ms: "
        f"{sum(each.status != httpx.codes.OK for each in load.sent)} failed, "
        f"{sum(not each.is_of_one_version for each in load.sent)} mixed, slowest {slowest_s * 1000:.0f} ms"
    )
    assert len(done) == 6
    assert [each for each in load.sent if each.status != httpx.codes.OK] == []
    assert [each for each in load.sent if not each.is_of_one_version] == []
    assert [each for each in load.sent if "fallback" in each.reply] == []
    assert len(served) == 8
