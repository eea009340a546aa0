"""Replays logged rows as live traffic: one request per row, labels later, out of order, some of them twice."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from router.client import Turnout

_CLIENTS = 16
_LABELS_HELD_BACK = 2000
_LABELS_PER_POST = 200
_SENT_TWICE = 0.02


class Request(NamedTuple):
    """One row to predict, and the label that becomes known later (None when it never does)."""

    unit: str
    inputs: Mapping[str, Any]
    label: float | None


class Replayed(NamedTuple):
    """What was sent and what the router said of it."""

    requests: int
    decisions: int
    labels: int
    sent_twice: int
    accepted: int
    duplicate: int
    rejected: int


def replay(
    url: str,
    endpoint: str,
    requests: Sequence[Request],
    *,
    label: str,
    key: str,
    api_key: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Replayed:
    """Send every request and every label from a few clients at once; `progress` gets the number of requests sent.

    `key` and the unit make the idempotency key, so that a second replay decides nothing anew; `api_key` is what the
    router wants to see once it has keys.
    """
    traffic = _Traffic(requests, label, progress)

    def client() -> None:
        with Turnout(url, api_key=api_key, timeout_s=60) as router, traffic.stopped_by_an_error():
            for request in traffic.requests():
                reply = router.predict(
                    endpoint, unit=request.unit, inputs=dict(request.inputs), id=f"{key}/{request.unit}"
                )
                if due := traffic.answered(reply["decision_id"], request.label):
                    traffic.posted(router.outcomes(due))

    with ThreadPoolExecutor(_CLIENTS) as clients:
        for ended in [clients.submit(client) for _ in range(_CLIENTS)]:
            ended.result()
    with Turnout(url, api_key=api_key, timeout_s=60) as router:
        while due := traffic.labels_due(held_back=0):
            traffic.posted(router.outcomes(due))
    return traffic.counts()


class _Traffic:
    """What the clients share: the requests still to send, the labels still to post, and the counts."""

    def __init__(self, requests: Sequence[Request], label: str, progress: Callable[[int], None]) -> None:
        self._lock = threading.Lock()
        self._requests = requests
        self._waiting: Iterator[Request] = iter(requests)
        self._label = label
        self._progress = progress
        self._decided: set[str] = set()
        self._labels: list[dict[str, Any]] = []
        self._counts: Counter[str] = Counter()
        self._rng = random.Random(0)  # noqa: S311 (a simulation, not a secret)

    def requests(self) -> Iterator[Request]:
        while True:
            with self._lock:
                request = next(self._waiting, None)
            if request is None:
                return
            yield request

    @contextmanager
    def stopped_by_an_error(self) -> Iterator[None]:
        """Give no client another request after one of them failed."""
        try:
            yield
        except BaseException:
            with self._lock:
                self._waiting = iter(())
            raise

    def answered(self, decision_id: str, label: float | None) -> list[dict[str, Any]]:
        """Note a decision and its label; return labels that are due now, from whichever decision."""
        with self._lock:
            self._decided.add(decision_id)
            if label is not None:
                twice = self._rng.random() < _SENT_TWICE
                row = {"decision_id": decision_id, "metric": self._label, "value": label}
                self._labels += [row] * (1 + twice)
                self._counts.update(labels=1, sent_twice=twice)
            self._counts["sent"] += 1
            self._progress(self._counts["sent"])
        return self.labels_due(held_back=_LABELS_HELD_BACK)

    def labels_due(self, *, held_back: int) -> list[dict[str, Any]]:
        with self._lock:
            if len(self._labels) <= held_back:
                return []
            self._rng.shuffle(self._labels)
            due, self._labels = self._labels[:_LABELS_PER_POST], self._labels[_LABELS_PER_POST:]
            return due

    def posted(self, receipts: Mapping[str, Any]) -> None:
        with self._lock:
            self._counts.update({status: receipts[status] for status in ("accepted", "duplicate", "rejected")})

    def counts(self) -> Replayed:
        of = self._counts
        return Replayed(
            requests=len(self._requests),
            decisions=len(self._decided),
            labels=of["labels"],
            sent_twice=of["sent_twice"],
            accepted=of["accepted"],
            duplicate=of["duplicate"],
            rejected=of["rejected"],
        )
