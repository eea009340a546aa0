"""A router that kills itself at a named point: `python -m tests.system.killed_router POINT PASSAGE -- serve ..`.

The product knows nothing of it: its functions are wrapped before it starts. At the given passage of the point, counted
from 1, the process gets SIGKILL, so that nothing is flushed, closed or answered.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from sqlalchemy import Engine, event
from uvicorn.protocols.http import h11_impl, httptools_impl

from router.ledger import failover, spool, writer
from router.ledger.batch import BatchWriter

Install = Callable[[Callable[[], None]], None]

_DATA_PLANE = ("/predict", "/outcomes")


def _after_decide(passed: Callable[[], None]) -> None:
    """The arm is drawn and the model has predicted; nothing is queued."""
    _wrap(writer.LedgerWriter, "decide", before=passed)


def _before_commit(passed: Callable[[], None]) -> None:
    """The batch is written, its transaction is open."""
    _on_commit(BatchWriter, "write", passed)


def _after_commit(passed: Callable[[], None]) -> None:
    """The batch is committed, to the ledger or the spool; nobody who waits for it has been told."""
    _wrap(failover.Failover, "commit", after=passed)


def _before_reply(passed: Callable[[], None]) -> None:
    """The answer is made; not one byte of it is sent."""
    for implementation in (h11_impl, httptools_impl):
        original = implementation.RequestResponseCycle.send

        async def send(self: Any, message: Any, original: Any = original) -> None:
            if message["type"] == "http.response.start" and self.scope["path"].endswith(_DATA_PLANE):
                passed()
            await original(self, message)

        implementation.RequestResponseCycle.send = send


def _before_spool_commit(passed: Callable[[], None]) -> None:
    """The ledger is away; the batch is written to the spool, whose transaction is open."""
    original = spool._Transaction.__exit__

    def leave(self: Any, kind: Any, *rest: Any) -> None:
        if threading.current_thread().name.startswith("ledger-writer"):
            passed()
        original(self, kind, *rest)

    spool._Transaction.__exit__ = leave  # type: ignore[method-assign]


def _after_spool_commit(passed: Callable[[], None]) -> None:
    """The ledger is away; the batch is in the spool, and nobody who waits for it has been told."""
    _wrap(spool.Spool, "append", after=passed)


def _drain_before_commit(passed: Callable[[], None]) -> None:
    """Jobs from the spool are written to the ledger, whose transaction is open."""
    _on_commit(BatchWriter, "drain", passed)


def _drain_after_commit(passed: Callable[[], None]) -> None:
    """Jobs from the spool are in the ledger, and still in the spool."""
    _wrap(failover.Failover, "_move", after=passed)


def _drain_after_removal(passed: Callable[[], None]) -> None:
    """Some jobs are in the ledger and out of the spool, which has more."""
    _wrap(spool.Spool, "remove", after=passed)


POINTS: dict[str, Install] = {
    "after-decide": _after_decide,
    "before-commit": _before_commit,
    "after-commit": _after_commit,
    "before-reply": _before_reply,
}
"""Where a router can die while the ledger is there."""

AWAY_POINTS: dict[str, Install] = {
    "before-spool-commit": _before_spool_commit,
    "after-spool-commit": _after_spool_commit,
}
"""Where it can die while the ledger is away."""

DRAIN_POINTS: dict[str, Install] = {
    "drain-before-commit": _drain_before_commit,
    "drain-after-commit": _drain_after_commit,
    "drain-after-removal": _drain_after_removal,
}
"""Where it can die when the ledger is back."""


def install(point: str, passage: int) -> None:
    """Kill this process at a passage of a point."""
    passages = 0
    counting = threading.Lock()

    def passed() -> None:
        nonlocal passages
        with counting:
            passages += 1
            if passages == passage:
                os.kill(os.getpid(), signal.SIGKILL)

    if point in DRAIN_POINTS:
        # A spool that drains at one go has no middle.
        failover._DRAINED_AT_ONCE = 4
    (POINTS | AWAY_POINTS | DRAIN_POINTS)[point](passed)


def run(arguments: Sequence[str]) -> None:
    """Run `turnout` with these arguments."""
    from router.cli import main

    main(list(arguments), prog_name="turnout")


def _wrap(
    owner: Any, name: str, *, before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None
) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        before()
        result = original(*args, **kwargs)
        after()
        return result

    setattr(owner, name, wrapped)


def _on_commit(owner: Any, name: str, passed: Callable[[], None]) -> None:
    """Pass when a transaction in which this method was called is about to be committed."""
    written = threading.local()

    def writes() -> None:
        written.here = True

    def commits(_: Any) -> None:
        if getattr(written, "here", False):
            written.here = False
            passed()

    _wrap(owner, name, after=writes)
    event.listen(Engine, "commit", commits)


if __name__ == "__main__":
    install(sys.argv[1], int(sys.argv[2]))
    run(sys.argv[4:])
