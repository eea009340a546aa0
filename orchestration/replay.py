"""Replays logged rows as live traffic: one request per row, labels later, out of order, some of them twice."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from router.client import AsyncTurnout

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


async def replay(
    client: AsyncTurnout,
    endpoint: str,
    requests: Sequence[Request],
    *,
    label: str,
    key: str,
    progress: Callable[[int], None] = lambda _: None,
) -> Replayed:
    """Send every request and every label, and return the counts; `progress` gets the number of requests sent since.

    `key` and the unit make the idempotency key, so that a second replay decides nothing anew.
    """
    pending = _Pending(label)
    decided: set[str] = set()
    receipts: Counter[str] = Counter()
    waiting = iter(requests)

    async def post(rows: Sequence[dict[str, Any]]) -> None:
        counts = await client.outcomes(rows)
        receipts.update({status: counts[status] for status in ("accepted", "duplicate", "rejected")})

    async def send() -> None:
        for request in waiting:
            reply = await client.predict(
                endpoint, unit=request.unit, inputs=dict(request.inputs), id=f"{key}/{request.unit}"
            )
            decided.add(reply["decision_id"])
            pending.add(reply["decision_id"], request.label)
            if len(pending.rows) >= _LABELS_HELD_BACK:
                await post(pending.take())
            progress(1)

    await asyncio.gather(*(send() for _ in range(_CLIENTS)))
    while pending.rows:
        await post(pending.take())
    return Replayed(
        requests=len(requests),
        decisions=len(decided),
        labels=pending.labels,
        sent_twice=pending.sent_twice,
        accepted=receipts["accepted"],
        duplicate=receipts["duplicate"],
        rejected=receipts["rejected"],
    )


class _Pending:
    """Labels that are known but not posted yet; they leave in no particular order."""

    def __init__(self, label: str) -> None:
        self.rows: list[dict[str, Any]] = []
        self.labels = 0
        self.sent_twice = 0
        self._label = label
        self._rng = random.Random(0)  # noqa: S311 (a simulation, not a secret)

    def add(self, decision_id: str, value: float | None) -> None:
        if value is None:
            return
        twice = self._rng.random() < _SENT_TWICE
        self.rows += [{"decision_id": decision_id, "metric": self._label, "value": value}] * (1 + twice)
        self.labels += 1
        self.sent_twice += twice

    def take(self) -> list[dict[str, Any]]:
        self._rng.shuffle(self.rows)
        taken, self.rows = self.rows[:_LABELS_PER_POST], self.rows[_LABELS_PER_POST:]
        return taken
