"""Candidates of which it is known how good they are, and traffic that tells.

What happens to a row has the probability `distance` / 1000. A model's name begins with its kind, as in `skewed-30`.
"""

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from models.reference import ModelReference
from models.registry import Registry
from models.signature import Batch
from router.client import ApiError, Turnout
from tests.router.small_models import ErrorModel, SumModel

SLOW_S = 0.03
"""How long `sleepy` takes."""


class Skewed(SumModel):
    """Predicts the truth, off by as many hundredths as its name says."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row."""
        off = int(self.reference.name.partition("-")[2] or "0") / 100
        truth = batch.numbers[:, 0] / 1000
        skewed: NDArray[np.float64] = np.clip(np.where(truth < 0.5, truth + off, truth - off), 0.0, 1.0)
        return skewed


class Sleepy(Skewed):
    """Predicts the truth, late."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """One probability per row."""
        time.sleep(SLOW_S)
        return super().predict(batch)


KINDS: Mapping[str, type[SumModel]] = {"skewed": Skewed, "sleepy": Sleepy, "crashing": ErrorModel}


def load_candidate(registry: Registry, reference: ModelReference) -> SumModel:
    """Load one of the classes above."""
    return KINDS[reference.name.partition("-")[0]](reference, registry.verify(reference))


class Traveller:
    """Sends predictions to endpoints in turn, and posts what became of them; `careless` endpoints ask twice.

    What is lost while a router is away is sent again to the next one.
    """

    def __init__(self, urls: Sequence[str], endpoints: Sequence[str], careless: Sequence[str] = ()) -> None:
        self._urls = urls
        self._endpoints = endpoints
        self._careless = careless
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(4)]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, seed: int) -> None:
        rng = random.Random(seed)
        clients = [Turnout(url, timeout_s=20) for url in self._urls]
        outcomes: list[dict[str, Any]] = []
        number = 0
        while not self._stop.is_set():
            number += 1
            client = clients[number % len(clients)]
            try:
                outcomes += self._ask(client, rng, f"{seed}-{number}")
                if len(outcomes) >= 50:
                    client.outcomes(outcomes)
                    outcomes = []
            except (ApiError, httpx.TransportError):
                time.sleep(0.05)
        for client in clients:
            client.close()

    def _ask(self, client: Turnout, rng: random.Random, unit: str) -> list[dict[str, Any]]:
        endpoint = self._endpoints[rng.randrange(len(self._endpoints))]
        distance = rng.uniform(0, 1000)
        inputs = {"distance": distance, "carrier": "AA", "wind": None}
        reply = client.predict(endpoint, unit=unit, inputs=inputs)
        if endpoint in self._careless and reply.get("arm") == "candidate":
            client.predict(endpoint, unit=unit, inputs=inputs)
        late = float(rng.random() < distance / 1000)
        return [{"decision_id": reply["decision_id"], "metric": "late", "value": late}]


@contextmanager
def travelling(urls: Sequence[str], endpoints: Sequence[str], careless: Sequence[str] = ()) -> Iterator[Traveller]:
    """Send traffic while the block runs."""
    traveller = Traveller(urls, endpoints, careless)
    traveller.start()
    try:
        yield traveller
    finally:
        traveller.stop()


def rollout(name: str, candidate: str, **changes: Any) -> dict[str, Any]:
    """Return a rollout of a candidate on the endpoint of the same name."""
    score = {"name": "brier", "kind": "score", "score": "brier", "label": "late", "direction": "decrease"}
    return {
        "name": name,
        "endpoint": name,
        "candidate": candidate,
        "metrics": [{**score, "role": "primary"}],
        "stages": [
            {"kind": "shadow", "min_decisions": 50},
            {"kind": "canary", "share": 0.1, "min_decisions": 20},
            {"kind": "split"},
            {"kind": "champion", "min_decisions": 50},
        ],
        "guardrails": {"errors": 0.05, "latency": {"limit_ms": 15, "margin": 0.05}},
        "planned_decisions": 2000,
        **changes,
    }


def ended(client: Turnout, name: str) -> bool:
    """Return whether a rollout has come to an end."""
    return client.rollout(name)["state"] in {"promoted", "rolled_back", "held"}


def told(client: Turnout, name: str) -> str:
    """Return the steps of a rollout, for a person."""
    steps = client.rollout(name)["transitions"]
    return "\n".join(f"{step['action']} {step['stage']} {step['reason']}" for step in steps)
