"""A ledger and routers on it, of which everything can be taken away: the processes, the database, the line to it."""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from tests.databases import database
from tests.proxies import Proxy, proxy
from tests.system.forks import Forks
from tests.system.ledger_audit import Audit, audit
from tests.system.processes import Launch, Router
from tests.system.traffic import Book, Traffic

# Short, so that tests need not wait long for a commit to be given up.
SECRET = "a secret of the system tests"
_SETTINGS = {"TURNOUT_SECRET": SECRET, "TURNOUT_LEDGER_TIMEOUT_S": "1"}


class Site:
    """A ledger in SQLite or PostgreSQL, and the routers on it."""

    def __init__(self, url: str, folder: Path, registry: Path, forks: Forks) -> None:
        self.url = url
        self.folder = folder
        self.forks = forks
        self.routers: list[Router] = []
        self._registry = registry

    @property
    def in_sqlite(self) -> bool:
        """Whether the ledger is a file."""
        return self.url.startswith("sqlite")

    def start(
        self,
        *,
        line: Proxy | None = None,
        port: int | None = None,
        launch: Launch | None = None,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> Router:
        """Start a router and return it at once."""
        url = self.url if line is None else through(line, self.url)
        router = Router(
            self.folder,
            self._registry,
            *options,
            database=url,
            port=port,
            launch=launch or self.forks,
            settings=_SETTINGS | dict(settings or {}),
        )
        self.routers.append(router)
        return router

    def ready(self, **options: object) -> Router:
        """Start a router and return it when it is ready."""
        router = self.start(**options)  # type: ignore[arg-type]
        router.wait_until_ready()
        return router

    def stop(self) -> None:
        """End every router."""
        routers, self.routers = self.routers, []
        for router in routers:
            if router.process.poll() is None:
                router.kill()

    def audit(self, book: Book, routers: Sequence[Router]) -> Audit:
        """Settle what is owed, wait until these routers have drained every spool, and compare ledger and book."""
        Traffic([router.url for router in routers], book).settle()
        return audit(book, routers, self.folder, direct=self.url, launch=self.forks)

    @contextmanager
    def lines(self, number: int) -> Iterator[list[Proxy | None]]:
        """Yield as many lines to the database, to be given to routers; to a file there are none."""
        if self.in_sqlite:
            yield [None] * number
            return
        address = make_url(self.url)
        with contextlib.ExitStack() as stack:
            target = (address.host or "", address.port or 5432)
            yield [stack.enter_context(proxy(target)) for _ in range(number)]

    @contextmanager
    def away(self, line: Proxy | None) -> Iterator[None]:
        """Take the ledger away from the routers on a line while the block runs; a file is locked for every router."""
        if line is not None:
            line.cut()
            try:
                yield
            finally:
                line.restore()
            return
        locking = sqlite3.connect(make_url(self.url).database or "", isolation_level=None, timeout=60)
        try:
            locking.execute("begin immediate")
            yield
        finally:
            locking.close()


def through(line: Proxy, url: str) -> str:
    """Return the address of a database as it is reached through a line."""
    return make_url(url).set(host="127.0.0.1", port=line.port).render_as_string(hide_password=False)


@contextmanager
def site(backend: str, folder: Path, registry: Path, forks: Forks) -> Iterator[Site]:
    """Make an empty ledger and end what runs on it."""
    with database(backend, folder) as url:
        made = Site(url, folder, registry, forks)
        try:
            yield made
        finally:
            made.stop()
