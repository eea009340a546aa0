"""Replays logged rows as live traffic: one request per row, outcomes later, out of order, some of them twice."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from router.client import Turnout

_CLIENTS = 16
_MOST_HELD_BACK = 2000
_OUTCOMES_PER_POST = 200
_SENT_TWICE = 0.02

Json = dict[str, Any]


class Request(Protocol):
    """One call to make, and what becomes known of it later."""

    @property
    def unit(self) -> str:
        """What is randomised; no two requests of a replay have the same."""

    def ask(self, router: Turnout, key: str) -> Json:
        """Make the call, with this idempotency key."""

    def outcomes(self, reply: Mapping[str, Any]) -> Sequence[Json]:
        """What becomes known after this reply, as rows for `POST /v1/outcomes`."""


class Replayed(NamedTuple):
    """What was sent and what the router said of it."""

    requests: int
    decisions: int
    outcomes: int
    sent_twice: int
    accepted: int
    duplicate: int
    rejected: int


def replay(
    url: str,
    requests: Sequence[Request],
    *,
    key: str,
    api_key: str | None = None,
    held_back: float = 0.25,
    progress: Callable[[int], None] = lambda _: None,
) -> Replayed:
    """Send every request and every outcome from a few clients at once; `progress` gets the number of requests sent.

    `key` and the unit make the idempotency key, so that a second replay decides nothing anew; `api_key` is what the
    router wants to see once it has keys. Outcomes come late by a share `held_back` of all requests.
    """
    traffic = _Traffic(requests, held_back, progress)

    def client() -> None:
        with Turnout(url, api_key=api_key, timeout_s=60) as router, traffic.stopped_by_an_error():
            for request in traffic.requests():
                reply = request.ask(router, f"{key}/{request.unit}")
                if due := traffic.answered(reply["decision_id"], request.outcomes(reply)):
                    traffic.posted(router.outcomes(due))

    with ThreadPoolExecutor(_CLIENTS) as clients:
        for ended in [clients.submit(client) for _ in range(_CLIENTS)]:
            ended.result()
    with Turnout(url, api_key=api_key, timeout_s=60) as router:
        while due := traffic.outcomes_due(held_back=0):
            traffic.posted(router.outcomes(due))
    return traffic.counts()


class _Traffic:
    """What the clients share: the requests still to send, the outcomes still to post, and the counts."""

    def __init__(self, requests: Sequence[Request], held_back: float, progress: Callable[[int], None]) -> None:
        self._lock = threading.Lock()
        self._requests = requests
        self._waiting: Iterator[Request] = iter(requests)
        self._progress = progress
        self._decided: set[str] = set()
        self._outcomes: list[Json] = []
        self._held_back = min(_MOST_HELD_BACK, round(held_back * len(requests)))
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

    def answered(self, decision_id: str, known: Sequence[Json]) -> list[Json]:
        """Note a decision and what becomes known of it; return outcomes that are due now, from whichever decision."""
        with self._lock:
            self._decided.add(decision_id)
            for row in known:
                twice = self._rng.random() < _SENT_TWICE
                self._outcomes += [row] * (1 + twice)
                self._counts.update(outcomes=1, sent_twice=twice)
            self._counts["sent"] += 1
            self._progress(self._counts["sent"])
        return self.outcomes_due(held_back=self._held_back)

    def outcomes_due(self, *, held_back: int) -> list[Json]:
        with self._lock:
            if len(self._outcomes) <= held_back:
                return []
            self._rng.shuffle(self._outcomes)
            due, self._outcomes = self._outcomes[:_OUTCOMES_PER_POST], self._outcomes[_OUTCOMES_PER_POST:]
            return due

    def posted(self, receipts: Mapping[str, Any]) -> None:
        with self._lock:
            self._counts.update({status: receipts[status] for status in ("accepted", "duplicate", "rejected")})

    def counts(self) -> Replayed:
        of = self._counts
        return Replayed(
            requests=len(self._requests),
            decisions=len(self._decided),
            outcomes=of["outcomes"],
            sent_twice=of["sent_twice"],
            accepted=of["accepted"],
            duplicate=of["duplicate"],
            rejected=of["rejected"],
        )
