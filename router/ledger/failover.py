"""Where a batch goes: to the ledger, or to the spool while the ledger is away, which drains when it is back."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, text

from router.errors import LedgerUnavailable
from router.ledger.batch import BatchWriter, Job
from router.ledger.database import is_unfit, reason_of
from router.ledger.spool import Entry, Spool, adopt_spools, open_spool

RETRY_S = 1.0
"""How often an absent database is tried again."""

LONGEST_PAUSE_S = 30.0
"""How often a database is tried that goes away again as soon as it is back, such as one whose disk is full."""

ADOPT_S = 5.0
"""How often spools of processes that are gone are looked for."""

_DRAINED_AT_ONCE = 512

_FEW = 64
"""With so few jobs left in the spool, what arrives waits for their drain instead of going behind them."""

_PATIENCE_S = 0.5
"""How long it waits."""

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)


class LedgerState(NamedTuple):
    """Why the ledger is away (None while it is there), and how many jobs wait in the spool."""

    problem: str | None
    spooled: int


class Session:
    """A connection of one thread, opened again when it breaks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def run(self, work: Callable[[Connection], Result]) -> Result:
        """Run the work in a transaction; a connection that has broken since it was used last gets a second chance.

        The work may have been committed the first time, so doing it twice must change nothing.
        """
        used_before = self._connection is not None
        try:
            return self._attempt(work)
        except Exception as error:
            if not (used_before and getattr(error, "connection_invalidated", False)):
                raise
        return self._attempt(work)

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # What a broken connection has to say when it is closed helps nobody.
            with suppress(Exception):
                connection.close()

    def _attempt(self, work: Callable[[Connection], Result]) -> Result:
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            with self._connection.begin():
                return work(self._connection)
        except Exception:
            self.close()
            raise


class Failover:
    """Commits batches, from any thread, and says honestly what became of each job."""

    def __init__(self, engine: Engine, batch: BatchWriter, folder: Path, *, max_spool_bytes: int) -> None:
        self._engine = engine
        self._batch = batch
        self._folder = folder
        self._max_spool_bytes = max_spool_bytes
        self._spool = open_spool(folder, max_bytes=max_spool_bytes)
        self._problem: str | None = None
        self._back_s = -LONGEST_PAUSE_S
        self._pause_s = RETRY_S
        self._at_once = _DRAINED_AT_ONCE
        self._switching = threading.Condition()
        self._handing_back = False
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._drainer = threading.Thread(target=self._run, name="spool-drainer", daemon=True)

    def start(self) -> None:
        """Begin to drain what processes that are gone have left behind."""
        self._drainer.start()

    def stop(self) -> None:
        """End the draining; what is left in the spool stays on disk for the next process."""
        self._stopping.set()
        self._wake.set()
        self._drainer.join(2 * RETRY_S)
        self._spool.close()

    def session(self) -> Session:
        """Return a session for a thread that commits."""
        return Session(self._engine)

    def state(self) -> LedgerState:
        """Return whether the ledger is there."""
        return LedgerState(self._problem, len(self._spool))

    def leave(self, problem: str) -> None:
        """Count the ledger as away until the spool has drained into it."""
        with self._switching:
            if self._problem is None:
                relapsed = time.monotonic() - self._back_s < self._pause_s
                self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S) if relapsed else RETRY_S
                _logger.warning("the ledger is away (%s); decisions and outcomes go to %s", problem, self._spool.path)
            self._problem = problem
        self._wake.set()

    def commit(self, session: Session, jobs: Sequence[Job]) -> list[Any]:
        """Make the jobs durable and return the answer of each: a result, or the exception to raise."""
        while True:
            if self._problem is None:
                try:
                    return session.run(lambda connection: self._batch.write(connection, jobs))
                except Exception as error:  # noqa: BLE001 (every caller is told; the thread must live on)
                    if is_unfit(error):
                        self.leave(reason_of(error))
                    elif len(jobs) == 1:
                        return [_refusal(error)]
                    else:
                        # One bad row must not fail its neighbours.
                        return [answer for job in jobs for answer in self.commit(session, [job])]
            with self._switching:
                # Under load the spool would never be empty if everything new went there.
                self._switching.wait_for(lambda: not self._handing_back, _PATIENCE_S)
                if self._problem is not None:
                    return self._keep(jobs)

    def _keep(self, jobs: Sequence[Job]) -> list[Any]:
        try:
            return self._spool.append(jobs)
        except LedgerUnavailable as error:
            return [error] * len(jobs)

    def _run(self) -> None:
        session = self.session()
        while not self._stopping.is_set():
            try:
                if self._problem is not None:
                    self._drain_until_back(session)
                self._drain_orphans(session)
            except sqlite3.Error as error:
                _logger.warning("cannot drain the spool (%s); trying again", error)
                self._stopping.wait(RETRY_S)
            except Exception as error:
                if not is_unfit(error):
                    _logger.exception("cannot drain the spool; trying again")
                self._stopping.wait(RETRY_S)
            else:
                self._wake.wait(ADOPT_S)
                self._wake.clear()
        session.close()

    def _drain_orphans(self, session: Session) -> None:
        for orphan in adopt_spools(self._folder, max_bytes=self._max_spool_bytes):
            try:
                self._drain(session, orphan)
            finally:
                orphan.close()

    def _drain_until_back(self, session: Session) -> None:
        self._stopping.wait(self._pause_s)
        while not self._stopping.is_set() and self._problem is not None:
            session.run(lambda connection: connection.execute(text("select 1")))
            self._drain(session, self._spool, down_to=_FEW)
            self._hand_back(session)

    def _hand_back(self, session: Session) -> None:
        """Drain the rest while what arrives waits, and count the ledger as there if nothing came behind it."""
        with self._switching:
            self._handing_back = True
        try:
            self._drain(session, self._spool)
        finally:
            with self._switching:
                self._handing_back = False
                if not len(self._spool):
                    _logger.warning("the ledger is back and the spool is drained")
                    self._problem, self._back_s = None, time.monotonic()
                self._switching.notify_all()

    def _drain(self, session: Session, spool: Spool, down_to: int = 0) -> None:
        while len(spool) > down_to and not self._stopping.is_set():
            entries = spool.first(self._at_once)
            if not entries:
                continue
            try:
                self._move(session, entries)
                self._at_once = min(2 * self._at_once, _DRAINED_AT_ONCE)
            except Exception as error:
                if is_unfit(error):
                    # Perhaps it was too much at once for the server's timeouts.
                    self._at_once = max(1, self._at_once // 2)
                    raise
                self._move_one_by_one(session, spool, entries)
            spool.remove(entries[-1].seq)

    def _move(self, session: Session, entries: Sequence[Entry]) -> None:
        session.run(lambda connection: self._batch.drain(connection, [entry.job for entry in entries]))

    def _move_one_by_one(self, session: Session, spool: Spool, entries: Sequence[Entry]) -> None:
        for entry in entries:
            try:
                self._move(session, [entry])
            except Exception as error:
                if is_unfit(error):
                    raise
                spool.refuse(entry.seq, reason_of(error))


def _refusal(error: Exception) -> LedgerUnavailable:
    refusal = LedgerUnavailable(f"the ledger did not commit ({reason_of(error)}); nothing was stored, try again")
    refusal.__cause__ = error
    return refusal
