"""Clients that behave as applications should, and a book of what was acknowledged to them."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import httpx
import msgspec

ENDPOINT = "delay"

_PAUSE_S = 0.02
_PREDICT, _OUTCOMES = f"/v1/endpoints/{ENDPOINT}/predict", "/v1/outcomes"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Outcome(NamedTuple):
    """What identifies an outcome, and what it says."""

    decision_id: str
    metric: str
    outcome_id: str
    version: int
    value: float | None

    def row(self) -> dict[str, Any]:
        """Return it as it is posted."""
        said = {"decision_id": self.decision_id, "metric": self.metric, "value": self.value, "version": self.version}
        return {**said, "id": self.outcome_id} if self.outcome_id else said


class Failure(NamedTuple):
    """A request that was not acknowledged: when, to where and why."""

    at_s: float
    path: str
    why: str


@dataclass
class Book:
    """What was acknowledged, and how it went. One thread writes it; sizes may be read by others."""

    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The reply to every acknowledged prediction, by decision id."""
    units: dict[str, str] = field(default_factory=dict)
    """Whom each of them is about."""
    keyed: dict[str, set[str]] = field(default_factory=dict)
    """The decision ids with which each client's key was answered."""
    outcomes: set[Outcome] = field(default_factory=set)
    owed: set[Outcome] = field(default_factory=set)
    """Posted at least once, not acknowledged yet."""
    receipts: dict[str, int] = field(default_factory=lambda: {"accepted": 0, "duplicate": 0, "rejected": 0})
    failures: list[Failure] = field(default_factory=list)
    answered_s: list[tuple[float, float]] = field(default_factory=list)
    """When each prediction was answered, and how long its last attempt took."""

    def failed_predictions(self) -> list[Failure]:
        """Return the attempts at a prediction that were not acknowledged."""
        return [failure for failure in self.failures if failure.path == _PREDICT]

    def slowest_s(self) -> float:
        """Return the time of the slowest acknowledged prediction."""
        return max((took_s for _, took_s in self.answered_s), default=0.0)


class Traffic:
    """Load from several clients on one or more routers, which may die at any time.

    A client tries again, at any of the routers, until it is acknowledged: a prediction with its key where it has one
    (every other has), an outcome as it was. `urls` may be changed while the load runs.
    """

    def __init__(
        self, urls: Sequence[str], book: Book, *, name: str = "u", clients: int = 6, pause_s: float = 0.0
    ) -> None:
        self.urls = list(urls)
        self._book = book
        self._name = name
        self._clients = clients
        self._pause_s = pause_s
        self._numbers = count()
        self._stopping = False
        self._problem: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep up the load while the block runs; what is owed at its end can be settled later."""
        self._stopping = False
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stopping = True
            thread.join()
        if self._problem is not None:
            raise self._problem

    def wait_for(self, decisions: int, seconds: float = 30.0, *, outcomes: int = 0) -> None:
        """Return when this many more predictions and outcomes have been acknowledged."""
        book = self._book
        wanted = len(book.decisions) + decisions, len(book.outcomes) + outcomes
        deadline = time.monotonic() + seconds
        while len(book.decisions) < wanted[0] or len(book.outcomes) < wanted[1]:
            assert self._problem is None, self._problem
            assert time.monotonic() < deadline, (
                f"no {decisions} predictions and {outcomes} outcomes in {seconds:g} s: {book.failures[-3:]}"
            )
            time.sleep(0.005)

    def settle(self) -> None:
        """Post what was not acknowledged yet, until it is."""
        self._stopping = False

        async def post() -> None:
            async with self._http() as http:
                while self._book.owed:
                    await self._post(http, sorted(self._book.owed, key=str)[:100])

        asyncio.run(asyncio.wait_for(post(), 60))

    def _run(self) -> None:
        async def run() -> None:
            async with self._http() as http:
                await asyncio.gather(*(self._client(http) for _ in range(self._clients)))

        try:
            asyncio.run(run())
        except BaseException as problem:  # noqa: BLE001 (raised where the load was started)
            self._problem = problem

    def _http(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=4 * self._clients, max_keepalive_connections=4 * self._clients)
        headers = {"Content-Type": "application/json"}
        # Reading certificates that nobody needs would take longer than a hundred predictions.
        return httpx.AsyncClient(timeout=20, limits=limits, verify=False, headers=headers)  # noqa: S501

    async def _client(self, http: httpx.AsyncClient) -> None:
        decided: list[str] = []
        while not self._stopping:
            if (decision_id := await self._predict(http, next(self._numbers))) is not None:
                decided.append(decision_id)
            if len(decided) == 5:
                await self._report(http, decided)
                decided = []
            await asyncio.sleep(self._pause_s)

    async def _predict(self, http: httpx.AsyncClient, number: int) -> str | None:
        unit = f"{self._name}{number}"
        key = f"key-{unit}" if number % 2 else None
        body = {"unit": unit, "inputs": inputs(number)} | ({} if key is None else {"id": key})
        reply = await self._until_acknowledged(http, _PREDICT, _encode(body))
        if reply is None:
            return None
        decision_id: str = reply["decision_id"]
        self._book.decisions[decision_id] = reply
        self._book.units[decision_id] = unit
        if key is not None:
            self._book.keyed.setdefault(key, set()).add(decision_id)
        return decision_id

    async def _report(self, http: httpx.AsyncClient, decided: Sequence[str]) -> None:
        """Post what came of decisions: labels, amounts under ids, some corrected or retracted, some posted twice."""
        rows = [row for decision_id in decided for row in outcomes_of(decision_id)]
        rng = random.Random(decided[0])
        rng.shuffle(rows)
        # In two lists, so that a correction may come after what it corrects is counted, or before.
        middle = rng.randrange(1, len(rows))
        for _ in range(rng.choice((1, 1, 2))):
            await self._post(http, rows[:middle])
            await self._post(http, rows[middle:])

    async def _post(self, http: httpx.AsyncClient, rows: Sequence[Outcome]) -> None:
        self._book.owed |= set(rows) - self._book.outcomes
        reply = await self._until_acknowledged(http, _OUTCOMES, _encode([row.row() for row in rows]))
        if reply is None:
            return
        for receipt in reply["receipts"]:
            self._book.receipts[receipt["status"]] += 1
            assert receipt["status"] != "rejected", receipt
        self._book.outcomes |= set(rows)
        self._book.owed -= set(rows)

    async def _until_acknowledged(self, http: httpx.AsyncClient, path: str, body: bytes) -> Any:
        """Return the reply; None when the load ends before there is one."""
        while True:
            began_s = time.monotonic()
            reply = await self._send(http, path, body)
            if reply is not None:
                if path == _PREDICT:
                    self._book.answered_s.append((time.monotonic(), time.monotonic() - began_s))
                return reply
            if self._stopping:
                return None
            await asyncio.sleep(_PAUSE_S)

    async def _send(self, http: httpx.AsyncClient, path: str, body: bytes) -> Any:
        """Return the reply, or None when there was none or it said to try again."""
        url = random.choice(self.urls)
        try:
            response = await http.post(url + path, content=body)
        except httpx.TransportError as error:
            self._book.failures.append(Failure(time.monotonic(), path, f"{url}: {error!r}"))
            return None
        if response.status_code == 503 and response.headers["Retry-After"] == "1":
            self._book.failures.append(Failure(time.monotonic(), path, f"{url}: {response.text}"))
            return None
        assert response.status_code == 200, response.text
        return _decode(response.content)


def inputs(number: int) -> dict[str, Any]:
    """Return the inputs of a prediction."""
    return {"distance": float(number % 2400 + 80), "hour": float(number % 19 + 5), "carrier": "B6"}


def outcomes_of(decision_id: str) -> Iterator[Outcome]:
    """Yield what comes of a decision; the same for the same id."""
    rng = random.Random(decision_id)
    yield Outcome(decision_id, "late", "", 0, float(rng.random() < 0.4))
    if rng.random() < 0.3:
        yield Outcome(decision_id, "late", "", 1, float(rng.random() < 0.4))
    for number in range(rng.choice((0, 0, 1, 3))):
        yield Outcome(decision_id, "fee", f"part-{number}", 0, rng.randrange(1, 400) / 4)
        if rng.random() < 0.2:
            yield Outcome(decision_id, "fee", f"part-{number}", 2, rng.choice((None, 12.5)))
