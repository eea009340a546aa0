"""What was acknowledged while the database was away: a SQLite file of this process, drained when the database is back.

A file belongs to the process that holds its lock. One whose process was killed is adopted by the next that looks.
"""

import fcntl
import logging
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from router.errors import CannotStart, LedgerUnavailable
from router.ledger.batch import Assign, Decide, Job, Observe, Record
from router.ledger.records import ACCEPTED, DecisionRow

_ACTIVE, _REFUSED, _BROKEN, _LOCK = ".spool", ".refused", ".broken", ".lock"
_PAGE_BYTES = 4096

_SCHEMA = """
create table if not exists entries (
    seq integer primary key autoincrement, kind text not null, job blob not null, endpoint text, key text
);
create unique index if not exists entries_key on entries (endpoint, key) where key is not null;
create table if not exists refused (
    seq integer primary key, kind text not null, job blob not null, reason text not null
);
"""

_KINDS: dict[str, type[Job]] = {"decide": Decide, "assign": Assign, "observe": Observe, "record": Record}
_NAMES = {type_: name for name, type_ in _KINDS.items()}
_DECODERS: dict[str, msgspec.msgpack.Decoder[Job]] = {
    name: msgspec.msgpack.Decoder(type_) for name, type_ in _KINDS.items()
}
_encode = msgspec.msgpack.Encoder().encode

_logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A job in the spool; `seq` rises in the order in which jobs were acknowledged."""

    seq: int
    job: Job


class Spool:
    """One spool file; safe to use from several threads."""

    def __init__(self, path: Path, lock: int, *, max_bytes: int) -> None:
        self.path = path
        self._lock_file = lock
        self._using = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute(f"pragma max_page_count = {max_bytes // _PAGE_BYTES}")
        self._connection.executescript(_SCHEMA)
        self._entries: int = self._connection.execute("select count(*) from entries").fetchone()[0]

    def __len__(self) -> int:
        """Return how many jobs wait to be drained."""
        return self._entries

    def append(self, jobs: Sequence[Job]) -> list[Any]:
        """Store the jobs durably and return their answers: what the ledger would have said, as far as is known here.

        A job that cannot be stored at all gets an exception for its answer.

        Raises:
            LedgerUnavailable: The spool or its disk is full; nothing was stored.
        """
        try:
            with self._using:
                before = self._connection.total_changes
                with self._transaction():
                    answers = [self._append(job) for job in jobs]
                self._entries += self._connection.total_changes - before
        except sqlite3.Error as error:
            raise LedgerUnavailable(
                f"the database is away and the spool takes nothing more ({error}); nothing was stored, try again"
            ) from error
        return answers

    def first(self, most: int) -> list[Entry]:
        """Return the oldest jobs; those that another version wrote and this one cannot read are set aside."""
        with self._using:
            rows = self._connection.execute(
                "select seq, kind, job from entries order by seq limit ?", (most,)
            ).fetchall()
        entries = []
        for seq, kind, job in rows:
            try:
                entries.append(Entry(seq, _DECODERS[kind].decode(job)))
            except (KeyError, msgspec.DecodeError) as error:
                self.refuse(seq, f"it cannot be read: {error!r}")
        return entries

    def remove(self, last: int) -> None:
        """Forget the jobs up to this one: the ledger has them."""
        with self._using:
            with self._transaction():
                removed = self._connection.execute("delete from entries where seq <= ?", (last,)).rowcount
            # Only now: the commit may fail, and a spool that is thought empty is deleted.
            self._entries -= removed

    def refuse(self, seq: int, reason: str) -> None:
        """Set a job aside that the ledger will never take, so that those behind it can drain; it stays in the file."""
        _logger.error("the ledger refuses a job that was acknowledged (%s); it is kept in %s", reason, self.path)
        with self._using:
            with self._transaction():
                copy = "insert or ignore into refused select seq, kind, job, ? from entries where seq = ?"
                self._connection.execute(copy, (reason, seq))
                removed = self._connection.execute("delete from entries where seq = ?", (seq,)).rowcount
            self._entries -= removed

    def close(self) -> None:
        """Release the file; an empty one is removed, one that still has jobs is adopted by the next process."""
        with self._using:
            refused = self._connection.execute("select count(*) from refused").fetchone()[0]
            self._connection.close()
            if not self._entries and refused:
                self.path.rename(self.path.with_suffix(_REFUSED))
            elif not self._entries:
                for suffix in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            if not self._entries:
                self.path.with_suffix(_LOCK).unlink(missing_ok=True)
            os.close(self._lock_file)

    def _append(self, job: Job) -> Any:
        key = job.key if isinstance(job, Decide) else None
        endpoint = job.row.endpoint if isinstance(job, Decide) and key is not None else None
        if endpoint is not None and (known := self._decided(endpoint, key)) is not None:
            return known
        try:
            row = (_NAMES[type(job)], _encode(job), endpoint, key)
        except UnicodeEncodeError as error:
            return LedgerUnavailable(f"the request cannot be stored: {error}")
        self._connection.execute("insert into entries (kind, job, endpoint, key) values (?, ?, ?, ?)", row)
        return _answer(job)

    def _decided(self, endpoint: str, key: str | None) -> DecisionRow | None:
        query = "select kind, job from entries where endpoint = ? and key = ?"
        found = self._connection.execute(query, (endpoint, key)).fetchone()
        if found is None:
            return None
        job = _DECODERS[found[0]].decode(found[1])
        return job.row if isinstance(job, Decide) else None

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._connection)


class _Transaction:
    """`with connection` of the standard library does not begin a transaction by itself."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("begin immediate")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("commit")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("rollback")


def open_spool(folder: Path, *, max_bytes: int) -> Spool:
    """Return a new spool of this process in the folder, or raise CannotStart."""
    path = folder / f"{uuid.uuid4().hex}{_ACTIVE}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(path.with_suffix(_LOCK))
        if lock is None:
            raise AssertionError(f"{path} is new, but somebody has locked it")
        return Spool(path, lock, max_bytes=max_bytes)
    except (OSError, sqlite3.Error) as error:
        raise CannotStart(
            f"cannot keep a spool in {folder}: {error}; set TURNOUT_SPOOL to a writable folder"
        ) from error


def adopt_spools(folder: Path, *, max_bytes: int) -> Iterator[Spool]:
    """Yield the spools in the folder whose processes are gone, locked for this one."""
    for path in sorted(folder.glob(f"*{_ACTIVE}")):
        lock = _locked(path.with_suffix(_LOCK))
        if lock is None:
            continue
        if path.exists() and (spool := _opened(path, lock, max_bytes)) is not None:
            yield spool
        else:
            path.with_suffix(_LOCK).unlink(missing_ok=True)
            os.close(lock)


def _opened(path: Path, lock: int, max_bytes: int) -> Spool | None:
    """Return the spool, or None after setting aside a file that is none."""
    try:
        return Spool(path, lock, max_bytes=max_bytes)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            os.close(lock)
            raise
        _logger.error("%s is no spool (%s); it is kept as %s", path, error, path.with_suffix(_BROKEN).name)
        path.rename(path.with_suffix(_BROKEN))
        return None


def _locked(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None while another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _answer(job: Job) -> Any:
    if isinstance(job, Record):
        return None
    return [ACCEPTED] * len(job.rows) if isinstance(job, Observe) else job.row
